//! Many connections at once, each with several messages.

use load::Limit;
use load::echo::{EchoOptions, run};

use crate::common::{DEADLINE, Server, proc, sandbox, skipped};

/// Opens `connections` at once, exchanges `messages` of `size` bytes on each, `depth` at a time, and closes.
fn echo_on_all(server: &Server, connections: u32, messages: u64, size: u32, depth: u32) {
    let options = EchoOptions {
        connections,
        size,
        depth,
        limit: Limit::Count(messages),
        timeout: DEADLINE,
        ..EchoOptions::new(server.address)
    };
    let report = run(&options).expect("the client runs");
    assert_eq!(report.failure(), None);
    let bytes = u64::from(connections) * messages * u64::from(size);
    assert_eq!((report.counts.connections, report.counts.bytes), (u64::from(connections), bytes));
}

#[test]
fn a_thousand_connections_are_echoed_exactly() {
    if !sandbox::allow_descriptors(2_000) {
        return skipped("fewer than 2000 descriptors allowed (RLIMIT_NOFILE)");
    }
    let server = Server::start(&[]);
    echo_on_all(&server, 1_000, 20, 5_000, 3);
    server.stop_when_nothing_is_open().assert_exactly(1_000, 1_000 * 20 * 5_000);
}

/// The memory that this takes is not what it would be if each connection had a buffer of its own.
#[test]
fn ten_thousand_connections_are_echoed_exactly_and_cost_little_memory() {
    // The other tests' connections are open in this process at the same time.
    if !sandbox::allow_descriptors(15_000) {
        return skipped("fewer than 15000 descriptors allowed (RLIMIT_NOFILE)");
    }
    let server = Server::start(&["--max-connections", "12000"]);
    let before = proc::resident_kib(server.pid());
    echo_on_all(&server, 10_000, 4, 1_000, 2);
    let most = proc::peak_resident_kib(server.pid());
    assert!(most < before + 64 * 1024, "{before} KiB before, {most} KiB with 10 000 connections");
    server.stop_when_nothing_is_open().assert_exactly(10_000, 10_000 * 4 * 1_000);
}
