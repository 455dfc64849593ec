//! `--udp`: every datagram comes back to its sender, whole, once, from the address that it was sent to.
//!
//! Trains of datagrams (GSO, GRO), and answers that the kernel refuses, are tested beside the code, in
//! `server/src/udp/tests.rs`: asking for them takes socket options that only unsafe code can set.

mod client;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use client::Client;
use rustix::process::Signal;

use crate::common::report::{Counts, Report};
use crate::common::server::Ended;
use crate::common::{Launch, Server, cpus, skipped, sockets, wait_until};

/// Memory for datagrams that a socket of the server has where `net.core.rmem_max` is as the kernel sets it.
const QUEUE: u64 = 2 * 212_992;

/// Of which a datagram of less than so many bytes takes three times as much at most (`skb->truesize`: powers
/// of two, and two headers).
const DATAGRAM: u64 = 1_100;

/// The longest datagrams: 65535 bytes less the headers of UDP and, with IPv4, IP.
const LARGEST_V4: usize = 65_507;
const LARGEST_V6: usize = 65_527;

fn start(args: &[&str]) -> Server {
    launch(args).start()
}

fn launch(args: &[&str]) -> Launch {
    Launch::new(&[&["--udp"], args].concat())
}

/// A server on the wildcard address of the client's family.
fn start_on(address: &str) -> Server {
    launch(&[]).listen(address).start()
}

/// # Panics
/// If not exactly these came in, and went out again.
fn assert_echoed(report: &Report, datagrams: u64, bytes: u64) {
    let total = &report.total;
    assert_eq!((total.datagrams_in, total.datagrams_out), (datagrams, datagrams), "{report:?}");
    assert_eq!((total.bytes_in, total.bytes_out), (bytes, bytes), "{report:?}");
    assert_eq!((total.datagrams_dropped, total.datagrams_truncated), (0, 0), "{report:?}");
    let sum = |count: fn(&Counts) -> u64| report.cores.iter().map(|core| count(&core.counts)).sum::<u64>();
    assert_eq!(total.datagrams_in, sum(|counts| counts.datagrams_in), "{report:?}");
    assert_eq!((total.accepted, total.open), (0, 0), "{report:?}");
    assert_eq!(total.request_local, None, "the kernel does not tell");
}

fn has_ipv6() -> bool {
    let has = UdpSocket::bind("[::1]:0").is_ok();
    if !has {
        skipped("no IPv6 loopback here");
    }
    has
}

#[test]
fn datagrams_of_every_size_come_back_over_ipv4() {
    let server = start(&[]);
    let mut client = Client::connect(server.address);
    for size in [0, 1, 0, 0, 1472, 1473, 9000, LARGEST_V4, 0] {
        client.echo(size);
    }
    client.expect_silence();
    assert_echoed(&server.stop(), 9, client.sent);
}

#[test]
fn datagrams_of_every_size_come_back_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let server = launch(&[]).listen("[::1]:0").start();
    let mut client = Client::connect(server.address);
    for size in [0, 1, 1452, 1453, LARGEST_V4, LARGEST_V6] {
        client.echo(size);
    }
    assert_echoed(&server.stop(), 6, client.sent);
}

#[test]
fn many_clients_at_once_get_their_own_datagrams() {
    const CLIENTS: u64 = QUEUE / (3 * DATAGRAM);
    let server = start(&[]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server.address)).collect();
    for round in 0..10 {
        clients.iter_mut().enumerate().for_each(|(i, client)| client.send(i % 100 + round * 100));
        clients.iter_mut().for_each(Client::receive_all);
    }
    let bytes = clients.iter().map(|client| client.sent).sum();
    assert_echoed(&server.stop(), CLIENTS * 10, bytes);
}

#[test]
fn a_worker_that_spins_echoes_datagrams_and_sleeps() {
    let server = start(&["--spin-us", "50"]);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address)).collect();
    for size in [1, 1_000, 60_000] {
        clients.iter_mut().for_each(|client| client.echo(size));
    }
    server.wait_until_it_sleeps();
    clients.iter_mut().for_each(|client| client.echo(10));
    assert_echoed(&server.stop(), 40, clients.iter().map(|client| client.sent).sum());
}

/// The one buffer is with the kernel, or full, or being sent from; receives end for want of it again and
/// again.
#[test]
fn a_pool_of_one_buffer_is_enough() {
    let core = cpus::first().to_string();
    let server = start(&["--buffers", "1", "--cores", &core]);
    let mut client = Client::connect(server.address);
    for _ in 0..20 {
        (0..20).for_each(|i| client.send(i * 50));
        client.receive_all();
    }
    server.wait_until_it_sleeps();
    let report = server.stop();
    assert!(report.total.starved > 0, "it never was without a buffer: {report:?}");
    assert_echoed(&report, 400, client.sent);
}

