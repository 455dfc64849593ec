//! What ethtool sets, in captured trees.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::Path;

use common::{assert_same_values, contents, copy_of, dies, profile_of, run};
use serde_json::{Value, json};
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::Profile;

#[test]
fn a_kill_at_any_write_in_a_tree_leaves_a_journal_that_gives_everything_back() {
    let root = host("ice", &everything());
    let state = root.path().join("state");
    let (path, state_dir) = (root.path().to_str().unwrap(), state.to_str().unwrap());
    let mut kills = 0;
    while dies(path, &state, ALL, "eth0", kills) {
        run(root.path(), ["restore", "--state-dir", state_dir]).expect(0);
        assert_eq!(captured(root.path()), everything(), "killed at write {kills}");
        kills += 1;
    }
    assert_eq!(kills, 6, "one write for each knob");
}

/// virtio_net did so with `rx_usecs`: it shows the parameter, and says EOPNOTSUPP when it is set.
#[test]
fn what_a_driver_shows_and_refuses_is_skipped_and_the_rest_goes_on() {
    for (require, done) in [(false, true), (true, false)] {
        let root = host("ice", &everything());
        let refuses = |file: &Path, value: &str| {
            if value.contains("\"rx_usecs\": 8") {
                Err(std::io::Error::from_raw_os_error(95))
            } else {
                DirectWrite.write(file, value)
            }
        };
        let files = KernelFiles::with_writer(root.path(), refuses).unwrap();
        let text = "[rings]\nrx = 1024\n[queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n\
                    [features]\nntuple = \"on\"\n";
        let text = format!("{text}[coalesce]\nadaptive_rx = false\nrx_usecs = 8\nrequire = {require}\n");
        let profile = Profile::parse(&text, "profile").unwrap();
        let applied = tune::apply_profile(&files, &root.path().join("state"), &profile);
        let now = captured(root.path());
        assert_eq!(now["features"]["rx-ntuple-filter"]["on"], done);
        assert_eq!(now["rings"]["rx"]["now"], if done { 1024 } else { 512 });
        assert_eq!(now["coalesce"]["rx_usecs"], 50);
        match applied {
            Ok(applied) => {
                assert_eq!(applied.skipped[0].wish, "ethtool/eth0/coalesce/rx_usecs");
                assert!(applied.skipped[0].reason.contains("EOPNOTSUPP"), "{:?}", applied.skipped);
                assert_eq!(applied.changes.len(), 3);
            }
            Err(error) => assert!(!done && error.to_string().contains("; undone, "), "{error}"),
        }
    }
}

/// A driver that makes `made` of 1000 descriptors.
fn rounding_to(root: &Path, made: u32) -> KernelFiles {
    let writer = move |file: &Path, value: &str| {
        DirectWrite.write(file, &value.replace("\"now\": 1000", &format!("\"now\": {made}")))
    };
    KernelFiles::with_writer(root, writer).unwrap()
}

#[test]
fn what_a_driver_rounds_is_done_said_and_no_drift() {
    const ROUNDED: &str =
        "[rings]\nrx = 1000\n[rss]\n[queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n";
    let root = host("mlx5_core", &everything());
    let state = root.path().join("run/corelocal");
    let profile_file = profile_of(ROUNDED);
    let path = profile_file.path().to_str().unwrap();
    let rounded = Profile::parse(ROUNDED, "profile").unwrap();
    let applied = tune::apply_profile(&rounding_to(root.path(), 1024), &state, &rounded).unwrap();
    let note = "rings.rx = 1000 of eth0: the driver rounds it to 1024";
    assert_eq!(applied.notes, [note]);
    assert_eq!(captured(root.path())["rings"]["rx"]["now"], 1024);
    let plan = run(root.path(), ["plan", "--json", path]).expect(0).json();
    assert_eq!((&plan["changes"], &plan["notes"]), (&json!([]), &json!([note])));
    run(root.path(), ["check", path]).expect(0);
    assert!(run(root.path(), ["apply", path]).expect(0).stdout.contains("nothing to do"));
    run(root.path(), ["restore"]).expect(0);
    assert_eq!(captured(root.path()), everything());
    // Less than was asked for is no rounding that anybody agreed to.
    let error =
        tune::apply_profile(&rounding_to(root.path(), 992), &state, &rounded).unwrap_err().to_string();
    assert!(error.contains("it reads back \"rx 992 tx 512\"; undone, "), "{error}");
    assert_eq!(captured(root.path()), everything());
}

