//! The faults of the tools that exist, each with a test that `tune` does it right. The tool is in the name of
//! each, where it was read in the comment; what needs ethtool, a bond or another driver is tested there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Run, assert_same_values, canonical, contents, copy_of, held, profile, profile_of, run, tune};
use rustix::io::Errno;
use tune::cpu_set::CpuSet;
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::Profile;

/// A host tree after a plan: what each file shall hold.
struct After {
    changes: BTreeMap<String, String>,
    run: Run,
    root: PathBuf,
    interface: String,
}

impl After {
    fn of(root: &Path, arguments: &[&str]) -> Self {
        let run = run(root, ["plan", "--json"].into_iter().chain(arguments.iter().copied()));
        let json = run.json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let changes = json["changes"].as_array().unwrap().iter();
        let changes = changes.map(|change| (text(&change["path"]), text(&change["after"]))).collect();
        let changes: BTreeMap<String, String> = changes;
        let route = fs::read_to_string(root.join("proc/net/route")).unwrap();
        let interface = route.lines().nth(1).unwrap().split('\t').next().unwrap().to_owned();
        Self { changes, run, root: root.to_owned(), interface }
    }

    fn value(&self, path: &str) -> String {
        self.changes.get(path).cloned().unwrap_or_else(|| canonical(path, &held(&self.root, path)))
    }

    fn irq(&self, irq: u32) -> String {
        self.value(&format!("/proc/irq/{irq}/smp_affinity_list"))
    }

    fn queue(&self, queue: &str, file: &str) -> String {
        self.value(&format!("/sys/class/net/{}/queues/{queue}/{file}", self.interface))
    }

    fn xps(&self, queue: u32) -> CpuSet {
        CpuSet::parse_mask(&self.queue(&format!("tx-{queue}"), "xps_cpus")).unwrap()
    }

    fn rps(&self, queue: u32) -> CpuSet {
        CpuSet::parse_mask(&self.queue(&format!("rx-{queue}"), "rps_cpus")).unwrap()
    }
}

fn shipped(name: &str) -> String {
    profile(name).to_str().unwrap().to_owned()
}

fn planned(host: &str, arguments: &[&str]) -> After {
    let tree = copy_of(host);
    let after = After::of(tree.path(), arguments);
    let root = common::host(host);
    After { root, ..after }
}

/// Vector of queue 0 in `i40e-48cpu` and `mlx5-48cpu`; the others follow.
const I40E: u32 = 121;
const MLX5: u32 = 101;

/// `__setup_xps` takes the queues as `glob` gives them and any mask; rpk sorts them as text: tx-1, tx-10.
#[test]
fn perftune_and_rpk_xps_has_nothing_to_do_with_where_the_interrupts_fire() {
    for (host, first) in [("i40e-48cpu", I40E), ("mlx5-48cpu", MLX5)] {
        let after = planned(host, &[&shipped("40g.toml")]);
        for queue in 0..48 {
            assert_eq!(after.xps(queue).to_string(), after.irq(first + queue), "{host} tx-{queue}");
        }
    }
}

#[test]
fn perftune_every_queue_gets_every_cpu_by_rps_although_there_is_one_per_cpu() {
    let after = planned("mlx5-48cpu", &[&shipped("40g.toml")]);
    assert!((0..48).all(|queue| after.rps(queue).is_empty()));
}

#[test]
fn perftune_receive_and_transmit_of_a_virtio_queue_go_to_different_cpus() {
    let after = planned("virtio-2cpu", &[&shipped("auto.toml")]);
    assert_eq!(after.irq(38), after.irq(39));
}

/// `ethtool -L eth0 rx 2`, `ntuple on` where it is fixed, `xps_cpus` where it can only be ENOENT.
#[test]
fn perftune_asks_a_nic_with_one_queue_for_what_it_does_not_have() {
    let tree = copy_of("virtio-2cpu");
    let known = r#"{"channels": {"combined": {"now": 1, "max": 1}},
                    "features": {"rx-ntuple-filter": {"on": false, "fixed": true}}}"#;
    let ethtool = tree.path().join("corelocal/ethtool");
    fs::create_dir_all(&ethtool).unwrap();
    fs::write(ethtool.join("eth0.json"), known).unwrap();
    let file = profile_of("[channels]\ncount = 2\n[features]\nntuple = \"on\"\n");
    let after = After::of(tree.path(), &[file.path().to_str().unwrap()]);
    assert!(!after.changes.is_empty());
    for path in after.changes.keys() {
        assert!(!path.contains("xps_cpus") && !path.starts_with("ethtool/"), "{path}");
    }
    let json = after.run.json();
    let skipped: Vec<&str> =
        json["skipped"].as_array().unwrap().iter().map(|skipped| skipped["wish"].as_str().unwrap()).collect();
    for wish in ["channels.count = 2 of eth0", "features.ntuple = \"on\" of eth0"] {
        assert!(skipped.contains(&wish), "{json}");
    }
}

