//! `[cpu]` and `[napi]`: governors on a generated host, and how a veth polls, in a namespace.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::process::Command;

use common::veth::{NIC, Veth};
use common::{assert_same_values, contents, copy_of, profile_of, run};

const KEEP: &str = "[queues]\nirq = \"keep\"\nxps = \"keep\"\nrps = \"keep\"\n";

#[test]
fn the_governor_of_the_workers_is_set_and_given_back_and_no_other() {
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let file = profile_of(&format!("cpus = \"2-4,30\"\n{KEEP}[cpu]\ngovernor = \"performance\"\n"));
    let path = file.path().to_str().unwrap();
    run(tree.path(), ["apply", path]).expect(0);
    let changed: Vec<String> = contents(tree.path())
        .into_iter()
        .filter(|(path, text)| before.get(path).is_some_and(|before| before != text))
        .map(|(path, text)| format!("{path} {}", text.trim()))
        .collect();
    let expected = [2, 3, 30, 4]
        .map(|cpu| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor performance"));
    assert_eq!(changed, expected);
    assert!(run(tree.path(), ["apply", path]).expect(0).stdout.contains("nothing to do"));
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn a_governor_that_is_not_there_is_skipped_or_refused() {
    let with = |host: &str, rest: &str| {
        let file = profile_of(&format!("{KEEP}[cpu]\n{rest}\n"));
        run(copy_of(host).path(), ["plan", file.path().to_str().unwrap()])
    };
    let skipped = with("i40e-48cpu", "governor = \"schedutil\"").expect(0);
    assert_eq!(
        skipped.stderr,
        "tune: skipped cpu.governor = \"schedutil\": CPUs 0-47 have other governors: performance, powersave\n"
    );
    let skipped = with("virtio-2cpu", "governor = \"performance\"").expect(0);
    assert!(skipped.stderr.contains("CPUs 0-1 have no cpufreq"), "{}", skipped.stderr);
    let refused = with("virtio-2cpu", "governor = \"performance\"\nrequire = true");
    assert!(refused.refusal().contains("the profile requires it"), "{}", refused.stderr);
}

fn values(veth: &Veth) -> [String; 3] {
    let read = |file| {
        veth.inside(|| fs::read_to_string(format!("/sys/class/net/{NIC}/{file}")).unwrap()).trim().to_owned()
    };
    ["threaded", "gro_flush_timeout", "napi_defer_hard_irqs"].map(read)
}

#[test]
fn how_a_veth_polls_is_set_and_given_back() {
    let Some(veth) = Veth::with_queues(2) else { return };
    assert_eq!(values(&veth), ["0", "0", "0"]);
    let file = profile_of(&format!("{KEEP}[napi]\ngro_flush_timeout = 20000\nnapi_defer_hard_irqs = 2\n"));
    let path = file.path().to_str().unwrap();
    veth.tune(&["apply", path]).expect(0);
    assert_eq!(values(&veth), ["0", "20000", "2"]);
    assert!(veth.tune(&["apply", path]).expect(0).stdout.contains("nothing to do"));
    veth.tune(&["restore"]).expect(0);
    assert_eq!(values(&veth), ["0", "0", "0"]);
}

/// A veth has NAPI instances while GRO is on; without them the kernel refuses, and what was written before is
/// undone.
#[test]
fn threads_poll_where_there_is_napi_and_a_refusal_undoes_the_rest() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let file = profile_of(&format!(
        "{KEEP}[napi]\ngro_flush_timeout = 20000\nnapi_defer_hard_irqs = 1\nthreaded = true\n"
    ));
    let path = file.path().to_str().unwrap();
    let refused = veth.tune(&["apply", path]);
    let message = refused.refusal();
    for part in ["write \"1\" to /sys/class/net/nic0/threaded: EOPNOTSUPP", "no NAPI instance", "undone"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(values(&veth), ["0", "0", "0"]);

    if Command::new("ethtool").arg("--version").output().is_err() {
        println!("SKIPPED: needs ethtool");
        return;
    }
    veth.output(Command::new("ethtool").args(["-K", NIC, "gro", "on"])).expect(0);
    veth.tune(&["apply", path]).expect(0);
    assert_eq!(values(&veth), ["1", "20000", "1"]);
    veth.tune(&["restore"]).expect(0);
    assert_eq!(values(&veth), ["0", "0", "0"]);
}
