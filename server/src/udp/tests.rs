//! The worker against real sockets, in this process: what no client can bring about from outside.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use super::message::UDP_SEGMENT;
use super::*;
use crate::control::{self, Phase};
use crate::stats;

const SETTINGS: Settings = Settings {
    pages: Pages::Small,
    buffers: 16,
    buffer_size: DEFAULT_BUFFER_SIZE,
    busy_poll: Duration::ZERO,
    spin: Duration::ZERO,
    drain_timeout: Duration::from_secs(60),
};

/// Long: a test that meets it has hung.
const DEADLINE: Duration = Duration::from_secs(60);

fn bind(address: impl Into<SocketAddr>) -> UdpSocket {
    let socket = UdpSocket::bind(address.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn v4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Runs a worker on this socket while `client` talks to it, drains it, and gives what it has counted. `None`
/// if there is no io_uring here.
fn serve(
    settings: Settings,
    socket: UdpSocket,
    client: impl FnOnce(SocketAddr) + Send,
) -> Option<stats::Counters> {
    let address = socket.local_addr().unwrap();
    serve_all(settings, vec![socket], |_| client(address))
}

/// As [`serve`], on several sockets.
fn serve_all(
    settings: Settings,
    sockets: Vec<UdpSocket>,
    client: impl FnOnce(&LiveCounters) + Send,
) -> Option<stats::Counters> {
    if let Err(error) = worker_ring::create() {
        eprintln!("SKIPPED: no io_uring here: {error}");
        return None;
    }
    let sockets: Vec<OwnedFd> = sockets.into_iter().map(OwnedFd::from).collect();
    let (control, wake) = (Control::new(), control::wake().unwrap());
    let counters = LiveCounters::default();
    thread::scope(|scope| {
        let worker = scope.spawn(|| run(&settings, sockets, &control, &wake, &counters, || true));
        let talk = scope.spawn(|| client(&counters)).join();
        control.set(Phase::Drain, std::slice::from_ref(&wake));
        worker.join().unwrap().unwrap();
        talk.unwrap();
    });
    Some(counters.read())
}

/// A client that sends `payload` as one train of `segment` bytes each (GSO), and takes the datagrams that
/// come back.
fn send_train(server: SocketAddr, segment: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let socket = match server {
        SocketAddr::V4(_) => bind(v4()),
        SocketAddr::V6(_) => bind((Ipv6Addr::LOCALHOST, 0)),
    };
    socket.connect(server).unwrap();
    operations::set_option(&socket, UDP_SEGMENT.0, UDP_SEGMENT.1, segment.into()).unwrap();
    assert_eq!(socket.send(payload).unwrap(), payload.len());
    let mut buffer = vec![0; 1 << 16];
    let count = payload.len().div_ceil(segment.into());
    (0..count)
        .map(|_| {
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        })
        .collect()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn is_cut(payload: &[u8], segment: usize, datagrams: &[Vec<u8>]) -> bool {
    payload.chunks(segment).eq(datagrams.iter().map(Vec::as_slice))
}

/// Otherwise the tests of trains would show nothing.
#[test]
fn the_kernel_puts_a_train_into_one_buffer_on_loopback() {
    let socket = Socket::new(bind(v4()).into(), LARGEST_PAYLOAD).unwrap();
    let client = bind(v4());
    let (level, name) = UDP_SEGMENT;
    operations::set_option(&client, level, name, 1000).unwrap();
    client.send_to(&bytes(3500), (Ipv4Addr::LOCALHOST, socket.port)).unwrap();
    assert_eq!(UdpSocket::from(socket.descriptor).recv(&mut [0; 10_000]).unwrap(), 3500);
}

#[test]
fn a_train_comes_back_as_it_was_sent() {
    for (address, segment, length) in [
        (v4(), 1000, 40_500),
        (v4(), 1472, 1472 * 44),
        (SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), 9, 9 * 60 + 1),
    ] {
        if address.is_ipv6() && UdpSocket::bind(address).is_err() {
            eprintln!("SKIPPED: no IPv6 loopback here");
            continue;
        }
        let payload = bytes(length);
        let Some(counted) = serve(SETTINGS, bind(address), |server| {
            assert!(is_cut(&payload, segment.into(), &send_train(server, segment, &payload)));
        }) else {
            return;
        };
        let count = length.div_ceil(segment.into()) as u64;
        assert_eq!((counted.datagrams_in, counted.datagrams_out), (count, count));
        assert_eq!((counted.bytes_in, counted.bytes_out), (length as u64, length as u64));
    }
}

/// On a wildcard address the answer's control messages are two: the source, and the length of the segments.
#[test]
fn a_train_comes_back_from_the_address_that_it_was_sent_to() {
    let payload = bytes(5001);
    serve(SETTINGS, bind((Ipv4Addr::UNSPECIFIED, 0)), |server| {
        let server = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), server.port()));
        assert!(is_cut(&payload, 500, &send_train(server, 500, &payload)));
    });
}

/// Without checksums there is no GSO: the kernel refuses the train with EINVAL (`udp_send_skb`).
#[test]
fn a_train_that_the_kernel_does_not_take_apart_is_taken_apart_here() {
    const SO_NO_CHECK: i32 = 11;
    let socket = bind(v4());
    operations::set_option(&socket, 1, SO_NO_CHECK, 1).unwrap();
    let payload = bytes(40_500);
    let counted = serve(SETTINGS, socket, |server| {
        for _ in 0..40 {
            assert!(is_cut(&payload, 1000, &send_train(server, 1000, &payload)));
        }
    });
    if let Some(counted) = counted {
        let count = 40 * 41;
        assert_eq!(
            (counted.datagrams_in, counted.datagrams_out, counted.datagrams_dropped),
            (count, count, 0)
        );
        assert_eq!(counted.bytes_out, 40 * 40_500);
    }
}