#[test]
fn perftune_a_write_that_fails_is_printed_and_the_exit_code_is_0() {
    let tree = copy_of("virtio-2cpu");
    let text = "[queues]\nirq = \"keep\"\n[sysctl]\n\"net.core.somaxconn\" = 8192\n";
    let file = profile_of(text);
    make_read_only(&tree.path().join("proc/sys/net/core/somaxconn"));
    run(tree.path(), ["apply", file.path().to_str().unwrap()]).refusal();
}

fn make_read_only(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
}

/// So do mlnx's scripts with their own numbers, and tune-nic.sh with `rps_sock_flow_entries`.
#[test]
fn perftune_and_tune_nic_lower_a_sysctl_that_was_higher() {
    let text = "[sysctl]\n\"net.core.somaxconn\" = 4096\n\"net.core.rps_sock_flow_entries\" = 32768\n";
    let file = profile_of(text);
    let after = planned("mlx5-48cpu", &[file.path().to_str().unwrap()]);
    assert!(!after.changes.keys().any(|path| path.starts_with("/proc/sys/")), "{:?}", after.changes);
    assert_eq!(after.run.json()["kept"].as_array().unwrap().len(), 2);
}

#[test]
fn perftune_a_second_run_writes_everything_again() {
    let tree = copy_of("mlx5-48cpu");
    run(tree.path(), ["apply", &shipped("40g.toml")]).expect(0);
    contents(tree.path()).keys().filter(|path| !path.ends_with('/')).for_each(|path| {
        make_read_only(&tree.path().join(path));
    });
    let again = run(tree.path(), ["apply", &shipped("40g.toml")]).expect(0);
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
}

/// hwloc, ethtool, sysctl, and Python with distutils, which Python 3.12 has no more.
#[test]
fn perftune_needs_other_programs() {
    let tree = copy_of("i40e-48cpu");
    let mut command = tune();
    command.arg("--root").arg(tree.path()).args(["apply", &shipped("40g.toml")]);
    let applied: Run = command.env_clear().env("PATH", "/nowhere").output().unwrap().into();
    applied.expect(0);
}

/// `MasksEqual` compares the number of groups, so that `check` fails for ever with more than 32 CPUs.
#[test]
fn rpk_a_mask_with_other_padding_is_taken_for_another_one() {
    let tree = copy_of("i40e-48cpu");
    run(tree.path(), ["apply", &shipped("40g.toml")]).expect(0);
    for (path, text) in contents(tree.path()) {
        if path.ends_with("ps_cpus") {
            let mask = text.trim();
            let (high, low) = mask.split_once(',').unwrap_or(("0", mask));
            fs::write(tree.path().join(&path), format!("{high:0>4},{low:0>8}\n")).unwrap();
        }
    }
    assert_eq!(run(tree.path(), ["plan", &shipped("40g.toml")]).expect(0).stdout, "");
}

/// autorps gives CPUs 0-3 of 8 as `f0` and has no commas; GCE's guest agent repeats the lower half (#72), so
/// that CPU 32 is `1,00000001`.
#[test]
fn autorps_and_guest_agent_masks_are_reversed_or_repeated() {
    for (cpus, mask) in [("0-3", "f"), ("4-7", "f0"), ("32", "1,00000000"), ("0,32-33", "3,00000001")] {
        assert_eq!(CpuSet::parse_list(cpus).unwrap().to_mask(), mask, "{cpus}");
    }
    let after = planned("i40e-48cpu", &[&shipped("40g.toml")]);
    let tx = (0..48).find(|queue| after.irq(I40E + queue) == "32").unwrap();
    assert_eq!(after.queue(&format!("tx-{tx}"), "xps_cpus"), "1,00000000");
}

/// One queue of 48, and all CPUs: a mask above 32 CPUs.
#[test]
fn autorps_has_no_comma_above_32_cpus() {
    let tree = copy_of("i40e-48cpu");
    keep_queues(tree.path(), 1);
    let file = profile_of("[queues]\nirq = \"keep\"\n");
    let after = After::of(tree.path(), &[file.path().to_str().unwrap()]);
    assert_eq!(after.queue("rx-0", "rps_cpus"), "ffff,ffffffff");
}

fn keep_queues(root: &Path, number: u32) {
    let queues = fs::canonicalize(root.join("sys/class/net/eth0/queues")).unwrap();
    for queue in number..48 {
        for kind in ["rx", "tx"] {
            fs::remove_dir_all(queues.join(format!("{kind}-{queue}"))).unwrap();
        }
    }
}

