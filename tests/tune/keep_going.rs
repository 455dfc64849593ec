//! `apply --keep-going`: what fails is reported, the rest is kept, and restore gives all of it back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::veth::Veth;
use common::{assert_same_values, contents, copy_of, profile, run};
use rustix::io::Errno;
use serde_json::{Value, json};
use tune::keep_going::apply_keeping_going;
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::Profile;

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

const ALL: [&str; 4] = [
    "/proc/irq/38/smp_affinity_list",
    "/proc/irq/39/smp_affinity_list",
    "/sys/class/net/eth0/queues/rx-0/rps_cpus",
    "/proc/sys/net/ipv4/tcp_migrate_req",
];

/// Makes the sysctl's file one that not even root may write.
fn make_read_only(tree: &Path) {
    fs::set_permissions(tree.join(&ALL[3][1..]), fs::Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_does_not_keep_the_rest_from_being_set() {
    let tree = copy_of("virtio-2cpu");
    make_read_only(tree.path());
    let before = contents(tree.path());
    assert!(run(tree.path(), ["apply", &auto()]).refusal().contains("nothing was written"));
    assert_eq!(contents(tree.path()), before);

    let kept = run(tree.path(), ["apply", "--keep-going", &auto()]).expect(1);
    let said: Vec<&str> = kept.stderr.lines().collect();
    assert_eq!(said.len(), 2, "{}", kept.stderr);
    assert!(said[0].starts_with("tune: skipped irqbalance = \"ban\": "), "{}", kept.stderr);
    assert!(said[1].starts_with(&format!("tune: not set: write to {}: EPERM", ALL[3])), "{}", kept.stderr);
    let written: Vec<&str> = kept.stdout.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(written[..3], ALL[..3], "{}", kept.stdout);
    assert!(kept.stdout.contains("applied 3 changes; "), "{}", kept.stdout);
    let left = run(tree.path(), ["check", &auto()]).expect(2).stdout;
    assert_eq!(left, format!("{}: 0, wanted 1\n", ALL[3]));

    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn json_has_what_failed_and_without_a_failure_it_is_an_apply() {
    let tree = copy_of("virtio-2cpu");
    let plan = run(tree.path(), ["plan", "--json", &auto()]).expect(2).json();
    let done = run(tree.path(), ["apply", "--keep-going", "--json", &auto()]).expect(0).json();
    assert_eq!(
        (&done["schema"], &done["changes"], &done["failed"]),
        (&json!(1), &plan["changes"], &json!([]))
    );
    let again = run(tree.path(), ["apply", "--keep-going", &auto()]).expect(0);
    assert_eq!(again.stdout, "nothing to do\n");

    fs::write(tree.path().join(&ALL[3][1..]), "0\n").unwrap();
    make_read_only(tree.path());
    let failed = run(tree.path(), ["apply", "--keep-going", "--json", &auto()]).expect(1);
    let json = failed.json();
    assert_eq!(json["changes"], json!([]));
    let failure = json["failed"][0].as_str().unwrap();
    assert!(failure.contains(&format!("{}: EPERM", ALL[3])), "{json}");
}

/// Applies with a writer that fails for these interrupts, after it has left another value there; the old
/// value it writes.
fn with_failures(tree: &Path, failing: &[&'static str]) -> (Vec<String>, Vec<String>) {
    let failing = failing.to_vec();
    let writer = move |file: &Path, value: &str| {
        if failing.iter().any(|path| file.ends_with(path.trim_start_matches('/'))) && value != "0-1" {
            DirectWrite.write(file, "1").unwrap();
            return Err(Errno::IO.into());
        }
        DirectWrite.write(file, value)
    };
    let files = KernelFiles::with_writer(tree, writer).unwrap();
    let profile = Profile::parse(&fs::read_to_string(auto()).unwrap(), "auto.toml").unwrap();
    let applied = apply_keeping_going(&files, &tree.join("run/corelocal"), &profile).unwrap();
    (applied.changes.iter().map(|change| change.setting.path()).collect(), applied.failed)
}

#[test]
fn whichever_writes_fail_the_others_are_kept_and_all_of_them_named() {
    for failing in [&[][..], &ALL[..1], &ALL[1..2], &ALL[..2]] {
        let tree = copy_of("virtio-2cpu");
        let before = contents(tree.path());
        let (written, failed) = with_failures(tree.path(), failing);
        let expected: Vec<&str> = ALL.into_iter().filter(|path| !failing.contains(path)).collect();
        assert_eq!(written, expected);
        assert_eq!(failed.len(), failing.len(), "{failed:?}");
        for path in failing {
            assert!(
                failed.iter().any(|failure| failure.contains(path) && failure.contains("EIO")),
                "{failed:?}"
            );
        }
        run(tree.path(), ["restore"]).expect(0);
        assert_same_values(&contents(tree.path()), &before);
    }
}

/// What ethtool sets is written first, each for itself: one that fails leaves the others and what comes
/// after.
#[test]
fn of_what_ethtool_sets_the_rest_is_kept_too() {
    const RINGS: &str = "ethtool/eth0/rings";
    let text = "cpus = \"0-7\"\nirqbalance = \"coexist\"\n[rings]\nrx = 2048\n[coalesce]\n\
                adaptive_rx = false\nrx_usecs = 8\n\
                tx_usecs = 9\n[rss]\ntable = \"keep\"\nudp4 = \"sdfn\"\n[features]\nntuple = \"off\"\n\
                [queues]\nirq = \"keep\"\n\
                rps = \"keep\"\n";
    let profile = Profile::parse(text, "profile").unwrap();
    let everything = ["rings", "rss/udp4", "coalesce/adaptive_rx", "coalesce/rx_usecs", "coalesce/tx_usecs"];
    for failing in [None, Some(Errno::IO), Some(Errno::OPNOTSUPP)] {
        let tree = copy_of("i40e-48cpu");
        let before = contents(tree.path());
        let refuses = move |file: &Path, value: &str| match failing {
            Some(errno) if value.contains("\"now\": 2048") => Err(errno.into()),
            _ => DirectWrite.write(file, value),
        };
        let files = KernelFiles::with_writer(tree.path(), refuses).unwrap();
        let applied = apply_keeping_going(&files, &tree.path().join("run/corelocal"), &profile).unwrap();
        let written: Vec<String> = applied.changes.iter().map(|change| change.setting.path()).collect();
        let expected = everything.iter().map(|knob| format!("ethtool/eth0/{knob}"));
        let expected: Vec<String> = expected.filter(|path| failing.is_none() || path != RINGS).collect();
        assert_eq!(written[..expected.len()], expected, "{failing:?}");
        let after = &written[expected.len()..];
        assert!(!after.is_empty() && after.iter().all(|path| path.contains("xps_cpus")), "{after:?}");
        match failing {
            Some(Errno::IO) => {
                assert!(
                    applied.failed.len() == 1 && applied.failed[0].contains("EIO"),
                    "{:?}",
                    applied.failed
                );
            }
            Some(_) => {
                assert_eq!(applied.failed, [""; 0]);
                assert!(applied.skipped.iter().any(|skipped| skipped.wish == RINGS), "{:?}", applied.skipped);
            }
            None => assert_eq!(applied.failed, [""; 0]),
        }
        run(tree.path(), ["restore"]).expect(0);
        assert_same_values(&same_json(contents(tree.path())), &same_json(before));
    }
}

/// The JSON of ethtool is the same data after it was written, and not the same text.
fn same_json(mut files: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for (_, text) in files.iter_mut().filter(|(path, _)| path.ends_with(".json")) {
        *text = serde_json::from_str::<Value>(text).unwrap().to_string();
    }
    files
}

#[test]
fn channels_of_a_veth_stay_when_a_sysctl_fails() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = "[channels]\ncount = 2\n[queues]\nrps = \"queue-cpu\"\n\
                [sysctl]\n\"net.ipv4.tcp_migrate_req\" = { exact = 7 }\n";
    fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let kept = veth.tune(&["apply", "--keep-going", "--json", path]).expect(1).json();
    assert_eq!(kept["failed"].as_array().unwrap().len(), 1, "{kept}");
    assert!(kept["failed"][0].as_str().unwrap().contains("tcp_migrate_req: EINVAL"), "{kept}");
    assert_eq!(kept["changes"][0]["path"], "ethtool/nic0/channels");
    let left = veth.tune(&["check", path]).expect(2).stdout;
    assert_eq!(left, "/proc/sys/net/ipv4/tcp_migrate_req: 0, wanted 7\n");
    veth.tune(&["restore"]).expect(0);
    assert_eq!(veth.values(), before);
}

/// The first write takes away what the host is read from: what was written before that is said, and comes
/// back.
#[test]
fn a_host_that_cannot_be_read_any_more_ends_it_and_what_was_set_is_said() {
    let tree = copy_of("virtio-2cpu");
    let online = tree.path().join("sys/devices/system/cpu/online");
    let (before, of_online) = (contents(tree.path()), fs::read_to_string(&online).unwrap());
    let breaking = {
        let online = online.clone();
        move |file: &Path, value: &str| {
            fs::write(&online, "?\n")?;
            DirectWrite.write(file, value)
        }
    };
    let files = KernelFiles::with_writer(tree.path(), breaking).unwrap();
    let auto = Profile::parse(&fs::read_to_string(profile("auto.toml")).unwrap(), "profile").unwrap();
    let error = apply_keeping_going(&files, &tree.path().join("run/corelocal"), &auto).unwrap_err();
    assert!(error.to_string().ends_with("; 4 values were set before, and are kept"), "{error}");
    assert!(matches!(&error, tune::Error::Apply(error) if error.needs_restore()), "{error}");
    fs::write(online, of_online).unwrap();
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}