/// The kernel refuses fewer channels for the sake of a table, which is then given back to it and filled anew.
#[test]
fn a_table_that_is_in_the_way_of_fewer_channels_is_in_the_journal() {
    let root = host("ice", &everything());
    let table = &everything()["rss"]["table"];
    let profile =
        profile_of("[channels]\ncount = 24\n[queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n");
    run(root.path(), ["apply", profile.path().to_str().unwrap()]).expect(0);
    let mut ethtool = captured(root.path());
    assert_eq!(ethtool["channels"]["combined"]["now"], 24);
    for (index, entry) in ethtool["rss"]["table"].as_array_mut().unwrap().iter_mut().enumerate() {
        *entry = json!(index % 24);
    }
    assert_ne!(&ethtool["rss"]["table"], table);
    fs::write(root.path().join("corelocal/ethtool/eth0.json"), ethtool.to_string()).unwrap();
    run(root.path(), ["restore"]).expect(0);
    assert_eq!(captured(root.path()), everything());
}

#[test]
fn show_has_what_ethtool_says() {
    let root = host("ice", &everything());
    let text = run(root.path(), ["show", "eth0"]).expect(0).stdout;
    let line = "channels combined 48, rings rx 512 tx 512, rss table 0*2 1*2 ";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains(", tcp4 sdfn, udp4 sd, adaptive_rx on, rx_usecs 50, tx_usecs 50, ntuple off\n"),
        "{text}"
    );
    let json = run(root.path(), ["show", "--json", "eth0"]).expect(0).json();
    assert_eq!(json["interfaces"][0]["ethtool"], everything());
}

/// An i40e host with this driver's name and what ethtool says there.
fn host(driver: &str, ethtool: &Value) -> tempfile::TempDir {
    let root = copy_of("i40e-48cpu");
    let device = root.path().join("sys/devices/pci0000:ae/0000:ae:00.0/0000:af:00.0");
    fs::remove_file(device.join("driver")).unwrap();
    std::os::unix::fs::symlink(format!("../../../../bus/pci/drivers/{driver}"), device.join("driver"))
        .unwrap();
    let directory = root.path().join("corelocal/ethtool");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("eth0.json"), format!("{}\n", serde_json::to_string_pretty(ethtool).unwrap()))
        .unwrap();
    root
}

fn captured(root: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(root.join("corelocal/ethtool/eth0.json")).unwrap()).unwrap()
}

fn everything() -> Value {
    let table: Vec<u32> = (0..512).map(|entry| entry % 48 / 2).collect();
    json!({
        "channels": { "other": { "now": 1, "max": 1 }, "combined": { "now": 48, "max": 96 } },
        "rings": { "rx": { "now": 512, "max": 4096 }, "tx": { "now": 512, "max": 4096 } },
        "rss": { "table": table },
        "hash": { "tcp4": "sdfn", "udp4": "sd" },
        "coalesce": { "adaptive_rx": 1, "rx_usecs": 50, "tx_usecs": 50 },
        "features": { "rx-ntuple-filter": { "on": false, "fixed": false } }
    })
}

const ALL: &str = "[channels]\n[rings]\nrx = 2048\ntx = 9999\n[coalesce]\nadaptive_rx = false\nrx_usecs = 8\n\
                   [rss]\ntable = \"equal\"\nudp4 = \"sdfn\"\n[features]\nntuple = \"on\"\n[queues]\n\
                   irq = \"keep\"\nrps = \"keep\"\n\
                   xps = \"keep\"\n";

