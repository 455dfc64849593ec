//! Apply, second apply and restore on a veth pair with several queues: the real kernel files.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;

use common::veth::{NIC, Veth, of_nic};
use common::{Run, profile, profile_of, tune};
use lab::namespace::Namespace;
use tune::cpu_set::{Cpu, CpuSet};

fn online() -> CpuSet {
    fs::read_to_string("/sys/devices/system/cpu/online").unwrap().parse().unwrap()
}

fn lab_toml() -> String {
    profile("lab.toml").to_str().unwrap().to_owned()
}

fn mask(veth: &Veth, queue: &str, file: &str) -> CpuSet {
    let path = format!("/sys/class/net/{NIC}/queues/{queue}/{file}");
    CpuSet::parse_mask(&veth.inside(|| fs::read_to_string(path).unwrap())).unwrap()
}

#[test]
fn apply_sets_one_cpu_per_queue_and_restore_gives_every_value_back() {
    let cpus: Vec<Cpu> = online().iter().collect();
    let Some(veth) = Veth::with_queues(u32::try_from(cpus.len()).unwrap()) else { return };
    let before = veth.values();
    let planned = veth.tune(&["plan", "--json", &lab_toml()]).expect(2).json();
    veth.tune(&["apply", &lab_toml()]).expect(0);

    let mut received = CpuSet::new();
    for queue in 0..cpus.len() {
        let (rps, xps) = (
            mask(&veth, &format!("rx-{queue}"), "rps_cpus"),
            mask(&veth, &format!("tx-{queue}"), "xps_cpus"),
        );
        assert_eq!(rps, xps, "queue {queue}");
        assert_eq!(rps.len(), 1, "queue {queue}");
        assert!(received.insert(rps.first().unwrap()), "queue {queue}: a CPU of its own");
    }
    assert_eq!(received, online());
    let after = veth.values();
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(changed, planned["changes"].as_array().unwrap().len(), "nothing but the plan");

    let again = veth.tune(&["apply", &lab_toml()]).expect(0);
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
    assert_eq!(veth.tune(&["plan", &lab_toml()]).expect(0).stdout, "");

    veth.tune(&["restore"]).expect(0);
    assert_eq!(veth.values(), before);
    assert!(veth.tune(&["restore"]).expect(0).stdout.contains("nothing to restore"));
}

#[test]
fn with_more_queues_than_cpus_and_with_fewer() {
    let cpus = online();
    let many = u32::try_from(cpus.len() * 2 + 1).unwrap();
    if let Some(veth) = Veth::with_queues(many) {
        let before = veth.values();
        veth.tune(&["apply", &lab_toml()]).expect(0);
        for queue in 0..many {
            let other = queue % u32::try_from(cpus.len()).unwrap();
            let rps = |queue| mask(&veth, &format!("rx-{queue}"), "rps_cpus");
            assert_eq!(rps(queue), rps(other), "the queues go round");
        }
        veth.tune(&["restore"]).expect(0);
        assert_eq!(veth.values(), before);
    }
    // One RX and one TX queue: there is no XPS, and `auto` spreads what is received over all CPUs.
    if let Some(veth) = Veth::with_queues(1) {
        let auto = profile("auto.toml");
        let arguments = ["plan", "--json", auto.to_str().unwrap()];
        let plan = veth.tune(&arguments).expect(2).json();
        let changes: Vec<(&str, &str)> = plan["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| (change["path"].as_str().unwrap(), change["after"].as_str().unwrap()))
            .filter(|(path, _)| path.starts_with("/sys"))
            .collect();
        let rps = format!("/sys/class/net/{NIC}/queues/rx-0/rps_cpus");
        assert_eq!(changes, [(rps.as_str(), cpus.to_mask().as_str())]);
    }
}

/// The sysctl is the last to be written; the kernel takes only 0 and 1.
#[test]
fn a_value_that_the_kernel_refuses_undoes_everything_before_it() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    let text = fs::read_to_string(profile("lab.toml")).unwrap();
    let text =
        text.replace("\"net.ipv4.tcp_migrate_req\" = 1", "\"net.ipv4.tcp_migrate_req\" = { exact = 7 }");
    let file = profile_of(&text);
    let result = veth.tune(&["apply", file.path().to_str().unwrap()]);
    let message = result.refusal();
    assert!(message.contains("write \"7\" to /proc/sys/net/ipv4/tcp_migrate_req: EINVAL"), "{message}");
    assert!(message.contains("undone"), "{message}");
    assert_eq!(veth.values(), before);
    assert!(veth.tune(&["restore"]).expect(0).stdout.contains("nothing to restore"));
}

