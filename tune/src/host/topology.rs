//! CPUs, cores, caches and NUMA nodes, from `/sys/devices/system/{cpu,node}/`.

use std::collections::BTreeMap;

use super::{HostError, allowed, read_optional_as};
use crate::cpu_set::{Cpu, CpuSet};
use crate::kernel_files::KernelFiles;

const CPU: &str = "/sys/devices/system/cpu";
const NODE: &str = "/sys/devices/system/node";

/// Where one CPU sits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuPlace {
    /// The CPU.
    pub cpu: Cpu,
    /// Its NUMA node; `None` where the kernel has no nodes.
    pub node: Option<u32>,
    /// The lowest CPU of its core: threads of one core share it.
    pub core: Cpu,
    /// Its place among the threads of its core, from 0.
    pub thread: u32,
    /// The lowest CPU that shares its last level cache; its core where the kernel describes no caches.
    pub llc: Cpu,
}

/// The CPUs of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// `online`.
    pub online: CpuSet,
    /// `possible`: all that may ever come online; masks have a bit for each.
    pub possible: CpuSet,
    /// `isolated` (`isolcpus=domain`).
    pub isolated: CpuSet,
    /// `nohz_full`.
    pub nohz_full: CpuSet,
    /// Where this process may run, see [`allowed`]; `None` if that is not known.
    pub allowed: Option<CpuSet>,
    /// CPUs to which the kernel lets RPS send packets: without `isolated` (`isolcpus=domain`) and
    /// `nohz_full`.
    pub housekeeping: CpuSet,
    /// The online CPUs in ascending order.
    pub cpus: Vec<CpuPlace>,
    /// Per NUMA node its distances to node 0, 1, … in the order of `nodeN/distance`.
    pub distances: BTreeMap<u32, Vec<u32>>,
}

impl Topology {
    /// Reads the topology. Only `cpu/online` must exist.
    ///
    /// # Errors
    /// If `cpu/online` cannot be read, or any of the files not be understood.
    pub fn read(files: &KernelFiles) -> Result<Self, HostError> {
        let list = |file: &str| read_optional_as(files, &format!("{CPU}/{file}"), parse_maybe_null_list);
        let online = format!("{CPU}/online");
        let online = read_optional_as(files, &online, CpuSet::parse_list)?.ok_or(HostError::NoSysfs)?;
        let possible = list("possible")?.unwrap_or_else(|| online.clone());
        let isolated = list("isolated")?.unwrap_or_default();
        let nohz_full = list("nohz_full")?.unwrap_or_default();
        let nodes = read_nodes(files)?;
        let mut groups = Groups::default();
        let cpus = online.iter().map(|cpu| read_cpu(files, cpu, &nodes, &mut groups));
        let cpus = cpus.collect::<Result<_, _>>()?;
        let distances = read_distances(files, &nodes)?;
        let housekeeping = possible.difference(&isolated).difference(&nohz_full);
        let allowed = allowed::read(files)?;
        Ok(Self { online, possible, isolated, nohz_full, allowed, housekeeping, cpus, distances })
    }

    /// True if a CPU mask sysctl prints all of its value: `dump_cpumask()` in `net/core/sysctl_net_core.c`
    /// has room for 126 characters, and prints a digit for every 4 possible CPUs and a comma for every 32.
    #[must_use]
    pub fn prints_whole_mask(&self) -> bool {
        self.possible.iter().last().is_none_or(|last| last < 448)
    }

    /// How far a CPU's node is from `node`: 0 for the node itself or if either is not known, else the
    /// kernel's distance (10 is local, 20 and more remote), or 255 where it gives none.
    #[must_use]
    pub fn distance(&self, node: Option<u32>, cpu_node: Option<u32>) -> u32 {
        let (Some(node), Some(cpu_node)) = (node, cpu_node) else { return 0 };
        if node == cpu_node {
            return 0;
        }
        let column = self.distances.keys().position(|&known| known == cpu_node);
        let row = self.distances.get(&node);
        row.zip(column).and_then(|(row, column)| row.get(column)).copied().unwrap_or(255)
    }
}

/// A list in which older kernels print `(null)` for none (`nohz_full`).
fn parse_maybe_null_list(text: &str) -> Result<CpuSet, crate::cpu_set::CpuSetError> {
    let text = text.trim();
    CpuSet::parse_list(if text == "(null)" { "" } else { text })
}

fn parse_distances(text: &str) -> Result<Vec<u32>, String> {
    let parse = |word: &str| word.parse().map_err(|_| format!("\"{word}\" is not a distance"));
    text.split_whitespace().map(parse).collect()
}