#[test]
fn a_captured_tree_is_planned_applied_and_restored() {
    let root = host("ice", &everything());
    let before = contents(root.path());
    let file = profile_of(ALL);
    let path = file.path().to_str().unwrap();
    let plan = run(root.path(), ["plan", "--json", path]).expect(2);
    let expected = [
        ("ethtool/eth0/rings", "rx 512 tx 512", "rx 2048 tx 4096"),
        ("ethtool/eth0/rss", "", "equal 48"),
        ("ethtool/eth0/rss/udp4", "sd", "sdfn"),
        ("ethtool/eth0/coalesce/adaptive_rx", "on", "off"),
        ("ethtool/eth0/coalesce/rx_usecs", "50", "8"),
        ("ethtool/eth0/ntuple", "off", "on"),
    ];
    let found = plan.changes();
    let found: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|(path, before, after)| {
            (path.as_str(), if path.ends_with("rss") { "" } else { before.as_str() }, after.as_str())
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(plan.json()["skipped"][0]["wish"], "rings.tx = 9999 of eth0");
    run(root.path(), ["apply", path]).expect(0);
    let now = captured(root.path());
    assert_eq!(now["rings"]["rx"]["now"], 2048);
    assert_eq!(now["rss"]["table"][47], 47);
    assert_eq!(now["features"]["rx-ntuple-filter"]["on"], true);
    assert!(run(root.path(), ["apply", path]).expect(0).stdout.contains("nothing to do"));
    run(root.path(), ["restore"]).expect(0);
    assert_eq!(captured(root.path()), everything());
    let same = |mut files: std::collections::BTreeMap<String, String>| {
        files.remove("corelocal/ethtool/eth0.json");
        files
    };
    assert_same_values(&same(contents(root.path())), &same(before));
}

#[test]
fn the_rss_limit_of_the_driver_bounds_the_channels() {
    for (driver, count, expected) in [
        ("ixgbe", "\"workers\"", 48), // its table has 512 entries: an X550
        ("ixgbe", "96", 63),
        ("ixgbevf", "48", 4),
        ("i40e", "\"workers\"", 48),
        ("i40e", "96", 64),
        ("iavf", "\"workers\"", 16),
        ("ice", "96", 96),
        ("ice", "200", 96),
    ] {
        let root = host(driver, &everything());
        let file =
            profile_of(&format!("[queues]\nirq = \"keep\"\nrps = \"off\"\n[channels]\ncount = {count}\n"));
        let run = run(root.path(), ["plan", "--json", file.path().to_str().unwrap()]);
        let planned = run.changes().into_iter().find(|(path, ..)| path.ends_with("/channels"));
        let after = planned.map_or_else(|| "combined 48".to_owned(), |(.., after)| after);
        assert_eq!(after, format!("combined {expected}"), "{driver} {count}");
        let skipped = run.json()["skipped"].as_array().unwrap().len();
        let capped = count.parse().is_ok_and(|count: u32| count != expected);
        assert_eq!(skipped, usize::from(capped), "{driver} {count}");
    }
}

#[test]
fn ntuple_is_left_where_it_hurts_or_serves_nothing() {
    for (driver, feature, word, said) in [
        ("ixgbe", json!({ "on": false, "fixed": false }), "on", "switches ATR off and resets the port"),
        ("i40e", json!({ "on": false, "fixed": false }), "on", "replaces ATR and resets the port"),
        ("ixgbe", json!({ "on": true, "fixed": false }), "off", "switches ATR off"),
        ("ena", json!({ "on": false, "fixed": false }), "on", "ena has no accelerated RFS"),
        ("virtio_net", json!({ "on": false, "fixed": true }), "on", "it is off and fixed here"),
    ] {
        let root = host(driver, &json!({ "features": { "rx-ntuple-filter": feature } }));
        let section = format!("[queues]\nirq = \"keep\"\nrps = \"off\"\n[features]\nntuple = \"{word}\"\n");
        let file = profile_of(&section);
        let plan = run(root.path(), ["plan", "--json", file.path().to_str().unwrap()]);
        let reason = plan.json()["skipped"][0]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(said), "{driver}: {reason}");
        let file = profile_of(&format!("{section}require = true\n"));
        let refused = run(root.path(), ["plan", file.path().to_str().unwrap()]);
        assert!(refused.refusal().contains(said), "{}", refused.stderr);
    }
}

#[test]
fn a_tree_without_ethtool_data_is_unknown_and_one_that_is_not_understood_refused() {
    let root = copy_of("i40e-48cpu");
    fs::remove_file(root.path().join("corelocal/ethtool/eth0.json")).unwrap();
    let file = profile_of(ALL);
    let path = file.path().to_str().unwrap();
    let plan = run(root.path(), ["plan", "--json", path]).expect(0).json();
    assert!(plan["skipped"].as_array().unwrap().len() >= 7, "{plan}");
    let root = host("i40e", &json!({ "chanels": {} }));
    let refused = run(root.path(), ["plan", path]);
    assert!(refused.refusal().contains("/corelocal/ethtool/eth0.json"), "{}", refused.stderr);
}
