//! Every mode of `load` against this server: no byte lost, and nothing that it does is an error of the
//! server's.

use std::time::Duration;

use load::Limit;
use load::arrivals::Spacing;
use load::chaos::{self, ChaosOptions};
use load::connect::{self, Close, ConnectOptions};
use load::echo::{self, EchoOptions, Transport};

use crate::common::{DEADLINE, Server, sandbox, skipped};

#[test]
fn an_open_loop_at_random_times_is_answered_whole() {
    let server = Server::start(&[]);
    let report = echo::run(&EchoOptions {
        connections: 20,
        rate: Some(2_000),
        arrivals: Spacing::Poisson,
        timeout: DEADLINE,
        ..EchoOptions::new(server.address)
    })
    .unwrap();
    assert_eq!((report.failure(), report.counts.connections_failed), (None, 0));
    assert!(report.latency_raw_us.unwrap().p99 <= report.latency_us.p99, "{report:?}");
    let bytes = report.counts.bytes;
    server.stop_when_nothing_is_open().assert_exactly(20, bytes);
}

#[test]
fn datagrams_come_back_whole() {
    let server = Server::start(&["--udp"]);
    for size in [8, 1_000, 65_507] {
        let report = echo::run(&EchoOptions {
            transport: Transport::Udp,
            connections: 4,
            size,
            depth: 2,
            limit: Limit::Count(50),
            timeout: DEADLINE,
            ..EchoOptions::new(server.address)
        })
        .unwrap();
        assert_eq!((report.failure(), report.counts.operations), (None, 200), "{report:?}");
    }
}

/// The server may have reset the connection before the client looks: it was made all the same.
#[test]
fn accept_and_close_is_no_error() {
    let server = Server::start(&["--mode", "accept-close"]);
    for close in [Close::Reset, Close::Fin] {
        let options = ConnectOptions {
            close,
            limit: Limit::Count(2_000),
            timeout: DEADLINE,
            ..ConnectOptions::new(server.address)
        };
        let report = connect::run(&options).unwrap();
        assert_eq!((report.failure(), report.counts.operations), (None, 2_000), "{report:?}");
    }
}

#[test]
fn chaos_leaves_the_well_behaved_unharmed() {
    if !sandbox::allow_descriptors(5_000) {
        return skipped("fewer than 5000 descriptors allowed (RLIMIT_NOFILE)");
    }
    let server = Server::start(&[]);
    let report = chaos::run(&ChaosOptions {
        address: server.address,
        behaviours: Vec::new(),
        connections: 100,
        duration: Duration::from_secs(2),
        cores: Vec::new(),
        timeout: DEADLINE,
        progress: false,
    })
    .unwrap();
    assert_eq!(report.failure(), None);
    for outcome in &report.behaviours {
        assert!(outcome.connections > 0 && outcome.errors.is_empty(), "{outcome:?}");
    }
    assert!(report.well_behaved.counts.operations > 0, "{report:?}");
}
