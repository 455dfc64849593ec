//! Placement on large hosts: every policy on trees of 128, 256 and 1152 CPUs with several NICs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tune::cpu_set::{Cpu, CpuSet};
use tune::host::{Host, InterfaceChoice, InterfaceName, Irq, QueueIndex, ToldMap};
use tune::kernel_files::KernelFiles;
use tune::profile::Profile;
use tune::setting::Setting;

/// A host of `nodes` nodes of `caches` caches of `cores` cores of two threads, with `nics` ixgbe interfaces
/// of `queues` queues, on the nodes in turn. Thread t of core c is CPU c + t * cores of the host.
#[derive(Debug, Clone, Copy)]
struct Machine {
    nodes: u32,
    caches: u32,
    cores: u32,
    nics: u32,
    queues: u32,
}

const SMALL: Machine = Machine { nodes: 2, caches: 4, cores: 8, nics: 2, queues: 64 };
const MIDDLE: Machine = Machine { nodes: 2, caches: 8, cores: 8, nics: 3, queues: 48 };
const LARGE: Machine = Machine { nodes: 8, caches: 9, cores: 8, nics: 4, queues: 94 };

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("{text}\n")).unwrap();
}

impl Machine {
    fn all_cores(self) -> u32 {
        self.nodes * self.caches * self.cores
    }

    fn cpus(self) -> u32 {
        2 * self.all_cores()
    }

    fn node(self, cpu: Cpu) -> u32 {
        cpu % self.all_cores() / (self.caches * self.cores)
    }

    fn cache(self, cpu: Cpu) -> u32 {
        cpu % self.all_cores() / self.cores
    }

    fn irq(self, nic: u32, queue: u32) -> u32 {
        100 + nic * 1000 + queue
    }

    fn set(self, keep: impl Fn(Cpu) -> bool) -> CpuSet {
        (0..self.cpus()).filter(|&cpu| keep(cpu)).collect()
    }

    fn write_topology(self, root: &Path) {
        let all = self.set(|_| true).to_string();
        for file in ["online", "possible"] {
            write(root, &format!("sys/devices/system/cpu/{file}"), &all);
        }
        let of_cache = |cache| self.set(|cpu| self.cache(cpu) == cache).to_string();
        let shared: Vec<String> = (0..self.nodes * self.caches).map(of_cache).collect();
        for cpu in 0..self.cpus() {
            let base = format!("sys/devices/system/cpu/cpu{cpu}");
            let core = cpu % self.all_cores();
            let siblings = format!("{core},{}", core + self.all_cores());
            write(root, &format!("{base}/topology/thread_siblings_list"), &siblings);
            write(root, &format!("{base}/cache/index3/shared_cpu_list"), &shared[self.cache(cpu) as usize]);
        }
        for node in 0..self.nodes {
            let base = format!("sys/devices/system/node/node{node}");
            write(root, &format!("{base}/cpulist"), &self.set(|cpu| self.node(cpu) == node).to_string());
            let distances: Vec<&str> =
                (0..self.nodes).map(|other| if other == node { "10" } else { "21" }).collect();
            write(root, &format!("{base}/distance"), &distances.join(" "));
        }
    }

    fn write_nic(self, root: &Path, nic: u32, interrupts: &mut String) {
        let counts = "          0".repeat(self.cpus() as usize);
        let pci = format!("pci0000:{nic:02x}/0000:{nic:02x}:00.0");
        let device = format!("sys/devices/{pci}");
        let net = format!("{device}/net/eth{nic}");
        write(root, &format!("{device}/numa_node"), &(nic % self.nodes).to_string());
        for queue in 0..self.queues {
            let irq = self.irq(nic, queue);
            write(root, &format!("{device}/msi_irqs/{irq}"), "msix");
            write(root, &format!("proc/irq/{irq}/smp_affinity_list"), &format!("0-{}", self.cpus() - 1));
            writeln!(
                interrupts,
                "{irq:>5}:{counts}  IR-PCI-MSIX-0000:{nic:02x}:00.0 {queue}-edge eth{nic}-TxRx-{queue}"
            )
            .unwrap();
            write(root, &format!("{net}/queues/rx-{queue}/rps_cpus"), "0");
            write(root, &format!("{net}/queues/tx-{queue}/xps_cpus"), "0");
        }
        fs::create_dir_all(root.join("sys/class/net")).unwrap();
        symlink(format!("../../devices/{pci}/net/eth{nic}"), root.join(format!("sys/class/net/eth{nic}")))
            .unwrap();
        symlink("../..", root.join(&net).join("device")).unwrap();
        symlink("/sys/bus/pci/drivers/ixgbe", root.join(&device).join("driver")).unwrap();
    }

    fn write_tree(self, root: &Path) {
        self.write_topology(root);
        let head: Vec<String> = (0..self.cpus()).map(|cpu| format!("CPU{cpu}")).collect();
        let mut interrupts = format!("      {}\n", head.join(" "));
        (0..self.nics).for_each(|nic| self.write_nic(root, nic, &mut interrupts));
        write(root, "proc/interrupts", interrupts.trim_end());
    }
}

/// What a plan makes of the files of one interface: the CPU of each queue, the CPUs that send, and those of
/// RPS.
struct Placed {
    own: Vec<Cpu>,
    xps: Vec<CpuSet>,
    rps: Vec<CpuSet>,
}

