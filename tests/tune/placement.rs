//! What a plan must say, read from the host tree and the planned changes alone: one queue, one interrupt, one
//! CPU per worker; CPUs of the NIC's node first; XPS one to one; RPS off; nothing else touched. Independent
//! of the expected plans in `tests/plans`, so that a wrong expectation is found as well.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{canonical, held, host, profile, run};
use tune::cpu_set::{Cpu, CpuSet};

/// A host tree as it would read after the plan.
struct Planned {
    root: PathBuf,
    interface: String,
    after: BTreeMap<String, String>,
}

impl Planned {
    /// Plans, and checks what holds for every change: the file exists, `before` is what it holds, `after`
    /// differs.
    fn new(host_name: &str, profile_name: &str, options: &[&str]) -> Self {
        let root = host(host_name);
        let profile = profile(profile_name);
        let arguments = ["plan", "--json"].into_iter().chain(options.iter().copied());
        let plan = run(&root, arguments.chain([profile.to_str().unwrap()])).expect(2).json();
        assert_eq!(plan["schema"], 1);
        let mut after = BTreeMap::new();
        for change in plan["changes"].as_array().unwrap() {
            let text =
                |key: &str| change[key].as_str().unwrap_or_else(|| panic!("{key} of {change}")).to_owned();
            let found = held(&root, &text("path"));
            assert_eq!(canonical(&text("path"), &found), text("before"), "{change}");
            assert_ne!(text("before"), text("after"), "{change}");
            assert_eq!(canonical(&text("path"), &text("after")), text("after"), "kernel syntax: {change}");
            assert!(after.insert(text("path"), text("after")).is_none(), "twice: {change}");
        }
        let interface = plan["interfaces"][0].as_str().unwrap().to_owned();
        Self { root, interface, after }
    }

    /// What the file holds after the plan.
    fn value(&self, path: &str) -> String {
        let found = || fs::read_to_string(self.root.join(&path[1..])).unwrap();
        self.after.get(path).cloned().unwrap_or_else(|| canonical(path, &found()))
    }

    fn affinity(&self, irq: u32) -> CpuSet {
        CpuSet::parse_list(&self.value(&format!("/proc/irq/{irq}/smp_affinity_list"))).unwrap()
    }

    fn queue_file(&self, queue: &str, file: &str) -> String {
        format!("/sys/class/net/{}/queues/{queue}/{file}", self.interface)
    }

    fn xps(&self, queue: u32) -> CpuSet {
        CpuSet::parse_mask(&self.value(&self.queue_file(&format!("tx-{queue}"), "xps_cpus"))).unwrap()
    }

    fn rps(&self, queue: u32) -> CpuSet {
        CpuSet::parse_mask(&self.value(&self.queue_file(&format!("rx-{queue}"), "rps_cpus"))).unwrap()
    }

