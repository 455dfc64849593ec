//! Much at once: the server is stopped while its clients go on, and then meets everything in one turn.

use crate::common::client::Arrivals;
use crate::common::{Client, Server, cpus, sandbox, skipped, wait_until};

/// More connections in the accept queue than a submission queue has entries.
#[test]
fn fifteen_hundred_connections_waiting_at_once_are_all_accepted_and_served() {
    if !sandbox::allow_descriptors(4_000) || somaxconn() < 2_000 {
        return skipped("fewer than 4000 descriptors allowed or net.core.somaxconn below 2000");
    }
    let server = Server::start(&["--backlog", "2000"]);
    server.freeze();
    let mut clients: Vec<Client> = (0..1_500).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.send(100));
    server.thaw();
    clients.iter_mut().for_each(Client::receive_all);
    drop(clients);
    server.stop_when_nothing_is_open().assert_exactly(1_500, 150_000);
}

/// Who was there already is answered before the last of those who came meanwhile, of whom not all fit into a
/// submission queue.
#[test]
fn those_who_are_there_are_answered_before_the_last_of_a_burst() {
    const THERE: usize = 20;
    if !sandbox::allow_descriptors(4_000) || somaxconn() < 2_000 {
        return skipped("fewer than 4000 descriptors allowed or net.core.somaxconn below 2000");
    }
    let core = cpus::first().to_string();
    // Room for a whole accept queue and half as much again: one accept takes it at once.
    let server = Server::start(&["--cores", &core, "--backlog", "2000", "--max-connections", "5000"]);
    let mut clients: Vec<Client> = (0..THERE).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    server.freeze();
    clients.extend((0..1_500).map(|_| Client::connect(server.address)));
    wait_until("all are in the accept queue", || server.waiting() == 1_500);
    clients.iter_mut().for_each(|client| client.send(100));
    clients[..THERE].iter().for_each(Client::wait_until_acknowledged);
    let arrivals = Arrivals::of(&clients);
    server.thaw();
    let order = arrivals.wait_for_all();
    let before = order.iter().rposition(|&client| client < THERE).expect("they are answered");
    assert!(before + 1 < order.len(), "{} newcomers were answered first", before + 1 - THERE);
    clients.iter_mut().for_each(Client::receive_all);
    drop(clients);
    server.stop_when_nothing_is_open().assert_exactly(1_520, 20 * 200 + 1_500 * 100);
}

/// Every connection has bytes at the same moment, many times what the buffers hold.
#[test]
fn a_thousand_messages_waiting_at_once_are_all_echoed() {
    if !sandbox::allow_descriptors(2_000) {
        return skipped("fewer than 2000 descriptors allowed (RLIMIT_NOFILE)");
    }
    let server = Server::start(&["--buffers", "16", "--buffer-size", "2048"]);
    let mut clients: Vec<Client> = (0..1_000).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1));
    server.freeze();
    clients.iter_mut().for_each(|client| client.send(10_000));
    server.thaw();
    clients.iter_mut().for_each(Client::receive_all);
    drop(clients);
    server.stop_when_nothing_is_open().assert_exactly(1_000, 10_001_000);
}

/// More bytes in small pieces than a completion queue has entries, and more answers than a submission
/// queue has.
#[test]
fn three_thousand_messages_in_pieces_waiting_at_once_on_one_core_are_all_echoed() {
    if !sandbox::allow_descriptors(6_000) {
        return skipped("fewer than 6000 descriptors allowed (RLIMIT_NOFILE)");
    }
    let core = cpus::first().to_string();
    let server = Server::start(&["--cores", &core, "--buffers", "32768", "--buffer-size", "64"]);
    let mut clients: Vec<Client> = (0..3_000).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1));
    server.freeze();
    clients.iter_mut().for_each(|client| client.send(2_500));
    server.thaw();
    clients.iter_mut().for_each(Client::receive_all);
    drop(clients);
    server.stop_when_nothing_is_open().assert_exactly(3_000, 3_000 * 2_501);
}

/// In one turn the old connections' last bytes and resets, and new connections in their slots.
#[test]
fn new_connections_in_the_slots_of_reset_ones_get_their_own_bytes_only() {
    // A core's share of the limit is less where there are more cores, and all clients may come in on one.
    let core = cpus::first().to_string();
    let server = Server::start(&["--cores", &core, "--max-connections", "32"]);
    for _ in 0..20 {
        let mut old: Vec<Client> = (0..30).map(|_| Client::connect(server.address)).collect();
        old.iter_mut().for_each(|client| client.echo(100));
        server.freeze();
        old.iter_mut().for_each(|client| client.send(3_000));
        old.into_iter().for_each(Client::reset);
        let mut new: Vec<Client> = (0..30).map(|_| Client::connect(server.address)).collect();
        new.iter_mut().for_each(|client| client.send(2_000));
        server.thaw();
        new.iter_mut().for_each(Client::receive_all);
        new.iter_mut().for_each(|client| client.echo(5_000));
    }
    let report = server.stop_when_nothing_is_open();
    report.assert_sums();
    assert_eq!((report.total.accepted, report.total.open), (1_200, 0));
}

fn somaxconn() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("read somaxconn");
    text.trim().parse().expect("a number")
}
