//! `--idle-timeout`: a connection on which nothing comes or goes is closed, others are not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::common::{Client, Server, wait_until};

#[test]
fn a_silent_connection_is_closed_with_a_fin_after_the_timeout() {
    let server = Server::start(&["--idle-timeout", "400ms"]);
    let mut client = Client::connect(server.address);
    let start = Instant::now();
    client.echo(100);
    client.expect_end();
    let idle = start.elapsed();
    // From the last byte, a moment after `start`.
    assert!(idle >= Duration::from_millis(350), "closed after {idle:?}");
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.total.idle_closed, report.total.reset), (1, 0));
}

#[test]
fn one_that_never_says_anything_is_closed_too() {
    let server = Server::start(&["--idle-timeout", "100ms"]);
    let mut client = Client::connect(server.address);
    client.expect_end();
    assert_eq!(server.stop_when_nothing_is_open().total.idle_closed, 1);
}

#[test]
fn one_that_talks_stays() {
    let server = Server::start(&["--idle-timeout", "3s"]);
    let mut client = Client::connect(server.address);
    let mut silent = Client::connect(server.address);
    silent.echo(1);
    let closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            silent.expect_end();
            closed.store(true, Ordering::Relaxed);
        });
        while !closed.load(Ordering::Relaxed) {
            client.echo(100);
        }
    });
    client.echo(100);
    drop(client);
    assert_eq!(server.stop_when_nothing_is_open().total.idle_closed, 1);
}

/// A peer that does not read keeps nothing for ever.
#[test]
fn one_that_does_not_read_is_closed() {
    let server = Server::start(&["--idle-timeout", "5s"]);
    let mut client = Client::connect_narrow(server.address);
    client.fill(64 << 20);
    wait_until("closed", || server.held() == 0);
    assert_eq!(server.stop().total.idle_closed, 1);
}

/// A peer that takes longer than the timeout for what the kernel holds for it, of a send that waits or of one
/// that is over, is not idle while it takes it.
#[test]
fn one_that_reads_slowly_gets_everything() {
    for response in ["400000", "3000000"] {
        let options = ["--mode", "sink-source", "--request-size", "1", "--response-size", response];
        let server = Server::start(&[&options[..], &["--idle-timeout", "1s"]].concat());
        let mut slow = narrow(server.address);
        slow.write_all(b"x").expect("ask");
        let total: usize = response.parse().expect("a number");
        let (start, mut got) = (Instant::now(), 0);
        let mut buffer = vec![0; total];
        while got < total {
            // The whole takes 4 s; the kernel's buffers alone, whatever their size, far more than a second.
            let due = total * usize::try_from(start.elapsed().as_millis()).expect("short") / 4000;
            let want = due.min(total).saturating_sub(got);
            if want > 0 {
                let bytes = slow.read(&mut buffer[..want]).expect("bytes");
                assert!(bytes > 0, "closed after {got} of {total} bytes and {:?}", start.elapsed());
                got += bytes;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(slow);
        let report = server.stop_when_nothing_is_open();
        assert_eq!((report.total.idle_closed, report.total.reset), (0, 0));
    }
}

/// Connects with a small receive buffer.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
    socket.set_recv_buffer_size(4096).expect("set the receive buffer");
    socket.connect(&address.into()).expect("connect");
    socket.into()
}