    fn sysctl(&self, name: &str) -> String {
        self.value(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    /// Asserts that only these interrupts, this interface and sysctls are written, and that of irqbalance,
    /// which leaves IRQ 24 alone where it runs, the same interrupts are asked for.
    fn assert_touches_only(&self, irqs: &[u32]) {
        let queues = format!("/sys/class/net/{}/queues/", self.interface);
        if let Some(banned) = self.after.get("irqbalance/banned_irqs") {
            let expected: BTreeSet<u32> = irqs.iter().copied().chain([24]).collect();
            assert_eq!(
                banned.split(' ').map(|irq| irq.parse().unwrap()).collect::<BTreeSet<u32>>(),
                expected
            );
        }
        let irqs: BTreeSet<String> =
            irqs.iter().map(|irq| format!("/proc/irq/{irq}/smp_affinity_list")).collect();
        for path in self.after.keys() {
            let ours = path.starts_with(&queues)
                || irqs.contains(path)
                || path == "irqbalance/banned_irqs"
                || path.starts_with("/proc/sys/net/");
            assert!(ours, "{path} is none of the plan's business");
        }
    }
}

fn node_of(root: &Path, node: u32) -> CpuSet {
    let path = root.join(format!("sys/devices/system/node/node{node}/cpulist"));
    CpuSet::parse_list(&fs::read_to_string(path).unwrap()).unwrap()
}

fn single(set: &CpuSet) -> Cpu {
    assert_eq!(set.len(), 1, "{set}");
    set.first().unwrap()
}

/// Queue q of the 48 has the interrupt `first_irq + q`; the NIC is on `node`.
fn assert_one_queue_one_interrupt_one_cpu(planned: &Planned, first_irq: u32, node: u32) {
    let cpus: Vec<Cpu> = (0..48).map(|queue| single(&planned.affinity(first_irq + queue))).collect();
    assert_eq!(cpus.iter().copied().collect::<CpuSet>().to_string(), "0-47", "every worker has a queue");

    let local = node_of(&planned.root, node);
    let (first, rest) = cpus.split_at(local.len());
    assert_eq!(first.iter().copied().collect::<CpuSet>(), local, "the NIC's node comes first");
    for half in [first, rest] {
        let cores: BTreeSet<Cpu> = half[..12].iter().map(|cpu| cpu % 24).collect();
        assert_eq!(cores.len(), 12, "one thread of each of the 12 cores of a node first: {half:?}");
    }
    for (queue, &cpu) in (0..48).zip(&cpus) {
        assert_eq!(single(&planned.xps(queue)), cpu, "tx-{queue}");
        assert!(planned.rps(queue).is_empty(), "rx-{queue}");
        assert_eq!(planned.value(&planned.queue_file(&format!("rx-{queue}"), "rps_flow_cnt")), "0");
    }
    let irqs: Vec<u32> = (first_irq..first_irq + 48).collect();
    planned.assert_touches_only(&irqs);
}

#[test]
fn forty_gig_on_i40e() {
    let planned = Planned::new("i40e-48cpu", "40g.toml", &[]);
    assert_eq!(planned.interface, "eth0");
    assert_one_queue_one_interrupt_one_cpu(&planned, 121, 1);
    assert_eq!(planned.sysctl("net.core.somaxconn"), "4096");
    assert_eq!(planned.sysctl("net.ipv4.tcp_migrate_req"), "1");
    assert_eq!(planned.sysctl("net.ipv4.tcp_rmem"), "4096 131072 16777216");
    assert_eq!(planned.sysctl("net.ipv4.tcp_wmem"), "4096 16384 16777216");
    assert_eq!(planned.sysctl("net.ipv4.tcp_slow_start_after_idle"), "0");
}

#[test]
fn forty_gig_on_mlx5_beside_a_function_with_the_same_vector_names() {
    let planned = Planned::new("mlx5-48cpu", "40g.toml", &[]);
    assert_eq!(planned.interface, "enp59s0f0np0");
    assert_one_queue_one_interrupt_one_cpu(&planned, 101, 0);
    assert_eq!(planned.sysctl("net.core.somaxconn"), "65535", "never lowered");
    assert_eq!(planned.sysctl("net.ipv4.tcp_rmem"), "4096 131072 33554432", "never lowered");
    assert_eq!(planned.sysctl("net.ipv4.tcp_wmem"), "4096 65536 16777216", "raised number by number");
    assert_eq!(planned.sysctl("net.core.rps_sock_flow_entries"), "98304", "not named by the profile");
}

/// The second function of the mlx5 card: 8 queues for 48 CPUs.
#[test]
fn with_fewer_queues_than_cpus_each_queue_serves_a_group_of_one_node() {
    let planned = Planned::new("mlx5-48cpu", "40g.toml", &["--interface", "enp59s0f1np1"]);
    let irqs = [91, 92, 93, 94, 160, 161, 162, 163];
    let nodes = [node_of(&planned.root, 0), node_of(&planned.root, 1)];
    let mut served = BTreeSet::new();
    for (queue, irq) in (0..8).zip(irqs) {
        let group = planned.rps(queue);
        assert_eq!(group.len(), 6, "48 CPUs over 8 queues: rx-{queue} {group}");
        assert!(nodes.iter().any(|node| group.is_subset(node)), "one node: rx-{queue} {group}");
        assert_eq!(planned.xps(queue), group, "tx-{queue}");
        assert!(planned.affinity(irq).is_subset(&group), "IRQ {irq} of queue {queue}");
        single(&planned.affinity(irq));
        assert!(group.iter().all(|cpu| served.insert(cpu)), "a CPU has one queue: {group}");
    }
    assert_eq!(served.len(), 48, "every CPU has a queue");
    planned.assert_touches_only(&irqs);
}

#[test]
fn with_more_queues_than_cpus_the_queues_go_round() {
    let planned = Planned::new("i40e-48cpu", "auto.toml", &["--cpus", "12-15"]);
    let cpus: Vec<Cpu> = (0..48).map(|queue| single(&planned.affinity(121 + queue))).collect();
    for (queue, &cpu) in (0..48).zip(&cpus) {
        assert_eq!(cpu, cpus[queue % 4], "queue {queue}");
        assert!(planned.rps(u32::try_from(queue).unwrap()).is_empty());
    }
    assert_eq!(cpus[..4].iter().copied().collect::<CpuSet>().to_string(), "12-15");
}

#[test]
fn receive_and_transmit_interrupt_of_a_virtio_queue_share_a_cpu() {
    let planned = Planned::new("virtio-2cpu", "auto.toml", &[]);
    assert_eq!(single(&planned.affinity(38)), single(&planned.affinity(39)));
    assert_eq!(planned.rps(0).to_string(), "0-1", "one queue for two CPUs");
    assert!(
        !planned.after.keys().any(|path| path.ends_with("xps_cpus")),
        "a device with one queue has no XPS"
    );
    planned.assert_touches_only(&[38, 39]);
}

#[test]
fn a_list_of_cpus_on_the_command_line_takes_the_place_of_the_profile_s() {
    let planned = Planned::new("i40e-48cpu", "auto.toml", &["--cpus", "0-11"]);
    let cpus: CpuSet = (0..48).map(|queue| single(&planned.affinity(121 + queue))).collect();
    assert_eq!(cpus.to_string(), "0-11");
}