/// A client whose socket is connected takes an answer from no other address than the one that it sends to.
#[test]
fn on_a_wildcard_address_answers_come_from_where_the_datagrams_went_to() {
    let server = start_on("0.0.0.0:0");
    let mut bytes = 0;
    for last in [1, 2, 77] {
        let mut client = Client::connect((Ipv4Addr::new(127, 0, 0, last), server.address.port()).into());
        client.echo(100);
        client.echo(LARGEST_V4);
        bytes += client.sent;
    }
    assert_echoed(&server.stop(), 6, bytes);
}

#[test]
fn the_ipv6_wildcard_address_serves_both_families() {
    if !has_ipv6() {
        return;
    }
    let server = start_on("[::]:0");
    let port = server.address.port();
    for address in [
        (Ipv4Addr::new(127, 0, 0, 2), port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
        // The client's end is an IPv6 socket too, what goes over the wire is IPv4.
        (Ipv4Addr::new(127, 0, 0, 3).to_ipv6_mapped(), port).into(),
    ] {
        Client::connect(address).echo(1000);
    }
    assert_echoed(&server.stop(), 3, 3000);
}

/// What is longer than a buffer is not answered with a part of itself.
#[test]
fn datagrams_longer_than_a_buffer_are_counted_and_not_answered() {
    let server = start(&["--buffer-size", "1000"]);
    let mut client = Client::connect(server.address);
    for _ in 0..3 {
        client.echo(1000);
        client.socket.send(&[0; 1001]).expect("send");
        client.socket.send(&[0; LARGEST_V4]).expect("send");
        client.echo(999);
    }
    client.expect_silence();
    let total = server.stop().total;
    assert_eq!((total.datagrams_in, total.datagrams_out, total.datagrams_truncated), (12, 6, 6), "{total:?}");
    assert_eq!(total.bytes_out, 3 * 1999);
}

/// The other client, and the server, go on; what its socket has no room for is lost there. The other's
/// datagrams would be lost in the server's, if that were full.
#[test]
fn a_client_that_never_reads_disturbs_nobody() {
    let server = start(&[]);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bind a socket");
    let mut client = Client::connect(server.address);
    for i in 0..200 {
        for _ in 0..50 {
            silent.send_to(&[7; 8000], server.address).expect("send");
        }
        wait_until("the datagrams taken", || sockets::all_taken(server.address.port()));
        client.echo(i * 10);
    }
    let total = server.stop().total;
    assert_eq!(total.datagrams_in + total.datagrams_overrun, 200 * 51, "{total:?}");
    assert_eq!(total.datagrams_out + total.datagrams_dropped, total.datagrams_in, "{total:?}");
}

/// What the kernel throws away while nobody takes it from the socket is counted.
#[test]
fn datagrams_lost_in_the_socket_are_counted() {
    let server = start(&[]);
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind a socket");
    server.freeze();
    for _ in 0..1000 {
        client.send_to(&[7; 60_000], server.address).expect("send");
    }
    server.thaw();
    let total = server.stop().total;
    assert!(total.datagrams_overrun > 0, "{total:?}");
    assert_eq!(total.datagrams_in + total.datagrams_overrun, 1000, "{total:?}");
}

/// The clients are gone when the answers come: the ICMP messages about it do no harm.
#[test]
fn clients_that_are_gone_do_no_harm() {
    let server = start(&[]);
    for _ in 0..200 {
        let gone = UdpSocket::bind("127.0.0.1:0").expect("bind a socket");
        gone.send_to(b"nobody waits for this", server.address).expect("send");
    }
    let mut client = Client::connect(server.address);
    client.echo(100);
    let report = server.stop();
    assert_eq!(report.total.datagrams_in, 201, "{report:?}");
}

/// Two echo servers would send a datagram to and fro for ever (CVE-2024-2169).
#[test]
fn a_datagram_from_the_servers_own_port_is_not_answered() {
    let server = start_on("0.0.0.0:0");
    let port = server.address.port();
    // The wildcard address takes 127.0.0.1 for every other socket that does not share it: a second server of
    // the same user shares it.
    let other = launch(&[]).listen(&format!("127.0.0.9:{port}")).refused();
    assert!(other.error_line().contains("EADDRINUSE"), "{other:?}");
    drop(server);
    let server = launch(&[]).listen("127.0.0.1:0").start();
    let socket =
        UdpSocket::bind(("127.0.0.9", server.address.port())).expect("the same port of another address");
    let client = Client::over(socket, server.address);
    client.socket.send(b"ping").expect("send");
    client.expect_silence();
    let total = server.stop().total;
    assert_eq!((total.datagrams_in, total.datagrams_out, total.datagrams_dropped), (1, 0, 1), "{total:?}");
}

#[test]
fn both_signals_end_an_idle_server_with_exit_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = start(&["--drain-timeout", "600s"]);
        server.signal(signal);
        assert_echoed(&server.wait_for_end().report(), 0, 0);
    }
}