/// `/proc/sys/net` of a child namespace lacks most of the initial one's files.
#[test]
fn a_sysctl_that_a_child_namespace_lacks_is_skipped_or_refused_before_anything_is_written() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let before = veth.values();
    let wish = "\"net.core.rps_sock_flow_entries\" = 32768\n";
    let tune = |command: &str, require: &str| {
        let file = profile_of(&format!("[queues]\nirq = \"keep\"\n[sysctl]\n{require}{wish}"));
        veth.tune(&[command, file.path().to_str().unwrap()])
    };
    let absent = "/proc/sys/net/core/rps_sock_flow_entries does not exist";
    let refused = tune("apply", "require = true\n");
    assert!(refused.refusal().contains(absent), "{}", refused.stderr);
    assert_eq!(veth.values(), before);
    let plan = tune("plan", "").expect(2);
    assert!(plan.stderr.contains(absent) && !plan.stdout.contains("rps_sock_flow"), "{}", plan.stderr);
}

/// The kernel rounds RFS tables up to a power of two; the plan must not find a difference in that for ever.
#[test]
fn a_flow_table_size_that_the_kernel_rounds_is_no_difference() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let before = veth.values();
    let file = profile_of("[queues]\nirq = \"keep\"\nrps_flow_cnt = 100\n");
    let profile = file.path().to_str().unwrap();
    veth.tune(&["apply", profile]).expect(0);
    let path = format!("/sys/class/net/{NIC}/queues/rx-0/rps_flow_cnt");
    assert_eq!(veth.inside(|| fs::read_to_string(path).unwrap()), "128\n");
    veth.tune(&["plan", profile]).expect(0);
    veth.tune(&["restore"]).expect(0);
    assert_eq!(veth.values(), before);
}

/// The values of the host's own network namespace and of the virtual one are two things, also for the
/// journal.
#[test]
fn each_network_namespace_has_its_own_journal() {
    let (Some(one), Some(other)) = (Veth::with_queues(2), Veth::with_queues(2)) else { return };
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().to_str().unwrap();
    let before = (one.values(), other.values());
    let apply = ["apply", "--state-dir", state_dir, &lab_toml()];
    one.tune(&apply).expect(0);
    other.tune(&apply).expect(0);
    let journals = common::names(state.path(), |path| path.extension().is_some_and(|e| e == "json"));
    assert_eq!(journals.len(), 2, "{journals:?}");
    let restore = ["restore", "--state-dir", state_dir];
    other.tune(&restore).expect(0);
    assert_eq!(other.values(), before.1);
    assert_ne!(one.values(), before.0);
    one.tune(&restore).expect(0);
    assert_eq!(one.values(), before.0);
}

/// `tune ARGUMENTS…` where `/sys` is that of `veth` and the network is that of `network`.
fn tune_between(veth: &Veth, network: &Namespace, arguments: &[&str]) -> Run {
    let mut command = of_nic(arguments);
    veth.with_network_of(network, || command.output().unwrap()).into()
}

#[track_caller]
fn assert_refused_for_its_sys(run: &Run) {
    let message = run.refusal();
    assert!(message.contains("/sys was mounted in another network namespace"), "{message}");
    for step in ["ip netns exec", "nsenter -t PID -n -m", "unshare -m", "mount -t sysfs"] {
        assert!(message.contains(step), "the next step: {message}");
    }
}

/// As by `nsenter --net`: sysctls would go to one namespace, and queues to an interface of another.
#[test]
fn a_sys_of_another_network_namespace_is_refused() {
    let (Some(one), Some(other)) = (Veth::with_queues(2), Veth::with_queues(2)) else { return };
    let without = Namespace::create().unwrap();
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().join("state");
    let state_dir = state_dir.to_str().unwrap();
    let before = (one.values(), other.values());
    for network in [other.namespace(), &without] {
        let values = || network.run(|| fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap()).unwrap();
        let somaxconn = values();
        for command in [&["plan", &lab_toml()][..], &["apply", "--state-dir", state_dir, &lab_toml()]] {
            assert_refused_for_its_sys(&tune_between(&one, network, command));
        }
        assert_eq!(values(), somaxconn);
    }
    // Here it is `/sys` that lacks the interface.
    let mut command = of_nic(&["plan", &lab_toml()]);
    let own_network = || {
        rustix::thread::move_into_link_name_space(one.namespace().network(), None).unwrap();
        command.output().unwrap()
    };
    assert_refused_for_its_sys(&without.run(own_network).unwrap().into());
    assert_eq!((one.values(), other.values()), before);
    assert!(!std::path::Path::new(state_dir).exists());
}

