use std::collections::BTreeMap;

use super::*;
use crate::Planned;
use crate::diff::diff;
use crate::host::ethtool::{Channels, Limited};
use crate::host::fixture::{nic_host, veth_host};
use crate::irqbalance::Daemon;
use crate::plan::{Desired, plan};

fn planned(profile: &Profile, host: Host) -> Planned {
    let desired = plan(profile, &host).unwrap();
    let changes = diff(&host, &desired);
    Planned { host, desired, changes }
}

fn origin(command: &str) -> Origin {
    Origin { command: command.into(), inside: String::new(), marks: BTreeMap::new() }
}

/// The script of a profile on a host.
fn made(profile: &str, host: Host) -> (Script, String) {
    let profile = Profile::parse(profile, "p").unwrap();
    let script = Script::new(&profile, planned(&profile, host)).unwrap();
    let text = script.text(&profile, &origin("tune script p.toml"));
    (script, text)
}

/// The lines between the braces that are no comments.
fn steps(text: &str) -> Vec<&str> {
    let body = text.split("\nchanges() {\n").nth(1).unwrap().split("\n}").next().unwrap();
    body.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect()
}

fn with_channels(mut host: Host, rx: u32, tx: u32) -> Host {
    let limited = |now| Some(Limited { now, max: 8 });
    host.nics[0].ethtool.channels =
        Some(Channels { rx: limited(rx), tx: limited(tx), ..Channels::default() });
    host
}

#[test]
fn each_change_is_one_step_in_the_order_of_writing_with_its_reason() {
    let (script, text) = made("[sysctl]\n\"net.core.somaxconn\" = 8192", nic_host(2, 2));
    assert_eq!(
        steps(&text),
        [
            "step list '/proc/irq/40/smp_affinity_list' '0-1' '0'",
            "step list '/proc/irq/41/smp_affinity_list' '0-1' '1'",
            "step mask '/sys/class/net/eth0/queues/tx-0/xps_cpus' '0' '1'",
            "step mask '/sys/class/net/eth0/queues/tx-1/xps_cpus' '0' '2'",
            "step words '/proc/sys/net/core/somaxconn' '4096' '8192'",
        ]
    );
    let body = text.split("changes() {").nth(1).unwrap();
    for step in &script.steps {
        assert!(body.contains(&script.planned.desired.reasons[&step.setting]), "{body}");
    }
    assert!(text.contains("\ninterrupt 40 'eth0-TxRx-0'\ninterrupt 41 'eth0-TxRx-1'\n"), "{text}");
}

#[test]
fn what_is_quoted_stays_one_word_and_a_comment_one_line() {
    assert_eq!(quoted("a'b; rm -rf /"), r"'a'\''b; rm -rf /'");
    let profile = Profile::parse("", "p").unwrap();
    let script = Script::new(&profile, planned(&profile, nic_host(2, 2))).unwrap();
    let text = script.text(&profile, &origin("tune script 'a\nrm -rf /'"));
    assert!(text.starts_with("#!/bin/sh\n# Made by: tune script 'a rm -rf /'\n"), "{text}");
}

#[test]
fn without_changes_it_does_nothing() {
    let profile = Profile::parse("", "p").unwrap();
    let planned = Planned { changes: Vec::new(), desired: Desired::default(), host: nic_host(2, 2) };
    let text = Script::new(&profile, planned).unwrap().text(&profile, &origin("tune script p"));
    assert!(text.ends_with("set -eu\necho \"nothing to do\"\n"), "{text}");
}

