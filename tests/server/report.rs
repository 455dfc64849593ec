//! The report at the end.

use serde_json::Value;

use crate::common::{Client, Launch, Server, cpus};

fn cores() -> String {
    cpus::allowed().to_string()
}

#[test]
fn json_is_one_object_with_total_and_cores_and_every_field_in_each() {
    let server = Server::start(&["--cores", &cores()]);
    Client::connect(server.address).echo(1_000);
    server.wait_until_nothing_is_open();
    let ended = server.terminate();
    assert_eq!(ended.status.code(), Some(0));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let lines = report["cores"].as_array().unwrap();
    let ids: Vec<_> = lines.iter().map(|line| line["core"].as_u64().unwrap()).collect();
    assert_eq!(ids, cpus::allowed().iter().map(u64::from).collect::<Vec<_>>());
    for line in lines.iter().chain([&report["total"]]) {
        for count in ["accepted", "open", "bytes_in", "bytes_out"] {
            assert!(line[count].is_u64(), "{count}: {line}");
        }
        for share in ["accept_local", "request_local"] {
            let value = line.get(share).unwrap_or_else(|| panic!("{share}: {line}"));
            assert!(value.is_null() || (0.0..=1.0).contains(&value.as_f64().unwrap()), "{share}: {line}");
        }
    }
    assert!(report["total"].get("core").is_none(), "{}", report["total"]);
}

#[test]
fn json_says_what_was_in_force() {
    let server = Server::start(&[
        "--cores",
        &cores(),
        "--max-connections",
        "1000",
        "--mode",
        "discard",
        "--metrics",
        "0",
    ]);
    let address = server.address.to_string();
    let ended = server.terminate();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let options = &report["options"];
    assert_eq!(options["mode"], "discard");
    assert_eq!(options["listen"], serde_json::json!([address]), "the port that was chosen");
    assert_eq!((&options["steer"], &options["buffers"]), (&"cpu".into(), &256.into()), "defaults");
    assert_eq!(options["max-connections"], 1000);
    assert!(ended.stderr[1].contains(options["metrics"].as_str().unwrap()), "{ended:?}");
    assert!(report["features"]["direct_descriptors"].is_boolean(), "{report}");
    assert!(options["spill"].is_null(), "nothing is kept for anybody: {options}");
}

#[test]
fn json_says_how_large_the_spill_is_that_was_not_asked_for() {
    let ended = Server::start(&["--cores", &cores()]).terminate();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let spill = report["options"]["spill"].as_u64();
    assert!(spill.is_some_and(|bytes| bytes >= 1 << 20), "{report}");
}

#[test]
fn shares_without_a_sample_are_null_and_counts_are_0() {
    let server = Server::start(&["--cores", &cores()]);
    let report = server.stop();
    report.assert_exactly(0, 0);
    for counts in report.cores.iter().map(|line| &line.counts).chain([&report.total]) {
        assert_eq!((counts.accept_local, counts.request_local), (None, None));
    }
}

#[test]
fn totals_are_the_sums_over_the_cores_and_what_the_clients_sent_and_received() {
    let server = Server::start(&["--cores", &cores(), "--steer", "hash"]);
    let mut bytes = 0;
    for count in 1..=50 {
        let mut client = Client::connect(server.address);
        client.echo(count * 100);
        bytes += client.received();
    }
    server.stop_when_nothing_is_open().assert_exactly(50, bytes);
}

#[test]
fn without_json_a_table_with_a_line_per_core_is_written_to_stderr() {
    let server = Launch::new(&["--cores", &cores()]).human().start();
    Client::connect(server.address).echo(4_321);
    server.wait_until_nothing_is_open();
    let ended = server.terminate();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stdout, "");
    let table = ended.stderr[1..].join("\n");
    for word in ["accepted", "open", "accept-local", "request-local", "total"] {
        assert!(table.contains(word), "{word} in {table}");
    }
    for core in cpus::allowed().iter() {
        let core = core.to_string();
        let has_line = ended.stderr[1..].iter().any(|line| line.split_whitespace().next() == Some(&core));
        assert!(has_line, "a line of core {core} in {table}");
    }
}

#[test]
fn the_first_line_says_where_it_listens_on_which_cores_and_how_clients_are_steered() {
    let server = Server::start(&["--cores", &cores(), "--steer", "hash"]);
    let address = server.address;
    assert_eq!(server.ready, format!("server: listening on {address}, cores {}, steer hash", cores()));
    let server = Server::start(&["--cores", "all"]);
    assert!(server.ready.ends_with(&format!(", cores {}, steer cpu", cores())), "{}", server.ready);
}

#[test]
fn each_core_of_one_address_has_its_own_counts() {
    if cpus::allowed().len() == 1 {
        return crate::common::skipped("one CPU has one core's counts");
    }
    let server = Server::start(&["--cores", &cores(), "--steer", "hash"]);
    (0..64).for_each(|_| Client::connect(server.address).echo(100));
    let report = server.stop_when_nothing_is_open();
    assert!(report.cores.iter().filter(|core| core.counts.accepted > 0).count() > 1, "{report:?}");
    assert_eq!(report.cores.iter().map(|core| core.counts.accepted).sum::<u64>(), 64, "{report:?}");
}
