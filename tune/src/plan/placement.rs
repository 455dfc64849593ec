//! Which queue belongs to which CPUs. Pure.
//!
//! *As many queues as CPUs or more*: queue q takes CPU q mod N of the CPUs in this order: the NIC's NUMA node
//! first, then the others by distance; within a node the first thread of each core before the second; then by
//! number.
//!
//! *Fewer queues than CPUs*: every CPU must belong to a queue. The cores, in the order of node, last level cache and
//! number, are split evenly into one run per queue, so that a run stays within a cache or a node where the
//! numbers allow it and never splits a core; with more queues than cores the threads of some cores are
//! split. The queue's own CPU is the first thread of its run.

use crate::cpu_set::{Cpu, CpuSet};
use crate::host::{CpuPlace, Topology};

/// The CPUs of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The queue's own CPU: where its interrupts fire.
    pub(super) cpu: Cpu,
    /// Its group of CPUs, `cpu` among them. With as many queues as CPUs it is `cpu` alone.
    pub(super) group: CpuSet,
}

/// Lays queues 0 to `queues` - 1 on CPUs, `nic_node` first.
pub(super) fn layout(
    topology: &Topology,
    nic_node: Option<u32>,
    cpus: &CpuSet,
    queues: usize,
) -> Vec<Layout> {
    let mut places: Vec<&CpuPlace> = topology.cpus.iter().filter(|place| cpus.contains(place.cpu)).collect();
    if places.is_empty() || queues == 0 {
        return Vec::new();
    }
    let node = |place: &CpuPlace| (topology.distance(nic_node, place.node), place.node);
    if queues >= places.len() {
        places.sort_by_key(|place| (node(place), place.thread, place.cpu));
        let own = places.iter().cycle().take(queues);
        return own.map(|place| Layout { cpu: place.cpu, group: CpuSet::from_iter([place.cpu]) }).collect();
    }
    places.sort_by_key(|place| (node(place), place.llc, place.core, place.thread, place.cpu));
    let cores: Vec<&[&CpuPlace]> = places.chunk_by(|a, b| a.core == b.core).collect();
    let runs: Vec<Vec<&CpuPlace>> = if queues <= cores.len() {
        split(&cores, queues).map(<[_]>::concat).collect()
    } else {
        split_cores(&cores, queues)
    };
    runs.iter().filter_map(|run| of_run(run)).collect()
}

/// The layouts of the first `queues`: the CPUs of those left out go to the queues that stay, in turn, so that every
/// CPU keeps a queue.
pub(super) fn fold(layouts: &[Layout], queues: usize) -> Vec<Layout> {
    let fold = |queue: usize| {
        let group = layouts.iter().skip(queue).step_by(queues).flat_map(|layout| layout.group.iter());
        Layout { cpu: layouts[queue].cpu, group: group.collect() }
    };
    (0..queues.min(layouts.len())).map(fold).collect()
}

/// `items` in `parts` runs whose lengths differ by one at most.
fn split<T>(items: &[T], parts: usize) -> impl Iterator<Item = &[T]> {
    (0..parts).map(move |part| &items[part * items.len() / parts..(part + 1) * items.len() / parts])
}

/// More queues than cores and fewer than threads: a queue more for one core after the other, as far as it has
/// threads.
fn split_cores<'a>(cores: &[&[&'a CpuPlace]], queues: usize) -> Vec<Vec<&'a CpuPlace>> {
    let mut parts = vec![1; cores.len()];
    let mut left = queues - cores.len();
    while left > 0 {
        for (parts, core) in parts.iter_mut().zip(cores) {
            if left > 0 && *parts < core.len() {
                *parts += 1;
                left -= 1;
            }
        }
    }
    let runs = cores.iter().zip(parts).flat_map(|(core, parts)| split(core, parts));
    runs.map(<[_]>::to_vec).collect()
}

