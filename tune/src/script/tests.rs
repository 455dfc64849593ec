use super::*;
use crate::diff::diff;
use crate::host::fixture::nic_host;
use crate::plan::{Desired, plan};
use crate::profile::Profile;

fn planned(profile: &str) -> Planned {
    let host = nic_host(2, 2);
    let desired = plan(&Profile::parse(profile, "p").unwrap(), &host).unwrap();
    let changes = diff(&host, &desired);
    Planned { host, desired, changes }
}

#[test]
fn each_change_is_one_step_in_the_order_of_writing_with_its_reason() {
    let planned = planned("[sysctl]\n\"net.core.somaxconn\" = 8192");
    let text = script(&planned, "tune script p.toml").unwrap();
    let steps: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    step ")).collect();
    assert_eq!(
        steps,
        [
            "words '/proc/irq/40/smp_affinity_list' '0-1' '0'",
            "words '/proc/irq/41/smp_affinity_list' '0-1' '1'",
            "mask '/sys/class/net/eth0/queues/tx-0/xps_cpus' '0' '1'",
            "mask '/sys/class/net/eth0/queues/tx-1/xps_cpus' '0' '2'",
            "words '/proc/sys/net/core/somaxconn' '4096' '8192'",
        ]
    );
    let body = text.split("changes() {").nth(1).unwrap();
    for change in &planned.changes {
        assert!(body.contains(&planned.desired.reasons[&change.setting]), "{body}");
    }
    assert!(text.contains("\ninterrupt 40 'eth0-TxRx-0'\ninterrupt 41 'eth0-TxRx-1'\n"), "{text}");
}

#[test]
fn what_is_quoted_stays_one_word_and_a_comment_one_line() {
    assert_eq!(quoted("a'b; rm -rf /"), r"'a'\''b; rm -rf /'");
    let text = script(&planned(""), "tune script 'a\nrm -rf /'").unwrap();
    assert!(text.starts_with("#!/bin/sh\n# Made by: tune script 'a rm -rf /'\n"), "{text}");
}

#[test]
fn without_changes_it_does_nothing() {
    let nothing = Planned { changes: Vec::new(), desired: Desired::default(), ..planned("") };
    let text = script(&nothing, "tune script p").unwrap();
    assert!(text.ends_with("set -eu\necho \"nothing to do\"\n"), "{text}");
}
