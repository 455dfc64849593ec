//! With far fewer buffers than bytes under way everything still comes back.

use std::net::SocketAddr;
use std::thread;

use rustix::process::Signal;

use crate::common::pattern::Numbers;
use crate::common::{Client, Server};

/// 40 connections whose small messages are all there at once, then 40 with random messages, written and read
/// independently. Returns how often a receive found no buffer.
fn echo_with(buffers: &str, size: &str) -> u64 {
    let server = Server::start(&["--buffers", buffers, "--buffer-size", size]);
    let address = server.address;
    let mut crowd: Vec<Client> = (0..40).map(|_| Client::connect(address)).collect();
    crowd.iter_mut().for_each(|client| client.echo(5));
    server.freeze();
    crowd.iter_mut().for_each(|client| client.send(5));
    server.thaw();
    crowd.iter_mut().for_each(Client::receive_all);
    drop(crowd);
    let sent: u64 = thread::scope(|scope| {
        let clients: Vec<_> = (0..40).map(|seed| scope.spawn(move || exchange(address, seed))).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(80, sent + 40 * 10);
    report.total.starved
}

fn exchange(address: SocketAddr, seed: u64) -> u64 {
    let mut sizes = Numbers::new(seed);
    let messages: Vec<usize> = (0..10).map(|_| sizes.between(1, 4_000)).collect();
    let total = messages.iter().sum::<usize>() as u64;
    let (mut reader, mut writer) = Client::connect(address).split();
    thread::scope(|scope| {
        scope.spawn(|| messages.iter().for_each(|&size| writer.send(size)));
        reader.receive(total);
    });
    total
}

#[test]
fn two_buffers_of_64_bytes_serve_40_connections_exactly() {
    assert!(echo_with("2", "64") > 0, "no receive ever found the pool empty");
}

#[test]
fn a_single_buffer_serves_40_connections_exactly() {
    assert!(echo_with("1", "1024") > 0, "no receive ever found the pool empty");
}

#[test]
fn four_buffers_of_an_odd_size_serve_40_connections_exactly() {
    echo_with("4", "333");
}

#[test]
fn a_few_large_buffers_serve_40_connections_exactly() {
    echo_with("2", "65536");
}

/// Streams that each could take every buffer, and a crowd whose requests arrive all at once.
#[test]
fn a_crowd_beside_streams_is_served() {
    let server = Server::start(&["--buffers", "32", "--buffer-size", "4096"]);
    let address = server.address;
    thread::scope(|scope| {
        for _ in 0..8 {
            let (mut reader, mut writer) = Client::connect(address).split();
            scope.spawn(move || while writer.try_send(100_000).is_ok() {});
            scope.spawn(move || {
                reader.wait_for_end();
                reader.finish_reading();
            });
        }
        let mut crowd: Vec<Client> = (0..300).map(|_| Client::connect(address)).collect();
        server.freeze();
        crowd.iter_mut().for_each(|client| client.send(5));
        server.thaw();
        crowd.iter_mut().for_each(Client::receive_all);
        server.signal(Signal::TERM);
        server.signal(Signal::TERM);
    });
}

/// A connection that takes every buffer while others wait, and the others get theirs.
#[test]
fn a_stream_through_two_buffers_does_not_starve_its_neighbours() {
    let server = Server::start(&["--buffers", "2", "--buffer-size", "4096"]);
    let (mut reader, mut writer) = Client::connect(server.address).split();
    thread::scope(|scope| {
        scope.spawn(|| writer.send(8 << 20));
        scope.spawn(|| reader.receive(8 << 20));
        let mut neighbour = Client::connect(server.address);
        (1..200).for_each(|size| neighbour.echo(size * 10));
    });
}