/// Both of an IPv4 and an IPv6 address, and a datagram from one to the other is not sent to and fro.
#[test]
fn a_worker_serves_all_its_addresses() {
    let sockets = [v4(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), v4()].map(UdpSocket::bind);
    let Ok(sockets) = sockets.into_iter().collect::<io::Result<Vec<_>>>() else {
        return eprintln!("SKIPPED: no IPv6 loopback here");
    };
    let addresses: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let from_itself = sockets[0].try_clone().unwrap();
    let counted = serve_all(SETTINGS, sockets, |_| {
        for server in addresses.iter().cycle().take(30) {
            let echo = send_train(*server, 1000, &bytes(700));
            assert!(is_cut(&bytes(700), 1000, &echo));
        }
        from_itself.send_to(b"to and fro", addresses[2]).unwrap();
    });
    if let Some(counted) = counted {
        assert_eq!((counted.datagrams_in, counted.datagrams_out, counted.datagrams_dropped), (31, 30, 1));
    }
}

/// The worker leaves GRO off where a train would be cut off: each datagram finds room by itself.
#[test]
fn with_small_buffers_a_train_comes_in_datagrams() {
    let settings = Settings { buffer_size: 1000, ..SETTINGS };
    let payload = bytes(40_500);
    let counted = serve(settings, bind(v4()), |server| {
        assert!(is_cut(&payload, 1000, &send_train(server, 1000, &payload)));
    });
    assert!(counted.is_none_or(|counted| (counted.datagrams_out, counted.datagrams_truncated) == (41, 0)));
}

/// The server can send to nobody: every answer fails at once, is counted, and its buffer comes back.
#[test]
fn answers_that_the_kernel_refuses_are_dropped_and_counted() {
    let (shut, open) = (bind(v4()), bind(v4()));
    let open_address = open.local_addr().unwrap();
    let refusing = shut.try_clone().unwrap();
    // A send to another address family than the socket's peer fails; here: after shutdown(SHUT_WR) with
    // EPIPE.
    refusing.connect(open_address).unwrap();
    rustix::net::shutdown(&refusing, rustix::net::Shutdown::Write).unwrap();
    let counted = serve(SETTINGS, shut, |server| {
        for _ in 0..100 {
            open.send_to(b"hello", server).unwrap();
        }
    });
    if let Some(counted) = counted {
        assert_eq!((counted.datagrams_in, counted.datagrams_out), (100, 0), "{counted:?}");
        assert_eq!((counted.datagrams_dropped, counted.bytes_out), (100, 0), "{counted:?}");
    }
}

/// A connected socket gets the ICMP messages that its answers bring about as errors: of a receive, which they
/// end, or of the next send.
#[test]
fn errors_that_icmp_brings_are_counted_and_end_nothing() {
    let (socket, peer) = (bind(v4()), bind(v4()));
    let address = peer.local_addr().unwrap();
    socket.connect(address).unwrap();
    (0..5).for_each(|_| _ = peer.send_to(b"nobody waits for this", socket.local_addr().unwrap()).unwrap());
    drop(peer);
    let server = socket.local_addr().unwrap();
    let failed = |counted: &stats::Counters| counted.reset + counted.datagrams_dropped > 0;
    let counted = serve_all(SETTINGS, vec![socket], |counters| {
        let start = Instant::now();
        while !failed(&counters.read()) {
            assert!(start.elapsed() < DEADLINE, "{:?}", counters.read());
            thread::yield_now();
        }
        let peer = bind(address);
        peer.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (start, mut buffer) = (Instant::now(), [0; 100]);
        while !peer.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"last") {
            assert!(start.elapsed() < DEADLINE);
            peer.send_to(b"last", server).unwrap();
        }
    });
    assert!(counted.is_none_or(|counted| counted.datagrams_out > 0), "{counted:?}");
}

#[test]
fn a_socket_that_is_none_ends_the_worker() {
    let (reader, _writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let (control, wake) = (Control::new(), control::wake().unwrap());
    let result = run(&SETTINGS, vec![reader.into()], &control, &wake, &LiveCounters::default(), || true);
    assert!(matches!(result, Err(UdpError::Start("set a UDP socket up", _, _))), "{result:?}");
}

/// A worker that spins finds what comes while it spins and what comes while it sleeps.
#[test]
fn a_worker_that_spins_answers_and_sleeps() {
    let settings = Settings { spin: Duration::from_millis(1), ..SETTINGS };
    serve(settings, bind(v4()), |server| {
        let client = bind(v4());
        for pause in [0, 0, 5, 0, 20, 0] {
            thread::sleep(Duration::from_millis(pause));
            client.send_to(b"ping", server).unwrap();
            assert_eq!(client.recv(&mut [0; 10]).unwrap(), 4);
        }
    });
}

/// The kernel's count of what it threw away is a number of 32 bits that goes on from anywhere.
#[test]
fn datagrams_that_the_socket_had_no_room_for_are_counted_once() {
    let descriptor = bind(v4());
    let client = bind(v4());
    let server = descriptor.local_addr().unwrap();
    let mut socket = Socket::new(descriptor.into(), LARGEST_PAYLOAD).unwrap();
    assert!(socket.descriptor.as_raw_fd() >= 0);
    assert_eq!(socket.new_overruns(), 0);
    // 4 MiB, or 8 as the kernel doubles it, at 60 KB each.
    (0..400).for_each(|_| assert!(client.send_to(&[0; 60_000], server).is_ok()));
    assert!((1..400).contains(&socket.new_overruns()));
    assert_eq!(socket.new_overruns(), 0);
}