/// The queues that the channels will bring are set in the same script, whatever they hold then.
#[test]
fn a_virtual_interface_is_set_in_one_go_also_where_its_queues_become_more() {
    let (script, text) = made("[channels]\n[queues]\nrps_flow_cnt = 0", with_channels(veth_host(4, 2), 2, 2));
    assert!(script.again.is_empty() && !text.contains("make this script once more"), "{text}");
    let steps = steps(&text);
    assert_eq!(
        steps[..7],
        [
            "keep '/sys/class/net/eth0/queues/tx-0/xps_cpus'",
            "keep '/sys/class/net/eth0/queues/tx-1/xps_cpus'",
            "keep '/sys/class/net/eth0/queues/rx-0/rps_cpus'",
            "keep '/sys/class/net/eth0/queues/rx-0/rps_flow_cnt'",
            "keep '/sys/class/net/eth0/queues/rx-1/rps_cpus'",
            "keep '/sys/class/net/eth0/queues/rx-1/rps_flow_cnt'",
            "try words 'ethtool/eth0/channels' 'rx 2 tx 2' 'rx 4 tx 4'",
        ]
    );
    for later in [
        "later mask '/sys/class/net/eth0/queues/tx-3/xps_cpus' '8'",
        "later mask '/sys/class/net/eth0/queues/rx-3/rps_cpus' '8'",
    ] {
        assert!(steps.contains(&later), "{later}: {text}");
    }
    assert_eq!(steps.len(), 7 + 12);
}

#[test]
fn what_a_device_makes_of_its_interrupts_waits_for_a_second_script() {
    let profile = "[channels]\nrequire = true\n[sysctl]\n\"net.core.somaxconn\" = 8192";
    let mut host = with_channels(nic_host(4, 2), 2, 2);
    host.irqbalance = Irqbalance::Running(vec![Daemon { pid: 9, banned_irqs: [Irq(24)].into() }]);
    let (script, text) = made(profile, host);
    assert_eq!(script.again.iter().map(ToString::to_string).collect::<Vec<_>>(), ["eth0"]);
    let steps = steps(&text);
    assert_eq!(
        steps.iter().filter(|step| !step.starts_with("keep ")).copied().collect::<Vec<_>>(),
        [
            "step words 'ethtool/eth0/channels' 'rx 2 tx 2' 'rx 4 tx 4'",
            "step words '/proc/sys/net/core/somaxconn' '4096' '8192'",
        ]
    );
    assert!(steps.contains(&"keep '/proc/irq/40/smp_affinity_list' 40 'eth0-TxRx-0'"), "{text}");
    assert!(text.contains("make this script once more") && text.contains("    exit 2\n"), "{text}");
}

#[test]
fn each_irqbalance_is_told_besides_what_it_leaves_alone() {
    let mut host = nic_host(2, 2);
    let daemon = |pid, irq| Daemon { pid, banned_irqs: [Irq(irq)].into() };
    host.irqbalance = Irqbalance::Running(vec![daemon(8, 24), daemon(9, 40)]);
    let (_, text) = made("", host);
    assert_eq!(
        steps(&text)[..2],
        ["step words 'irqbalance/8' '24' '24 40 41'", "step words 'irqbalance/9' '40' '40 41'"]
    );
    assert!(text.contains(", socat (else"), "{text}");
}

#[test]
fn tables_that_ethtool_can_make_are_those_whose_queues_ascend() {
    for (table, can) in [
        ("equal 8", true),
        ("table 0*16 3*16", true),
        ("table 1*16 0*16", false),
        ("table 0*1 1*1 0*1", false),
    ] {
        assert_eq!(ethtool_can_make(table), can, "{table}");
    }
}

#[test]
fn the_head_reads_and_sets_every_knob() {
    for knob in Knob::all() {
        let name = knob.name();
        let pattern = match name.split_once('/') {
            Some((family, _)) => &format!("{family}/*"),
            None => &name,
        };
        let places = FUNCTIONS.matches(&format!("        ethtool/*/{pattern}) ")).count();
        assert_eq!(places, 2, "{name}: once where it is found, once where it is set");
    }
}

/// That it names all of them is tested where scripts run: with nothing else on the PATH.
#[test]
fn the_head_names_no_program_that_is_not_called() {
    let words: Vec<&str> = FUNCTIONS.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
    for tool in TOOLS {
        let name = tool.split(' ').next().unwrap();
        assert!(words.contains(&name), "{name}");
    }
}

#[test]
fn what_is_printed_is_no_wider_than_the_source() {
    for line in FUNCTIONS.lines() {
        assert!(line.chars().count() <= 110, "{line}");
    }
}