/// The counter wraps and XPS goes to tx-0 and on again; the queues from the number of cores on never get any.
#[test]
fn set_irq_affinity_and_tune_nic_with_more_queues_than_cores_some_are_left() {
    for (host, first) in [("i40e-48cpu", I40E), ("mlx5-48cpu", MLX5)] {
        let after = planned(host, &["--cpus", "0-3", &shipped("auto.toml")]);
        for queue in 0..48 {
            let cpu: u32 = after.irq(first + queue).parse().unwrap();
            assert!(cpu < 4, "{host} queue {queue}: {cpu}");
            assert_eq!(after.xps(queue).to_string(), cpu.to_string(), "{host} queue {queue}");
        }
    }
}

/// `grep "$i:.*TxRx"`: what is looked for as 21 is found in 121.
#[test]
fn set_irq_affinity_takes_one_number_for_the_end_of_another() {
    let tree = copy_of("i40e-48cpu");
    let interrupts = tree.path().join("proc/interrupts");
    let text = fs::read_to_string(&interrupts).unwrap();
    let counts = format!("{:>10} ", 0).repeat(48);
    let (header, rows) = text.split_once('\n').unwrap();
    fs::write(&interrupts, format!("{header}\n  21: {counts}IO-APIC 21-fasteoi      acpi\n{rows}")).unwrap();
    fs::create_dir_all(tree.path().join("proc/irq/21")).unwrap();
    fs::write(tree.path().join("proc/irq/21/smp_affinity_list"), "0-47\n").unwrap();
    let after = After::of(tree.path(), &[&shipped("40g.toml")]);
    assert!(after.changes.contains_key("/proc/irq/121/smp_affinity_list"));
    assert!(!after.changes.contains_key("/proc/irq/21/smp_affinity_list"));
}

/// `same-node` takes `nodes[0]` for every queue.
#[test]
fn affinitize_rps_of_every_queue_goes_to_the_first_node() {
    let tree = copy_of("i40e-48cpu");
    keep_queues(tree.path(), 2);
    let file = profile_of("[queues]\nirq = \"keep\"\n");
    let after = After::of(tree.path(), &[file.path().to_str().unwrap()]);
    // The NIC is on node 1, whose CPUs come first.
    assert_eq!([after.rps(0).to_string(), after.rps(1).to_string()], ["12-23,36-47", "0-11,24-35"]);
}

/// `echo 01 > smp_affinity_list` is CPU 1.
#[test]
fn gce_writes_a_mask_into_a_list() {
    let after = planned("i40e-48cpu", &[&shipped("40g.toml")]);
    let lists: Vec<String> = (0..48).map(|queue| after.irq(I40E + queue)).collect();
    let mut cpus: Vec<u32> = lists.iter().map(|list| list.parse().unwrap()).collect();
    cpus.sort_unstable();
    assert_eq!(cpus, (0..48).collect::<Vec<_>>());
    assert!(lists.iter().all(|list| list == "0" || !list.starts_with('0')), "{lists:?}");
}

/// The trailing digits of `mlx5_comp2@pci:0000:3b:00.0` are the PCI function, 0 for every vector.
#[test]
fn tune_nic_takes_the_pci_function_for_the_queue() {
    let after = planned("mlx5-48cpu", &[&shipped("40g.toml")]);
    let cpus: Vec<String> = (0..48).map(|queue| after.irq(MLX5 + queue)).collect();
    let first_thread_of_node_0: Vec<String> = (0..12).map(|cpu: u32| cpu.to_string()).collect();
    assert_eq!(cpus[..12], first_thread_of_node_0);
    for foreign in [90, 91, 94, 100, 160, 163] {
        let path = format!("/proc/irq/{foreign}/smp_affinity_list");
        assert!(!after.changes.contains_key(&path), "async, or another function: {path}");
    }
}

/// `fdir-TxRx-0` passes for queue 0, and all that follow are shifted.
#[test]
fn tune_nic_takes_the_flow_director_for_a_queue() {
    let after = planned("i40e-48cpu", &[&shipped("40g.toml")]);
    for other in [I40E - 1, I40E + 48] {
        assert!(!after.changes.contains_key(&format!("/proc/irq/{other}/smp_affinity_list")));
    }
    assert_eq!(after.irq(I40E), "12", "queue 0: the first CPU of the NIC's node");
}

/// `systemctl mask irqbalance`, also of mlnx_tune; its socket replaces the list of everybody else.
#[test]
fn tune_nic_and_mlnx_tune_take_irqbalance_away_from_every_interrupt_for_good() {
    let tree = copy_of("i40e-48cpu");
    let irqbalance = || held(tree.path(), "irqbalance/banned_irqs");
    run(tree.path(), ["apply", &shipped("40g.toml")]).expect(0);
    assert!(irqbalance().starts_with("24 121 122 ") && irqbalance().ends_with(" 168"), "{}", irqbalance());
    run(tree.path(), ["restore"]).expect(0);
    assert_eq!(irqbalance(), "24");
}

