//! `check`: exit codes, one line for each drift, the fields of its JSON.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;

use common::{contents, copy_of, profile, run};
use serde_json::json;

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

/// Where IRQ 38 fires, below the root.
const EFFECTIVE: &str = "proc/irq/38/effective_affinity_list";

#[test]
fn as_wanted_is_0_and_drifted_2_with_one_line_for_each_setting() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let drifted = run(tree.path(), ["check", &auto()]).expect(2);
    assert_eq!(
        drifted.stdout,
        "/proc/irq/38/smp_affinity_list: 0-1, wanted 0\n\
         /proc/irq/39/smp_affinity_list: 0-1, wanted 0\n\
         /sys/class/net/eth0/queues/rx-0/rps_cpus: 0, wanted 3\n\
         /proc/sys/net/ipv4/tcp_migrate_req: 0, wanted 1\n"
    );
    assert_eq!(drifted.stderr, "tune: skipped irqbalance = \"ban\": irqbalance does not run here\n");
    assert_eq!(contents(tree.path()), before, "nothing is written");

    run(tree.path(), ["apply", &auto()]).expect(0);
    fs::write(tree.path().join(EFFECTIVE), "0\n").unwrap();
    let wanted = run(tree.path(), ["check", &auto()]).expect(0);
    assert_eq!((wanted.stdout.as_str(), wanted.stderr.as_str()), ("", ""));

    fs::write(tree.path().join("proc/irq/39/smp_affinity_list"), "1\n").unwrap();
    let one = run(tree.path(), ["check", &auto()]).expect(2);
    assert_eq!(one.stdout, "/proc/irq/39/smp_affinity_list: 1, wanted 0\n");
}

#[test]
fn json_has_these_fields() {
    let tree = copy_of("virtio-2cpu");
    run(tree.path(), ["apply", &auto()]).expect(0);
    fs::write(tree.path().join("proc/irq/39/smp_affinity_list"), "1\n").unwrap();
    fs::write(tree.path().join("proc/sys/net/core/somaxconn"), "65535\n").unwrap();
    fs::write(tree.path().join(EFFECTIVE), "1\n").unwrap();
    let found = run(tree.path(), ["check", "--json", &auto()]).expect(2).json();
    let expected = json!({
        "schema": 1,
        "command": "check",
        "interfaces": ["eth0"],
        "settings": 5,
        "drift": [{ "path": "/proc/irq/39/smp_affinity_list", "found": "1", "wanted": "0" }],
        "kept": [{ "path": "/proc/sys/net/core/somaxconn", "value": "65535", "asked": "4096" }],
        "skipped": [{ "wish": "irqbalance = \"ban\"", "reason": "irqbalance does not run here" }],
        "notes": [],
        "pending": [{ "irq": 38, "affinity": "0", "effective": "1" }],
    });
    assert_eq!(found, expected);
}

#[test]
fn what_it_cannot_tell_is_1_and_never_0_or_2() {
    let tree = copy_of("ambiguous-4cpu");
    let doubtful = run(tree.path(), ["check", &auto()]);
    assert!(doubtful.refusal().contains("cannot be placed"), "{}", doubtful.stderr);
    let tree = copy_of("virtio-2cpu");
    assert!(run(tree.path(), ["check", "/no/profile"]).refusal().contains("read profile"));
    assert!(run(tree.path(), ["check", "--interface", "eth9", &auto()]).refusal().contains("does not exist"));
}