#[test]
fn restore_is_refused_with_a_sys_of_another_network_namespace_and_keeps_the_journal() {
    let (Some(one), Some(other)) = (Veth::with_queues(2), Veth::with_queues(2)) else { return };
    let state = tempfile::tempdir().unwrap();
    let restore = ["restore", "--state-dir", state.path().to_str().unwrap()];
    let before = one.values();
    one.tune(&["apply", "--state-dir", state.path().to_str().unwrap(), &lab_toml()]).expect(0);
    let after = (one.values(), other.values());
    assert_refused_for_its_sys(&tune_between(&other, one.namespace(), &restore));
    assert_eq!((one.values(), other.values()), after);
    one.tune(&restore).expect(0);
    assert_eq!(one.values(), before);
}

/// EINVAL is what the kernel answers for a queue outside of all traffic classes (mqprio) or on a subordinate
/// device. Not every kernel has mqprio; `clear_refs` answers EINVAL to every reader.
#[test]
fn a_tx_queue_whose_xps_cannot_be_read_has_none() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let queue = format!("/sys/class/net/{NIC}/queues/tx-1/xps_cpus");
    veth.inside(|| {
        rustix::mount::mount_bind("/proc/self/clear_refs", &queue).unwrap();
        let error = fs::read_to_string(&queue).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    });
    let show = veth.tune(&["show", "--json"]).expect(0).json();
    let queues = &show["interfaces"][0]["queues"];
    assert_eq!((queues[0]["xps"].is_null(), queues[1]["xps"].is_null()), (false, true));
    veth.tune(&["apply", &lab_toml()]).expect(0);
    assert!(!mask(&veth, "tx-0", "xps_cpus").is_empty());
    veth.tune(&["restore"]).expect(0);
}

/// A container runtime puts `/dev/null` over `/proc/interrupts`.
#[test]
fn a_container_with_masked_interrupts_can_tune_its_veth() {
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.inside(|| rustix::mount::mount_bind("/dev/null", "/proc/interrupts").unwrap());
    let before = veth.values();
    veth.tune(&["show"]).expect(0);
    veth.tune(&["apply", &lab_toml()]).expect(0);
    assert_ne!(veth.values(), before);
    veth.tune(&["restore"]).expect(0);
    assert_eq!(veth.values(), before);
}

/// A container runtime mounts `/proc/sys` read-only.
#[test]
fn where_sysctls_are_read_only_nothing_is_written_and_the_way_out_is_said() {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.inside(|| {
        mount_bind("/proc/sys", "/proc/sys").unwrap();
        mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    });
    let before = veth.values();
    let result = veth.tune(&["apply", &lab_toml()]);
    let message = result.refusal();
    for part in ["/proc/sys/net/ipv4/tcp_migrate_req: EROFS", "in a container", "writable", "run on the host"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(veth.values(), before);
}

#[test]
fn an_alternative_name_is_answered_with_the_real_one() {
    let Some(veth) = Veth::with_queues(1) else { return };
    veth.add_alternative_name(c"other0");
    let result: Run = veth.output(tune().args(["show", "other0"]));
    let expected = format!("interface other0 is called {NIC} here");
    assert!(result.refusal().contains(&expected), "{}", result.stderr);
}

/// The machine's own files through another path: a container sees those of its host so.
#[test]
fn a_bind_mount_of_the_running_system_is_the_running_system() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let state = tempfile::tempdir().unwrap();
    let state_dir = ["--state-dir", state.path().to_str().unwrap()];
    // On the tmpfs of the namespace, so that nothing outside sees the mount or cleans up below it.
    let root = "/run/machine";
    veth.inside(|| {
        fs::create_dir(root).unwrap();
        rustix::mount::mount_bind_recursive("/", root).unwrap();
    });
    let before = veth.values();
    veth.tune(&[&["--root", root, "apply", &lab_toml()], &state_dir[..]].concat()).expect(0);
    assert_ne!(veth.values(), before);
    let journals = common::names(state.path(), |path| path.extension().is_some_and(|e| e == "json"));
    assert_ne!(journals, ["journal.0.json"], "it is of a network namespace");
    veth.tune(&[&["restore"], &state_dir[..]].concat()).expect(0);
    assert_eq!(veth.values(), before, "the journal is the same for both paths");
}