fn read_nodes(files: &KernelFiles) -> Result<BTreeMap<u32, CpuSet>, HostError> {
    let names = files.list_optional(NODE)?.unwrap_or_default();
    let numbers = names.iter().filter_map(|name| name.strip_prefix("node")?.parse::<u32>().ok());
    let mut nodes = BTreeMap::new();
    for number in numbers {
        let cpus = read_optional_as(files, &format!("{NODE}/node{number}/cpulist"), CpuSet::parse_list)?;
        nodes.insert(number, cpus.unwrap_or_default());
    }
    Ok(nodes)
}

fn read_distances(
    files: &KernelFiles,
    nodes: &BTreeMap<u32, CpuSet>,
) -> Result<BTreeMap<u32, Vec<u32>>, HostError> {
    let mut distances = BTreeMap::new();
    for &node in nodes.keys() {
        let row = read_optional_as(files, &format!("{NODE}/node{node}/distance"), parse_distances)?;
        distances.insert(node, row.unwrap_or_default());
    }
    Ok(distances)
}

/// What the CPUs of one core or one cache say alike, so that it is read of the first of them only.
#[derive(Default)]
struct Groups {
    /// The threads of the core of a CPU.
    siblings: BTreeMap<Cpu, CpuSet>,
    /// The lowest CPU on the last level cache of a CPU.
    llc: BTreeMap<Cpu, Cpu>,
}

fn read_cpu(
    files: &KernelFiles,
    cpu: Cpu,
    nodes: &BTreeMap<u32, CpuSet>,
    groups: &mut Groups,
) -> Result<CpuPlace, HostError> {
    if !groups.siblings.contains_key(&cpu) {
        let path = format!("{CPU}/cpu{cpu}/topology/thread_siblings_list");
        let siblings = read_optional_as(files, &path, CpuSet::parse_list)?.unwrap_or_default();
        groups.siblings.extend(siblings.iter().map(|sibling| (sibling, siblings.clone())));
    }
    let siblings = groups.siblings.get(&cpu);
    let core = siblings.and_then(CpuSet::first).unwrap_or(cpu);
    let before = siblings.map(|siblings| siblings.iter().take_while(|&sibling| sibling < cpu));
    let thread = before.into_iter().flatten().fold(0, |count, _| count + 1);
    let node = nodes.iter().find(|(_, cpus)| cpus.contains(cpu)).map(|(node, _)| *node);
    if !groups.llc.contains_key(&cpu) {
        let shared = read_llc(files, cpu)?.unwrap_or_default();
        let first = shared.first().unwrap_or(core);
        groups.llc.extend(shared.iter().chain([cpu]).map(|other| (other, first)));
    }
    let llc = groups.llc.get(&cpu).copied().unwrap_or(core);
    Ok(CpuPlace { cpu, node, core, thread, llc })
}

/// The CPUs that share the cache of the highest index with `cpu`.
fn read_llc(files: &KernelFiles, cpu: Cpu) -> Result<Option<CpuSet>, HostError> {
    let directory = format!("{CPU}/cpu{cpu}/cache");
    let names = files.list_optional(&directory)?.unwrap_or_default();
    let last = names.iter().filter_map(|name| name.strip_prefix("index")?.parse::<u32>().ok()).max();
    let Some(last) = last else { return Ok(None) };
    let path = format!("{directory}/index{last}/shared_cpu_list");
    read_optional_as(files, &path, CpuSet::parse_list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_nodes() -> Topology {
        Topology {
            online: "0-3".parse().unwrap(),
            housekeeping: "0-3".parse().unwrap(),
            distances: BTreeMap::from([(0, vec![10, 21]), (2, vec![21, 10])]),
            ..Topology::default()
        }
    }

    #[test]
    fn distance_uses_the_order_of_the_nodes_not_their_numbers() {
        let topology = two_nodes();
        assert_eq!(topology.distance(Some(0), Some(2)), 21);
        assert_eq!(topology.distance(Some(2), Some(2)), 0);
        assert_eq!(topology.distance(Some(2), Some(1)), 255);
        assert_eq!(topology.distance(None, Some(2)), 0, "an unknown node prefers none");
    }

    #[test]
    fn null_is_no_cpu() {
        assert!(parse_maybe_null_list("(null)\n").unwrap().is_empty());
        assert!(parse_maybe_null_list("").unwrap().is_empty());
        assert_eq!(parse_maybe_null_list("2-3\n").unwrap().len(), 2);
        assert!(parse_distances("10 x").is_err());
    }
}
