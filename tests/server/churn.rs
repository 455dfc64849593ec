//! Connections come and go so fast that every slot is used again and again.

use std::net::SocketAddr;
use std::thread;

use crate::common::pattern::Numbers;
use crate::common::{Client, Server, proc};

const THREADS: u64 = 4;
const ROUNDS: u64 = 400;

#[test]
fn connections_in_quick_succession_never_see_each_others_bytes() {
    let server = Server::start(&["--max-connections", "16"]);
    let address = server.address;
    let sent = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|seed| scope.spawn(move || come_and_go(address, seed))).collect();
        threads.into_iter().map(|t| t.join().expect("a client thread")).sum()
    });
    server.stop_when_nothing_is_open().assert_exactly(THREADS * ROUNDS, sent);
}

fn come_and_go(address: SocketAddr, seed: u64) -> u64 {
    let mut sizes = Numbers::new(seed);
    let mut sent = 0;
    for round in 0..ROUNDS {
        let mut client = Client::connect(address);
        client.echo(sizes.between(1, 6_000));
        if round % 2 == 0 {
            client.finish();
            client.expect_end();
        }
        sent += client.sent();
    }
    sent
}

#[test]
fn connections_that_break_off_leave_nothing_for_the_next_in_their_slot() {
    let server = Server::start(&["--max-connections", "16", "--buffers", "32", "--buffer-size", "512"]);
    let address = server.address;
    thread::scope(|scope| {
        (0..THREADS).for_each(|seed| {
            scope.spawn(move || break_off(address, seed));
        });
    });
    let report = server.stop_when_nothing_is_open();
    report.assert_sums();
    assert_eq!((report.total.accepted, report.total.open), (THREADS * ROUNDS, 0));
}

#[test]
fn memory_does_not_grow_with_the_number_of_connections_served() {
    // A small pool, so that its pages are all in use after the first round.
    let server = Server::start(&["--buffers", "64", "--buffer-size", "4096"]);
    let serve = |seed| {
        come_and_go(server.address, seed);
        break_off(server.address, seed);
        proc::resident_kib(server.pid())
    };
    let first = (0..2).map(serve).fold(0, |_, resident| resident);
    let last = (2..6).map(serve).fold(0, |_, resident| resident);
    assert!(last < first + 2 * 1024, "{first} KiB after 1600 connections, {last} KiB after 4800");
}

fn break_off(address: SocketAddr, seed: u64) {
    let mut sizes = Numbers::new(seed);
    for _ in 0..ROUNDS {
        let mut client = Client::connect(address);
        client.echo(sizes.between(1, 3_000));
        client.send(sizes.between(1, 3_000));
        match sizes.between(0, 2) {
            0 => client.reset(),
            1 => drop(client),
            _ => client.finish(),
        }
    }
}
