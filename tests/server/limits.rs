//! What happens at a limit: those who do not fit wait in the accept queue and are served as others leave.

use socket2::{Domain, Socket, Type};

use crate::common::{Client, Launch, Server, cpus, holds_for_a_while, proc, wait_until};

/// Bytes of the message that each client sends once.
const MESSAGE: usize = 100;

fn connect_and_send(server: &Server, count: usize) -> Vec<Client> {
    let connect = || {
        let mut client = Client::connect(server.address);
        client.send(MESSAGE);
        client
    };
    (0..count).map(|_| connect()).collect()
}

fn count_served(clients: &mut [Client]) -> usize {
    clients.iter_mut().filter_map(|client| client.has_received_all().then_some(())).count()
}

/// Closes the clients that have their echo, so that others take their places, until none is left.
fn serve_in_waves(mut clients: Vec<Client>, limit: usize) {
    while !clients.is_empty() {
        wait_until("one more client is served", || count_served(&mut clients) > 0);
        let (served, rest): (Vec<_>, Vec<_>) =
            clients.into_iter().map(|mut client| (client.has_received_all(), client)).partition(|(s, _)| *s);
        assert!(served.len() <= limit, "{} served at once with a limit of {limit}", served.len());
        clients = rest.into_iter().map(|(_, client)| client).collect();
    }
}

/// # Panics
/// If the server never sleeps while it can do nothing (it accepts, fails, accepts, fails).
fn assert_does_not_spin(server: &Server) {
    server.wait_until_it_sleeps();
    assert!(server.stderr().len() < 100, "{:?}", server.stderr());
}

#[test]
fn beyond_max_connections_clients_wait_unharmed_and_are_served_as_others_leave() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--max-connections", "4", "--cores", &core]);
    let mut clients = connect_and_send(&server, 20);
    wait_until("four clients served", || count_served(&mut clients) == 4);
    assert_does_not_spin(&server);
    assert_eq!(count_served(&mut clients), 4);
    wait_until("4 accepted, 16 in the accept queue", || (server.held(), server.waiting()) == (4, 16));
    serve_in_waves(clients, 4);
    server.stop_when_nothing_is_open().assert_exactly(20, 20 * MESSAGE as u64);
}

/// Each of those who find the accept queue full is counted, and served when it tries again.
#[test]
fn what_a_full_accept_queue_drops_is_counted() {
    for model in ["per-core", "shared", "single"] {
        let server = Server::start(&["--backlog", "4", "--steer", "hash", "--accept", model]);
        server.freeze();
        let connect = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
            socket.set_nonblocking(true).expect("do not wait");
            let _ = socket.connect(&server.address.into());
            socket
        };
        let sockets: Vec<Socket> = (0..40).map(|_| connect()).collect();
        server.thaw();
        // Of one who got a SYN cookie the kernel knows nothing until it sends.
        let mut silent: Vec<&Socket> = sockets.iter().collect();
        wait_until("each has sent something", || {
            silent.retain(|socket| socket.send(b"x").is_err());
            silent.is_empty()
        });
        wait_until("all are accepted", || server.held() == 40);
        drop(sockets);
        let total = server.stop_when_nothing_is_open().total;
        // A queue of 4 holds 5, and there is one for each core at most; who is dropped may be so again.
        let least = 40 - 5 * cpus::allowed().len() as u64;
        assert!((least..10 * 40).contains(&total.listen_drops), "{model}: {total:?}");
    }
}

#[test]
fn max_connections_is_a_limit_of_the_process_whatever_the_number_of_cores() {
    let server = Server::start(&["--max-connections", "4", "--steer", "hash"]);
    let mut clients = connect_and_send(&server, 40);
    wait_until("a client served", || count_served(&mut clients) > 0);
    holds_for_a_while("at most four accepted", || server.held() <= 4);
    serve_in_waves(clients, 4);
    server.stop_when_nothing_is_open().assert_exactly(40, 40 * MESSAGE as u64);
}

#[test]
fn at_the_limit_a_reset_makes_room_like_a_close() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--max-connections", "1", "--cores", &core]);
    for _ in 0..50 {
        let mut first = Client::connect(server.address);
        first.echo(MESSAGE);
        let mut second = Client::connect(server.address);
        second.send(MESSAGE);
        first.reset();
        second.receive_all();
    }
}