fn of_run(run: &[&CpuPlace]) -> Option<Layout> {
    let own = run.iter().min_by_key(|place| (place.thread, place.cpu))?;
    Some(Layout { cpu: own.cpu, group: run.iter().map(|place| place.cpu).collect() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Nodes of `cores` cores of `threads` threads; threads of one core are `nodes * cores` apart, as on x86.
    fn topology(nodes: u32, cores: u32, threads: u32) -> Topology {
        let all = nodes * cores * threads;
        let cpus: Vec<CpuPlace> = (0..all)
            .map(|cpu| {
                let core = cpu % (nodes * cores);
                let node = core / cores;
                CpuPlace { cpu, node: Some(node), core, thread: cpu / (nodes * cores), llc: node * cores }
            })
            .collect();
        let online: CpuSet = (0..all).collect();
        let row = |node| (0..nodes).map(|other| if node == other { 10 } else { 20 }).collect();
        Topology {
            housekeeping: online.clone(),
            online,
            cpus,
            distances: (0..nodes).map(|node| (node, row(node))).collect::<BTreeMap<_, _>>(),
        }
    }

    fn own(layouts: &[Layout]) -> Vec<Cpu> {
        layouts.iter().map(|layout| layout.cpu).collect()
    }

    fn groups(layouts: &[Layout]) -> Vec<String> {
        layouts.iter().map(|layout| layout.group.to_string()).collect()
    }

    #[test]
    fn as_many_queues_as_cpus_begin_on_the_local_node() {
        let topology = topology(2, 24, 1);
        let layouts = layout(&topology, Some(1), &topology.online, 48);
        assert_eq!(own(&layouts), (24..48).chain(0..24).collect::<Vec<_>>());
        assert!(layouts.iter().all(|layout| layout.group.len() == 1));
        let unknown = layout(&topology, None, &topology.online, 48);
        assert_eq!(own(&unknown), (0..48).collect::<Vec<_>>());
    }

    #[test]
    fn one_thread_of_each_core_comes_first() {
        let topology = topology(2, 2, 2);
        let layouts = layout(&topology, Some(0), &topology.online, 8);
        assert_eq!(own(&layouts), [0, 1, 4, 5, 2, 3, 6, 7]);
    }

    #[test]
    fn more_queues_than_cpus_begin_again() {
        let topology = topology(1, 2, 1);
        assert_eq!(own(&layout(&topology, None, &topology.online, 5)), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn fewer_queues_share_the_cores_evenly_without_crossing_a_node() {
        let flat = topology(2, 24, 1);
        let layouts = layout(&flat, Some(1), &flat.online, 8);
        assert_eq!(groups(&layouts), ["24-29", "30-35", "36-41", "42-47", "0-5", "6-11", "12-17", "18-23"]);
        assert_eq!(own(&layouts), [24, 30, 36, 42, 0, 6, 12, 18]);
        let threads = topology(1, 4, 2);
        assert_eq!(groups(&layout(&threads, None, &threads.online, 4)), ["0,4", "1,5", "2,6", "3,7"]);
        assert_eq!(groups(&layout(&threads, None, &threads.online, 3)), ["0,4", "1,5", "2-3,6-7"]);
        assert_eq!(groups(&layout(&threads, None, &threads.online, 6)), ["0", "4", "1", "5", "2,6", "3,7"]);
        assert_eq!(groups(&layout(&threads, None, &threads.online, 1)), ["0-7"]);
    }

    #[test]
    fn folded_layouts_leave_no_cpu_without_a_queue() {
        let topology = topology(1, 8, 1);
        let layouts = layout(&topology, None, &topology.online, 4);
        assert_eq!(fold(&layouts, 4), layouts);
        assert_eq!(groups(&fold(&layouts, 3)), ["0-1,6-7", "2-3", "4-5"]);
        assert_eq!(own(&fold(&layouts, 3)), [0, 2, 4]);
        assert_eq!(groups(&fold(&layouts, 1)), ["0-7"]);
        assert_eq!(fold(&[], 0), []);
    }

    proptest! {
        #[test]
        fn every_cpu_has_a_queue_and_groups_are_even(
            nodes in 1..4u32,
            cores in 1..9u32,
            threads in 1..4u32,
            queues in 1..80usize,
            nic_node in prop::option::of(0..4u32),
            left_out in prop::collection::btree_set(0..96u32, 0..20),
        ) {
            let topology = topology(nodes, cores, threads);
            let cpus = topology.online.difference(&left_out.into_iter().collect());
            let layouts = layout(&topology, nic_node, &cpus, queues);
            if cpus.is_empty() {
                prop_assert!(layouts.is_empty());
                return Ok(());
            }
            prop_assert_eq!(layouts.len(), queues);
            prop_assert!(layouts.iter().all(|layout| layout.group.contains(layout.cpu)));
            let covered: CpuSet = layouts.iter().flat_map(|layout| layout.group.iter().collect::<Vec<_>>()).collect();
            prop_assert_eq!(&covered, &cpus);
            if queues <= cpus.len() {
                let total: usize = layouts.iter().map(|layout| layout.group.len()).sum();
                prop_assert_eq!(total, cpus.len(), "no CPU is in two groups");
            }
        }
    }
}