/// `set -e` ends the script at the first write that fails, with those before it done.
#[test]
fn tune_nic_stops_half_way_and_has_no_way_back() {
    let (tree, message, before) = applied_with("i40e-48cpu", 30, Errno::INVAL);
    assert!(message.contains("EINVAL") && message.contains("undone, "), "{message}");
    assert_same_values(&contents(tree.path()), &before);
}

/// Applies `auto.toml` with a writer whose n-th write fails; the message, and the files before.
fn applied_with(
    host: &str,
    failing: usize,
    errno: Errno,
) -> (tempfile::TempDir, String, BTreeMap<String, String>) {
    let tree = copy_of(host);
    let before = contents(tree.path());
    let count = AtomicUsize::new(0);
    let writer = move |file: &Path, value: &str| {
        let fails = count.fetch_add(1, Ordering::Relaxed) == failing;
        if fails { Err(io::Error::from(errno)) } else { DirectWrite.write(file, value) }
    };
    let files = KernelFiles::with_writer(tree.path(), writer).unwrap();
    let auto = Profile::parse(&fs::read_to_string(shipped("auto.toml")).unwrap(), "auto.toml").unwrap();
    let error = tune::apply_profile(&files, &tree.path().join("run/corelocal"), &auto).unwrap_err();
    (tree, error.to_string(), before)
}

/// EIO before Linux 6.12 and EPERM since: tuned knows only the first.
#[test]
fn tuned_does_not_know_a_managed_interrupt_since_linux_6_12() {
    for errno in [Errno::IO, Errno::PERM] {
        let (_tree, message, _) = applied_with("virtio-2cpu", 0, errno);
        let way_out = "the kernel manages this interrupt; queues.irq = \"follow\" leaves it where it is";
        assert!(message.contains(way_out), "{message}");
    }
}

/// tuned#296: `verify` fails for ever on what cannot be changed; so did perftune on Oracle's cloud
/// (seastar#3003).
#[test]
fn tuned_verify_fails_for_ever_on_an_interrupt_that_cannot_be_changed() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = common::generated("managed-4cpu", scratch.path());
    let auto = shipped("auto.toml");
    let before = contents(&tree);
    let follow = profile_of("[queues]\nirq = \"follow\"\n");
    for (profile, skipped) in [(auto.as_str(), true), (follow.path().to_str().unwrap(), false)] {
        let drifted = run(&tree, ["check", profile]).expect(2);
        assert!(!drifted.stdout.contains("/proc/irq/"), "{}", drifted.stdout);
        let said = drifted.stderr.contains("tune: skipped queues.irq of eth0: the kernel manages IRQ ");
        assert_eq!(said, skipped, "{}", drifted.stderr);
        run(&tree, ["apply", profile]).expect(0);
        run(&tree, ["check", profile]).expect(0);
        run(&tree, ["apply", "--keep-going", profile]).expect(0);
        for tx in 0..4 {
            // TX queue q completes on CPU 1 or 3, where virtio0-output.q stays.
            let xps = held(&tree, &format!("/sys/class/net/eth0/queues/tx-{tx}/xps_cpus"));
            let completes = held(&tree, &format!("/proc/irq/{}/smp_affinity_list", 26 + 2 * tx));
            let follows = CpuSet::parse_mask(&xps).unwrap() == completes.trim().parse().unwrap();
            assert_eq!(follows, [0, 3].contains(&tx), "tx-{tx}: {xps}, {completes}");
        }
        run(&tree, ["restore"]).expect(0);
        assert_same_values(&contents(&tree), &before);
    }
}

/// mlnx sysctl_perf_tuning and what is copied from it.
#[test]
fn mlnx_sysctls_that_harm_or_have_no_effect_are_in_no_shipped_profile() {
    let profiles = common::names(&common::repository().join("profiles"), |path| {
        path.extension().is_some_and(|extension| extension == "toml")
    });
    assert!(profiles.len() >= 3);
    const HARMFUL: &str = "tcp_timestamps tcp_sack tcp_low_latency tcp_tw_recycle tcp_fack tcp_mem \
                           tcp_fin_timeout rmem_default wmem_default netdev_max_backlog";
    for name in profiles {
        let parsed = Profile::parse(&fs::read_to_string(profile(&name)).unwrap(), &name).unwrap();
        for sysctl in parsed.sysctl_names() {
            let last = sysctl.as_str().rsplit('.').next().unwrap();
            assert!(!HARMFUL.split(' ').any(|harmful| harmful == last), "{name}: {sysctl}");
        }
    }
}