#[test]
fn datagrams_in_the_sockets_queue_are_answered_before_the_end() {
    const CLIENTS: u64 = QUEUE / (10 * 3 * DATAGRAM);
    let server = start(&["--drain-timeout", "600s"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(10));
    server.freeze();
    server.signal(Signal::TERM);
    for client in &mut clients {
        (0..10).for_each(|_| client.send(500));
    }
    server.thaw();
    clients.iter_mut().for_each(Client::receive_all);
    assert_echoed(&server.wait_for_end().report(), CLIENTS * 11, CLIENTS * 5010);
}

/// It never goes quiet: the drain timeout ends it.
#[test]
fn datagrams_that_keep_coming_are_answered_no_longer_than_the_drain_timeout() {
    while_datagrams_keep_coming(&["--drain-timeout", "1s"], |server| {
        let ended = server.terminate();
        assert!(ended.took >= Duration::from_millis(900), "it did not go on: {:?}", ended.took);
        ended
    });
}

#[test]
fn a_second_signal_ends_the_wait() {
    while_datagrams_keep_coming(&["--drain-timeout", "600s"], |mut server| {
        // Signals that come together are one.
        wait_until("ended", || {
            server.signal(Signal::TERM);
            !server.is_running()
        });
        server.wait_for_end()
    });
}

fn while_datagrams_keep_coming(args: &[&str], end: impl FnOnce(Server) -> Ended) {
    let server = start(args);
    let address = server.address;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = UdpSocket::bind("127.0.0.1:0").expect("bind a socket");
            while !stop.load(Ordering::Relaxed) {
                // Fails when nobody is there any more.
                let _ = client.send_to(b"and on it goes", address);
                thread::sleep(Duration::from_millis(1));
            }
        });
        wait_until("the datagrams come", || server.cpu_time() > Duration::ZERO);
        let ended = end(server);
        stop.store(true, Ordering::Relaxed);
        let total = ended.report().total;
        assert_eq!(total.datagrams_in, total.datagrams_out + total.datagrams_dropped, "{total:?}");
    });
}

/// Sends from a thread that stays on `cpu`, where on loopback the datagrams are received.
fn echo_from(cpu: u32, server: &Server, clients: usize, each: usize) {
    cpus::on_cpu(cpu, || {
        for _ in 0..clients {
            let mut client = Client::connect(server.address);
            (0..each).for_each(|_| client.echo(100));
        }
    });
}

#[test]
fn steer_cpu_serves_each_datagram_on_the_core_that_received_it() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    for cores in [format!("{first},{second}"), format!("{second},{first}")] {
        let server = start(&["--steer", "cpu", "--cores", &cores]);
        echo_from(first, &server, 3, 10);
        echo_from(second, &server, 5, 10);
        let report = server.stop();
        assert_echoed(&report, 80, 8000);
        let counts = [first, second].map(|cpu| report.core(cpu).datagrams_in);
        assert_eq!(counts, [30, 50], "{report:?}");
    }
}

/// Each client sends 97 datagrams: a core that serves clients wholly has served a multiple of that.
#[test]
fn steer_hash_keeps_each_client_on_one_core() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = start(&["--steer", "hash", "--cores", &format!("{first},{second}")]);
    echo_from(first, &server, 60, 97);
    let report = server.stop();
    assert_echoed(&report, 60 * 97, 60 * 9700);
    for cpu in [first, second] {
        let count = report.core(cpu).datagrams_in;
        // None of 60 clients goes to a core once in 10^18 runs.
        assert!(count > 0 && count.is_multiple_of(97), "{report:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("bind a socket");
    let ended = launch(&[]).listen(&taken.local_addr().expect("an address")).refused();
    assert!(ended.error_line().contains("EADDRINUSE"), "{ended:?}");
}

/// A receive that is armed when the process ends would keep the socket, and its port, for a while.
#[test]
fn the_port_is_free_when_the_server_has_ended() {
    let mut address: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    for _ in 0..20 {
        let server = launch(&[]).listen(&address).start();
        address = server.address;
        Client::connect(address).echo(100);
        server.stop();
        UdpSocket::bind(address).expect("bind to the server's address");
    }
}
