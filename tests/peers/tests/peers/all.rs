//! What holds for every peer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use io_uring::IoUring;
use load::Limit;
use load::echo::{self, EchoOptions};

use crate::common::{Peer, bytes};

/// Those that serve many connections at a time.
fn peers() -> Vec<&'static [&'static str]> {
    let mut peers: Vec<&[&str]> = vec![&["epoll"]];
    if cfg!(feature = "all-peers") {
        let runtimes: [&[&str]; 6] = [
            &["tokio"],
            &["tokio", "--multi-thread"],
            &["monoio"],
            &["compio"],
            &["compio", "--multishot"],
            &["glommio"],
        ];
        peers.extend(runtimes);
    }
    peers
}

/// One process, and all of its models.
const BLOCKING: [[&str; 3]; 3] =
    [["blocking", "--model", "shared"], ["blocking", "--model", "reuseport"], ["blocking", "--model", "cpu"]];

#[test]
fn every_byte_comes_back() {
    for args in peers() {
        let peer = Peer::start(&[args, &["--cores", "0"]].concat());
        for (connections, size, depth) in [(1, 1, 1), (100, 64, 4), (3, 200_000, 2)] {
            let limit = Limit::Count(5);
            let options = EchoOptions { connections, size, depth, limit, ..EchoOptions::new(peer.address) };
            assert_eq!(echo::run(&options).unwrap().failure(), None, "{args:?} {options:?}");
        }
    }
}

#[test]
fn everything_comes_back_after_a_half_close_and_then_the_end() {
    let blocking = BLOCKING.iter().map(|args| &args[..]);
    for args in peers().into_iter().chain(blocking) {
        let peer = Peer::start(&[args, &["--cores", "0"]].concat());
        let sent = bytes(100_000);
        let received = peer.half_close_after(&sent);
        assert!(received == sent, "{args:?}: {} of {} bytes, or others", received.len(), sent.len());
    }
}

#[test]
fn accept_close_resets() {
    let blocking = BLOCKING.iter().map(|args| &args[..]);
    for args in peers().into_iter().chain(blocking) {
        let peer = Peer::start(&[args, &["--mode", "accept-close", "--cores", "0"]].concat());
        for _ in 0..50 {
            let error =
                TcpStream::connect(peer.address).and_then(|mut socket| socket.read(&mut [0])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{args:?}");
        }
    }
}

#[test]
fn bare_answers_who_has_waited_and_closes() {
    let peer = Peer::start(&["bare", "--cores", "0"]);
    let clients = peer.hold(|| {
        [1, 2, 3].map(|number| {
            let mut client = peer.connect();
            client.write_all(&[number; 64]).expect("send");
            client
        })
    });
    for (number, mut client) in (1..).zip(clients) {
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("the answer and the end");
        assert_eq!(received, [number; 64]);
    }
}

/// `bare --ring` on every CPU allowed; `None`, and it says so, where it has no such ring.
fn bare_ring() -> Option<Peer> {
    let build = || {
        load::open_files::raise_limit().map_err(std::io::Error::other)?;
        let ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(1024)?;
        ring.submitter().register_files_sparse(4096)
    };
    build().map_err(|error| eprintln!("SKIPPED: a ring with direct descriptors: {error}")).ok()?;
    Some(Peer::start(&["bare", "--ring"]))
}

/// Many more connections than one turn takes, and slots that are used again.
#[test]
fn bare_ring_echoes_what_a_socket_takes_whole() {
    let Some(peer) = bare_ring() else { return };
    for round in 0..3 {
        let mut clients: Vec<_> = (0..700u32).map(|number| (number, peer.connect())).collect();
        for (number, client) in &mut clients {
            client.write_all(&number.to_le_bytes()).expect("send");
        }
        for (number, mut client) in clients {
            let mut received = [0; 4];
            client.read_exact(&mut received).expect("the echo");
            assert_eq!(u32::from_le_bytes(received), number, "round {round}");
        }
    }
}

#[test]
fn bare_ring_ends_when_a_socket_does_not_take_a_message_whole() {
    let Some(peer) = bare_ring() else { return };
    let mut client = peer.connect();
    // Until the end: what is not read fills the socket.
    while client.write_all(&[7; 65536]).is_ok() {}
    let words = peer.last_words();
    assert!(words.contains(": a socket did not take a message whole"), "{words}");
}
