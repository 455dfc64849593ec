//! Which core serves which connection, and that the report says so truthfully. On loopback a SYN is processed
//! on the CPU of the client that sends it.

use tune::cpu_set::Cpu;

use crate::common::{Client, Server, cpus, skipped};

/// Opens, uses and closes `count` connections from a thread that stays on `cpu`.
fn connect_from(cpu: Cpu, server: &Server, count: usize) {
    cpus::on_cpu(cpu, || {
        for _ in 0..count {
            let mut client = Client::connect(server.address);
            (0..10).for_each(|_| client.echo(500));
        }
    });
}

/// # Panics
/// If `share` is not `expected` but for rounding.
fn assert_share(what: &str, share: Option<f64>, expected: f64) {
    let share = share.unwrap_or_else(|| panic!("{what} has no sample"));
    assert!((share - expected).abs() < 1e-3, "{what} is {share}, not {expected}");
}

fn assert_steered_by_cpu(cores: &str, first: Cpu, second: Cpu) {
    let server = Server::start(&["--steer", "cpu", "--cores", cores]);
    connect_from(first, &server, 30);
    connect_from(second, &server, 50);
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.core(first).accepted, report.core(second).accepted), (30, 50), "{report:?}");
    for counts in [report.core(first), report.core(second), &report.total] {
        assert_share("accept_local", counts.accept_local, 1.0);
        assert_share("request_local", counts.request_local, 1.0);
    }
    report.assert_exactly(80, 80 * 5_000);
}

#[test]
fn steer_cpu_serves_each_connection_on_the_core_that_received_it() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    assert_steered_by_cpu(&format!("{first},{second}"), first, second);
}

/// The index of a listener in its reuseport group is the order of listen(), not the number of its core.
#[test]
fn steer_cpu_finds_the_core_whatever_the_order_of_the_list() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    assert_steered_by_cpu(&format!("{second},{first}"), first, second);
}

/// And the shares are measured: a client on one CPU is local to that core's worker and to no other.
#[test]
fn steer_hash_spreads_one_cpus_connections_over_all_cores() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = Server::start(&["--steer", "hash", "--cores", &format!("{first},{second}")]);
    connect_from(first, &server, 200);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(200, 200 * 5_000);
    let (here, there) = (report.core(first), report.core(second));
    // Each of two cores gets fewer than 40 of 200 once in 10^18 runs.
    assert!(here.accepted >= 40 && there.accepted >= 40, "{report:?}");
    assert_share("accept_local of the client's core", here.accept_local, 1.0);
    assert_share("accept_local of the other core", there.accept_local, 0.0);
    #[expect(clippy::cast_precision_loss, reason = "at most 200")]
    let expected = here.accepted as f64 / 200.0;
    assert_share("accept_local of all", report.total.accept_local, expected);
}

/// No listener belongs to the client's CPU: the hash chooses.
#[test]
fn steer_cpu_serves_clients_of_cpus_without_a_worker() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = Server::start(&["--steer", "cpu", "--cores", &second.to_string()]);
    connect_from(first, &server, 30);
    connect_from(second, &server, 10);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(40, 40 * 5_000);
    assert_share("accept_local", report.total.accept_local, 0.25);
}
