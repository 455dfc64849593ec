//! Who accepts: `--accept`.

use std::collections::VecDeque;

use tune::cpu_set::Cpu;

use crate::common::{Client, Server, cpus, skipped, wait_until};

/// Clients that have been served, and stay.
fn clients(server: &Server, count: usize) -> Vec<Client> {
    let connect = || {
        let mut client = Client::connect(server.address);
        client.echo(1000);
        client
    };
    (0..count).map(|_| connect()).collect()
}

fn two_cores(args: &[&str]) -> Option<(Server, Cpu, Cpu)> {
    let (first, second) = cpus::two()?;
    let cores = format!("{first},{second}");
    let args: Vec<&str> = args.iter().copied().chain(["--cores", &cores]).collect();
    Some((Server::start(&args), first, second))
}

#[test]
fn with_single_the_first_core_accepts_and_all_serve_in_turn() {
    let Some((server, first, second)) = two_cores(&["--accept", "single"]) else {
        return skipped("needs 2 CPUs");
    };
    let mut clients = clients(&server, 100);
    clients.iter_mut().for_each(|client| client.echo(5000));
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(100, 600_000);
    assert_eq!((report.core(first).accepted, report.core(second).accepted), (50, 50));
    assert_eq!((report.core(first).handed_over, report.core(second).taken_over), (50, 50));
}

#[test]
fn with_single_the_connection_limit_holds_for_every_core() {
    let Some((server, first, second)) = two_cores(&["--accept", "single", "--max-connections", "5"]) else {
        return skipped("needs 2 CPUs");
    };
    let served = clients(&server, 5);
    let mut late = Client::connect(server.address);
    late.send(10);
    wait_until("one waits", || server.waiting() == 1);
    drop(served);
    late.receive_all();
    drop(late);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(6, 5010);
    assert!(report.core(first).accepted >= 2 && report.core(second).accepted >= 2, "{report:?}");
}

/// Those in the accept queue, and those on their way from one core to the other, are served before the server
/// ends.
#[test]
fn with_single_a_drain_loses_nobody() {
    for _ in 0..10 {
        let options = ["--accept", "single", "--drain-timeout", "600s"];
        let Some((server, ..)) = two_cores(&options) else { return skipped("needs 2 CPUs") };
        server.freeze();
        let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(server.address)).collect();
        clients.iter_mut().for_each(|client| client.send(100));
        server.signal(rustix::process::Signal::TERM);
        server.thaw();
        clients.iter_mut().for_each(Client::receive_all);
        drop(clients);
        server.wait_for_end().report().assert_exactly(300, 30_000);
    }
}

#[test]
fn with_shared_all_cores_accept_from_one_socket() {
    let Some((server, first, second)) = two_cores(&["--accept", "shared"]) else {
        return skipped("needs 2 CPUs");
    };
    let mut clients = clients(&server, 400);
    clients.iter_mut().for_each(|client| client.echo(100));
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(400, 440_000);
    assert!(report.core(first).accepted > 0 && report.core(second).accepted > 0, "{report:?}");
}

#[test]
fn with_shared_the_connection_limit_holds() {
    let Some((server, ..)) = two_cores(&["--accept", "shared", "--max-connections", "4"]) else {
        return skipped("needs 2 CPUs");
    };
    let served = clients(&server, 4);
    let mut late: Vec<Client> = (0..4).map(|_| Client::connect(server.address)).collect();
    late.iter_mut().for_each(|client| client.send(10));
    wait_until("four wait", || server.waiting() == 4);
    drop(served);
    late.iter_mut().for_each(Client::receive_all);
    drop(late);
    server.stop_when_nothing_is_open().assert_exactly(8, 4040);
}

/// The first core, nearly full, gives no more to itself than it may have while others have room.
#[test]
fn with_single_a_burst_goes_to_those_with_room() {
    let options = ["--accept", "single", "--max-connections", "40", "--overload", "reset"];
    let Some((server, ..)) = two_cores(&options) else { return skipped("needs 2 CPUs") };
    // They go in turn: first, second, first, ...
    let served = clients(&server, 40).into_iter().enumerate();
    // 3 of the first core's leave, and 13 of the second's.
    let (gone, mut served): (Vec<_>, Vec<_>) =
        served.partition(|&(index, _)| index < 6 && index % 2 == 0 || index < 26 && index % 2 == 1);
    drop(gone);
    wait_until("16 have left", || server.held() == 24);
    server.freeze();
    let mut burst: Vec<Client> = (0..16).map(|_| Client::connect(server.address)).collect();
    server.thaw();
    burst.iter_mut().for_each(|client| client.echo(100));
    served.iter_mut().for_each(|(_, client)| client.echo(100));
    drop((served, burst));
    let total = server.stop_when_nothing_is_open().total;
    assert_eq!((total.accepted, total.refused), (56, 0), "{total:?}");
}

/// Nothing happens to the core that accepts when a connection of another one goes.
#[test]
fn with_single_a_place_that_another_core_frees_is_taken_at_once() {
    let Some((server, ..)) = two_cores(&["--accept", "single", "--max-connections", "4"]) else {
        return skipped("needs 2 CPUs");
    };
    let mut open: VecDeque<Client> = clients(&server, 4).into();
    open.iter_mut().for_each(|client| client.echo(100));
    for _ in 0..8 {
        let mut next = Client::connect(server.address);
        drop(open.pop_front());
        next.echo(100);
        open.push_back(next);
    }
}
