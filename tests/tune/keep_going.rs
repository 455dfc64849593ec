//! `apply --keep-going`: what fails is reported, the rest is kept, and restore gives all of it back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{assert_same_values, contents, copy_of, profile, run};
use rustix::io::Errno;
use serde_json::json;
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

#[test]
fn an_interrupt_that_the_kernel_manages_does_not_keep_the_rest_from_being_set() {
    let tree = copy_of("virtio-2cpu");
    let managed = tree.path().join("proc/irq/38/smp_affinity_list");
    fs::set_permissions(&managed, fs::Permissions::from_mode(0o444)).unwrap();
    let before = contents(tree.path());
    assert!(run(tree.path(), ["apply", &auto()]).refusal().contains("nothing was written"));
    assert_eq!(contents(tree.path()), before);

    let kept = run(tree.path(), ["apply", "--keep-going", &auto()]).expect(1);
    let said: Vec<&str> = kept.stderr.lines().collect();
    assert_eq!(said.len(), 2, "{}", kept.stderr);
    assert!(said[0].starts_with("tune: skipped irqbalance = \"ban\": "), "{}", kept.stderr);
    assert!(
        said[1].starts_with("tune: not set: write to /proc/irq/38/smp_affinity_list: EPERM"),
        "{}",
        kept.stderr
    );
    let written: Vec<&str> = kept.stdout.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(written[..3], ALL[1..], "{}", kept.stdout);
    assert!(kept.stdout.contains("applied 3 changes; "), "{}", kept.stdout);
    let left = run(tree.path(), ["check", &auto()]).expect(2).stdout;
    assert_eq!(left, "/proc/irq/38/smp_affinity_list: 0-1, wanted 0\n");

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

    fs::write(tree.path().join("proc/irq/38/smp_affinity_list"), "1\n").unwrap();
    let managed = fs::Permissions::from_mode(0o444);
    fs::set_permissions(tree.path().join("proc/irq/38/smp_affinity_list"), managed).unwrap();
    let failed = run(tree.path(), ["apply", "--keep-going", "--json", &auto()]).expect(1);
    let json = failed.json();
    assert_eq!(json["changes"], json!([]));
    assert!(json["failed"][0].as_str().unwrap().contains("/proc/irq/38/smp_affinity_list: EPERM"), "{json}");
}

/// Applies with a writer that fails for these interrupts, after it has left another value there; the old value it writes.
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
