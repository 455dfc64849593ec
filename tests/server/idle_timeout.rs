//! `--idle-timeout`: a connection on which nothing comes or goes is closed, others are not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, Server, wait_until};

#[test]
fn a_silent_connection_is_closed_with_a_fin_after_the_timeout() {
    let server = Server::start(&["--idle-timeout", "400ms"]);
    let mut client = Client::connect(server.address);
    client.echo(100);
    let start = Instant::now();
    client.expect_end();
    let idle = start.elapsed();
    // From the last byte, a moment before `start`.
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
    let server = Server::start(&["--idle-timeout", "1s"]);
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
    let server = Server::start(&["--idle-timeout", "2s"]);
    let mut client = Client::connect_narrow(server.address);
    client.fill(64 << 20);
    wait_until("closed", || server.held() == 0);
    assert_eq!(server.stop().total.idle_closed, 1);
}
