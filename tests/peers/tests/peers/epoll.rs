//! What holds for the epoll peer beyond what holds for all.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use load::Limit;
use load::echo::{self, EchoOptions};

use crate::common::{Peer, bytes, wait_until};

const TRIGGERS: [&str; 2] = ["level", "edge"];

#[test]
fn every_byte_comes_back_whatever_the_trigger_the_buffer_and_the_message() {
    for trigger in TRIGGERS {
        for buffer in ["64", "262144"] {
            let peer = Peer::start(&["epoll", "--trigger", trigger, "--buffer-size", buffer, "--cores", "0"]);
            for (connections, size, depth) in
                [(1, 1, 1), (300, 64, 1), (5, 64, 8), (3, 65_537, 3), (2, 1 << 20, 2)]
            {
                let limit = Limit::Count(if size > 100_000 { 3 } else { 10 });
                let options =
                    EchoOptions { connections, size, depth, limit, ..EchoOptions::new(peer.address) };
                let report = echo::run(&options).unwrap();
                assert_eq!(report.failure(), None, "{trigger} {buffer} {options:?}");
            }
        }
    }
}

#[test]
fn all_cores_listen_on_one_port() {
    let peer = Peer::start(&["epoll"]);
    let cores = tune::affinity::allowed().unwrap().len();
    let threads = peer.threads();
    assert_eq!(threads, 1 + cores);
    let options = EchoOptions { connections: 50, limit: Limit::Count(20), ..EchoOptions::new(peer.address) };
    assert_eq!(echo::run(&options).unwrap().failure(), None);
}

/// The peer must stop reading: what it has taken beyond its buffer and the socket buffers would be memory of
/// its own.
#[test]
fn who_does_not_read_is_not_read_from_and_loses_nothing() {
    for trigger in TRIGGERS {
        let peer = Peer::start(&["epoll", "--trigger", trigger, "--cores", "0", "--buffer-size", "16384"]);
        let mut slow = peer.connect();
        slow.set_nonblocking(true).unwrap();
        let sent = bytes(64 << 20);
        let mut taken = 0;
        let mut last = Instant::now();
        // Full when nothing was taken for a while.
        while last.elapsed() < Duration::from_millis(500) && taken < sent.len() {
            match slow.write(&sent[taken..]) {
                Ok(length) => (taken, last) = (taken + length, Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(taken < sent.len(), "{trigger}: it has read on");
        // Nobody else notices.
        let mut other = peer.connect();
        other.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        other.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
        let idle = peer.cpu_time();
        thread::sleep(Duration::from_millis(300));
        assert!(
            peer.cpu_time() - idle < Duration::from_millis(100),
            "{trigger}: it spins while the reader is slow"
        );

        slow.set_nonblocking(false).unwrap();
        slow.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        slow.read_to_end(&mut received).unwrap();
        assert!(received == sent[..taken], "{trigger}: {} of {taken} bytes, or others", received.len());
    }
}

#[test]
fn everything_comes_back_after_a_half_close_and_then_the_end() {
    for trigger in TRIGGERS {
        let peer = Peer::start(&["epoll", "--trigger", trigger, "--cores", "0"]);
        let before = peer.files();
        for length in [0, 1, 64, 3 << 20] {
            let sent = bytes(length);
            let received = peer.half_close_after(&sent);
            assert!(received == sent, "{trigger}: {} of {length} bytes, or others", received.len());
        }
        wait_until("all connections are closed", || peer.files() == before);
    }
}

#[test]
fn a_reset_closes_the_connection_also_while_bytes_are_pending() {
    for trigger in TRIGGERS {
        let peer = Peer::start(&["epoll", "--trigger", trigger, "--cores", "0"]);
        let before = peer.files();
        let (idle, busy) = (peer.connect(), peer.connect());
        wait_until("both are accepted", || peer.files() == before + 2);
        busy.set_nonblocking(true).unwrap();
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(300) {
            match (&busy).write(&[7; 65536]) {
                Ok(1..) => last = Instant::now(),
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        for socket in [idle, busy] {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        }
        wait_until("both are closed", || peer.files() == before);
    }
}

#[test]
fn short_of_descriptors_it_neither_spins_nor_forgets_who_waits() {
    for trigger in TRIGGERS {
        let peer = Peer::limited(Some(15), &["epoll", "--trigger", trigger, "--cores", "0"]);
        let before_connecting = peer.files();
        let mut sockets: Vec<_> = (0..30).map(|_| peer.connect()).collect();
        wait_until("all descriptors are in use", || {
            peer.numbers().filter(|&number| number < 15).count() == 15
        });
        let before = peer.cpu_time();
        thread::sleep(Duration::from_millis(500));
        let used = peer.cpu_time() - before;
        assert!(used < Duration::from_millis(150), "{trigger}: {used:?} of CPU time in 500 ms");
        // One that goes makes room for the first that waits, and in the end all are served.
        let accepted = peer.files() - before_connecting;
        let mut first_waiting = sockets.remove(accepted);
        sockets.remove(0);
        let mut last = sockets.pop().unwrap();
        for socket in [&mut first_waiting, &mut last] {
            socket.write_all(b"x").unwrap();
        }
        first_waiting.read_exact(&mut [0]).unwrap();
        drop(sockets);
        last.read_exact(&mut [0]).unwrap();
    }
}
