//! `--steer auto`: by CPU, until one core gets far more connections than its share. On loopback a SYN is
//! processed on the CPU of the client that sends it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tune::cpu_set::Cpu;

use crate::common::{Client, DEADLINE, Server, cpus, proc, skipped, wait_until};
use crate::echo::MORE_THAN_FITS;

/// Bytes of each message.
const MESSAGE: usize = 500;

/// Connections at once.
const CROWD: u64 = 32;

/// How long evenly spread connections are made that must not be called skewed: several windows of a second.
const EVENLY: Duration = Duration::from_secs(4);

fn start(first: Cpu, second: Cpu) -> Server {
    Server::start(&["--steer", "auto", "--cores", &format!("{first},{second}"), "--drain-timeout", "600s"])
}

fn use_once(server: &Server) {
    Client::connect(server.address).echo(MESSAGE);
}

/// Connects from one CPU, many at once, until the server says something; returns how many there were. One
/// after the other they might be too few to be judged where the CPU is shared.
fn connect_until_told(cpu: Cpu, server: &Server) -> u64 {
    cpus::on_cpu(cpu, || {
        let start = Instant::now();
        let mut count = 0;
        while server.stderr().len() < 2 {
            assert!(start.elapsed() < DEADLINE, "{count} connections from CPU {cpu} and not a word");
            let mut crowd: Vec<Client> = (0..CROWD).map(|_| Client::connect(server.address)).collect();
            crowd.iter_mut().for_each(|client| client.echo(MESSAGE));
            count += CROWD;
        }
        count
    })
}

fn watches(server: &Server) -> bool {
    proc::threads(server.pid()).iter().any(|thread| thread.name == "steer-auto")
}

/// One client on one CPU would keep one worker busy and the other idle. From the message on both get their
/// share, nobody is lost meanwhile, connections that were there stay, and it is said once.
#[test]
fn a_client_on_one_cpu_is_spread_over_all_cores_from_the_message_on() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = start(first, second);
    let mut old: Vec<Client> = (0..20).map(|_| Client::connect(server.address)).collect();
    old.iter_mut().for_each(|client| client.echo(MESSAGE));
    let before = connect_until_told(first, &server);
    cpus::on_cpu(first, || (0..1_000).for_each(|_| use_once(&server)));
    old.iter_mut().for_each(|client| client.echo(MESSAGE));
    drop(old);
    wait_until("the watch ends", || !watches(&server));
    server.wait_until_nothing_is_open();
    let ended = server.terminate();
    let report = ended.report();
    let connections = 20 + before + 1_000;
    report.assert_exactly(connections, (connections + 20) * MESSAGE as u64);
    // By hash fewer than 300 of 1000 come to one of two cores once in 10^37 runs; 20 may have come there
    // before.
    assert!(report.core(second).accepted >= 300, "{report:?}");
    let [_, message] = ended.stderr.as_slice() else { panic!("not one message: {:?}", ended.stderr) };
    let said = format!("server: steer auto: core {first} took ");
    assert!(message.starts_with(&said), "{message}");
    assert!(message.ends_with(" s: steering by hash from now on"), "{message}");
}

#[test]
fn clients_on_all_cpus_are_steered_by_cpu_for_good() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = start(first, second);
    let connect = |cpu| {
        cpus::on_cpu(cpu, || (0..50).for_each(|_| use_once(&server)));
        50
    };
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < EVENLY {
        count += connect(first) + connect(second);
    }
    assert!(watches(&server));
    server.wait_until_nothing_is_open();
    let ended = server.terminate();
    let report = ended.report();
    assert_eq!(ended.stderr.len(), 1, "{:?}", ended.stderr);
    assert_eq!((report.core(first).accepted, report.core(second).accepted), (count / 2, count / 2));
    assert_eq!(report.total.accept_local, Some(1.0), "{report:?}");
}

/// The watch has descriptors of the listeners: if it kept them, clients would be let in while the server
/// drains, and be reset at its end.
#[test]
fn a_draining_server_refuses_new_connections_though_it_was_watching() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = start(first, second);
    let mut busy = Client::connect(server.address);
    busy.fill_the_server(MORE_THAN_FITS);
    assert!(watches(&server));
    server.signal(Signal::TERM);
    wait_until("connections refused", || {
        let refused = Client::try_connect(server.address).err();
        refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(!watches(&server));
    busy.receive_all();
    busy.expect_end();
    server.wait_for_end().report();
}

/// Who waits for a place is not counted as accepted: without another sign the watch would wait, too.
#[test]
fn a_core_that_is_full_is_a_sign_though_nobody_more_is_accepted() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let cores = format!("{first},{second}");
    let server = Server::start(&["--steer", "auto", "--cores", &cores, "--max-connections", "100"]);
    let connect = |count| (0..count).map(|_| Client::connect(server.address)).collect::<Vec<Client>>();
    let clients = cpus::on_cpu(first, || connect(60));
    wait_until("it is said", || server.stderr().len() == 2);
    let said = format!(
        "server: steer auto: core {first} is full with 50 of all 50 connections: steering by hash from now on"
    );
    assert_eq!(server.stderr()[1], said);
    // One of 40 comes to the other core but once in 10^12 runs.
    let mut late = cpus::on_cpu(first, || connect(40));
    late.iter_mut().for_each(|client| client.send(MESSAGE));
    wait_until("the other core serves", || late.iter_mut().any(Client::has_received_all));
    drop((clients, late));
    let report = server.stop_when_nothing_is_open();
    assert!(report.core(second).accepted > 0, "{report:?}");
}

#[test]
fn with_one_core_there_is_nothing_to_watch() {
    let server = Server::start(&["--steer", "auto", "--cores", &cpus::first().to_string()]);
    use_once(&server);
    assert!(!watches(&server));
    server.stop_when_nothing_is_open().assert_exactly(1, MESSAGE as u64);
}