/// Those in the queue may give up: what is accepted then is already closed or reset.
#[test]
fn clients_that_give_up_in_the_accept_queue_do_not_block_those_behind_them() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--max-connections", "2", "--cores", &core]);
    let mut served = connect_and_send(&server, 2);
    wait_until("both served", || count_served(&mut served) == 2);
    for client in connect_and_send(&server, 10) {
        client.reset();
    }
    drop(connect_and_send(&server, 10));
    let mut last = connect_and_send(&server, 1);
    drop(served);
    wait_until("the last in the queue served", || count_served(&mut last) == 1);
    drop(last);
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.total.accepted, report.total.open), (23, 0));
}

/// Bursts that reach the limit while the server accepts whatever comes. With a limit of 60 it never asks for
/// more than one connection at a time. With 156 it does until fewer are free than two such queues hold
/// ([`Acceptor`](../../server/src/worker/acceptor.rs): armed from 115 on, ended below 34).
#[test]
fn bursts_up_to_the_limit_and_beyond_lose_nobody() {
    for limit in [60, 156] {
        bursts_up_to(limit, 16);
    }
}

fn bursts_up_to(limit: usize, burst: usize) {
    let (core, most, backlog) = (cpus::first().to_string(), limit.to_string(), burst.to_string());
    let server = Server::start(&["--max-connections", &most, "--backlog", &backlog, "--cores", &core]);
    let come = |clients: &mut Vec<Client>| {
        server.freeze();
        clients.append(&mut connect_and_send(&server, burst));
        server.thaw();
    };
    let mut all = 0;
    for _ in 0..10 {
        let mut clients = Vec::new();
        while clients.len() + burst <= limit {
            come(&mut clients);
            wait_until("the burst served", || count_served(&mut clients) == clients.len());
        }
        come(&mut clients);
        wait_until("as many served as there is room for", || count_served(&mut clients) == limit);
        all += clients.len();
        serve_in_waves(clients, limit);
        server.wait_until_nothing_is_open();
    }
    let report = server.stop();
    report.assert_exactly(all as u64, (all * MESSAGE) as u64);
    assert_eq!(report.total.accept_rests, 0, "a connection found the table full: {report:?}");
}

#[test]
fn with_fewer_descriptors_than_clients_nobody_is_lost_and_nothing_spins() {
    let server = Launch::new(&[]).descriptors(64).start();
    let mut clients = connect_and_send(&server, 200);
    wait_until("a client served", || count_served(&mut clients) > 0);
    assert_does_not_spin(&server);
    serve_in_waves(clients, 200);
    assert!(server.stderr().len() < 10, "one line says enough: {:?}", server.stderr());
    server.stop_when_nothing_is_open().assert_exactly(200, 200 * MESSAGE as u64);
}

/// The limit of open files below which so many numbers are free.
fn limit_with_room_for(count: usize, open: &[u64]) -> u64 {
    (0..).filter(|number| !open.contains(number)).nth(count).expect("numbers do not end")
}

/// EMFILE. The connections stay in the accept queue, and accepting rests instead of failing again and again.
#[test]
fn out_of_descriptors_clients_wait_and_are_served_when_there_are_some_again() {
    let core = cpus::first().to_string();
    let server =
        Server::start(&["--without", "direct-descriptors", "--max-connections", "20", "--cores", &core]);
    let limit = limit_with_room_for(3, &proc::descriptors(server.pid()));
    // The limit is that of the moment in which an accept was asked for: these use up the accepts of the
    // start.
    let mut first = connect_and_send(&server, 20);
    wait_until("twenty clients served", || count_served(&mut first) == 20);
    server.limit_descriptors(limit);
    drop(first);
    server.wait_until_nothing_is_open();
    let mut clients = connect_and_send(&server, 20);
    wait_until("three clients served", || count_served(&mut clients) == 3);
    assert_does_not_spin(&server);
    assert_eq!(count_served(&mut clients), 3);
    wait_until("17 in the accept queue", || server.waiting() == 17);
    server.limit_descriptors(1_000);
    clients.iter_mut().for_each(Client::receive_all);
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(40, 40 * MESSAGE as u64);
    assert!(report.total.accept_rests > 0, "{report:?}");
}

#[test]
fn more_max_connections_than_descriptors_allow_is_refused() {
    let ended = Launch::new(&["--max-connections", "1000"]).descriptors(64).refused();
    let line = ended.error_line();
    assert!(line.contains("1000") && line.contains("64"), "names both numbers: {line}");
}