fn plan(machine: Machine, host: &Host, profile: &str) -> Vec<Placed> {
    let desired = tune::plan::plan(&Profile::parse(profile, "p").unwrap(), host).unwrap();
    assert!(desired.settings.keys().all(|setting| desired.reasons.contains_key(setting)));
    let cpus = |setting: &Setting| desired.settings[setting].cpus().unwrap().clone();
    (0..machine.nics)
        .map(|nic| {
            let name: InterfaceName = format!("eth{nic}").parse().unwrap();
            let queues = || (0..machine.queues).map(QueueIndex);
            let own = queues().map(|queue| {
                let cpus = cpus(&Setting::IrqAffinity(Irq(machine.irq(nic, queue.0))));
                assert_eq!(cpus.len(), 1);
                cpus.first().unwrap()
            });
            Placed {
                own: own.collect(),
                xps: queues().map(|queue| cpus(&Setting::XpsCpus(name.clone(), queue))).collect(),
                rps: queues().map(|queue| cpus(&Setting::RpsCpus(name.clone(), queue))).collect(),
            }
        })
        .collect()
}

fn union(sets: &[CpuSet]) -> CpuSet {
    sets.iter().flat_map(|set| set.iter().collect::<Vec<_>>()).collect()
}

/// What holds for every policy: no CPU outside of `cpus` has an interrupt or RPS, each interface reaches all
/// of them, all workers send, and the interfaces share the CPUs.
fn check(machine: Machine, placed: &[Placed], cpus_of: impl Fn(u32) -> CpuSet, workers: &CpuSet) {
    for (nic, Placed { own, xps, rps }) in (0..).zip(placed) {
        let cpus = cpus_of(nic);
        for (queue, cpu) in own.iter().enumerate() {
            assert!(cpus.contains(*cpu), "{machine:?} eth{nic} queue {queue} on {cpu}");
            assert!(rps[queue].is_subset(&cpus) && (rps[queue].is_empty() || rps[queue].contains(*cpu)));
            assert!(xps[queue].contains(*cpu), "completions come to a sender");
        }
        let own: CpuSet = own.iter().copied().collect();
        let reached: CpuSet = own.iter().chain(union(rps).iter()).collect();
        assert_eq!(reached, cpus, "{machine:?} eth{nic}");
        assert_eq!(union(xps), workers.iter().chain(cpus.iter()).collect(), "{machine:?} eth{nic}");
        assert_eq!(own.len(), cpus.len().min(machine.queues as usize), "no CPU twice while another has none");
    }
    let mut load: BTreeMap<Cpu, usize> = BTreeMap::new();
    placed.iter().flat_map(|placed| &placed.own).for_each(|cpu| *load.entry(*cpu).or_default() += 1);
    let most = *load.values().max().unwrap();
    let total: usize = placed.iter().map(|placed| placed.own.len()).sum();
    let cpus: CpuSet = (0..machine.nics).flat_map(|nic| cpus_of(nic).iter().collect::<Vec<_>>()).collect();
    assert!(
        most <= total.div_ceil(cpus.len()) + 1,
        "{machine:?}: {most} queues on one CPU, {total} on {cpus}"
    );
}

#[test]
fn every_policy_on_128_256_and_1152_cpus() {
    for (machine, cpus) in [(SMALL, 128), (MIDDLE, 256), (LARGE, 1152)] {
        assert_eq!(machine.cpus(), cpus);
        let tree = tempfile::tempdir().unwrap();
        machine.write_tree(tree.path());
        let all = machine.set(|_| true);
        let names = (0..machine.nics).map(|nic| format!("eth{nic}").parse().unwrap()).collect();
        let files = KernelFiles::open(tree.path()).unwrap();
        let host = Host::read(&files, &InterfaceChoice::Several(names), &[], &ToldMap::default()).unwrap();
        assert_eq!(host.topology.cpus.len(), cpus as usize);
        let placed = |profile: &str| plan(machine, &host, profile);
        let policy = |placement: &str| placed(&format!("[queues]\nplacement = {placement}"));

        check(machine, &policy("\"one-per-core\""), |_| all.clone(), &all);
        let first_threads = machine.set(|cpu| cpu < machine.all_cores());
        let half = placed(&format!("cpus = \"{first_threads}\""));
        check(machine, &half, |_| first_threads.clone(), &first_threads);

        let spread = policy("\"spread\"");
        check(machine, &spread, |_| all.clone(), &all);
        for Placed { own, .. } in &spread {
            let nodes: BTreeSet<u32> =
                own[..machine.nodes as usize].iter().map(|&cpu| machine.node(cpu)).collect();
            assert_eq!(
                nodes.len(),
                machine.nodes as usize,
                "the first queues are on different nodes: {own:?}"
            );
            let domains = (machine.nodes * machine.caches).min(machine.queues);
            let caches: BTreeSet<u32> = own.iter().map(|&cpu| machine.cache(cpu)).collect();
            assert!(caches.len() >= domains as usize, "{machine:?}: {caches:?}");
        }

        let local = |nic| machine.set(|cpu| machine.node(cpu) == nic % machine.nodes);
        check(machine, &policy("\"numa-local\""), local, &all);
        let pack: CpuSet = (0..16).collect();
        check(machine, &policy("{ pack = \"0-15\" }"), |_| pack.clone(), &all);
    }
}
