//! Which queue belongs to which CPUs. Pure.
//!
//! *As many queues as CPUs or more*: the queues take the CPUs in turn, those first that have the fewest
//! queues of the interfaces before, and of these in the order of the policy.
//!
//! *Fewer queues than CPUs*: every CPU must belong to a queue. The cores are split into one group per queue
//! as the policy says; a core is split only where there are more queues than cores. The queue's own CPU is
//! the one of its group that has the fewest queues of the interfaces before, and whose core has; else the
//! first thread of the first core.
//!
//! | policy | order | groups |
//! |---|---|---|
//! | by distance | node of the NIC first, then the others by distance; in a node the first thread of each core before the second; then by number | even: sizes differ by one core at most; within a cache or a node where the numbers allow it |
//! | spread | in turn over the nodes, in a node over the caches, in a cache the first thread of each core first | within a node, within a cache where there are enough queues; their sizes follow the nodes' and caches' |
//!
//! An interface on PCI functions in several nodes (multi-PF) has its queues near their own functions: see
//! [`functions`]. Queues whose interrupts stay where they are go by those: see [`given`].

mod functions;
mod given;
mod groups;

use std::collections::BTreeMap;

use crate::cpu_set::{Cpu, CpuSet};
use crate::host::{CpuPlace, Topology};
pub(super) use functions::layout_on_functions;
pub(super) use given::follow;
use groups::{even, interleave, within_domains};

/// The CPUs of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The queue's own CPU: where its interrupts fire.
    pub(super) cpu: Cpu,
    /// Its group of CPUs, `cpu` among them unless its interrupts stay elsewhere ([`follow`]). With as many
    /// queues as CPUs it is one CPU.
    pub(super) group: CpuSet,
    /// The CPUs that send on it: the group, and those of the workers that no group has.
    pub(super) senders: CpuSet,
    /// Why `cpu` and `group`.
    pub(super) why: String,
}

/// What queues are laid on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) topology: &'a Topology,
    /// The NUMA node of the NIC, or of one of its PCI functions.
    pub(super) node: Option<u32>,
    /// Of which of the two: `NIC` or `function`.
    pub(super) owner: &'static str,
    /// The CPUs that have interrupts and packet processing.
    pub(super) cpus: &'a CpuSet,
    /// Over the nodes and caches instead of by distance.
    pub(super) spread: bool,
}

/// How many queues each CPU and each core has of the interfaces that are laid out already.
#[derive(Debug, Clone, Default)]
pub(super) struct Occupancy {
    cpus: BTreeMap<Cpu, usize>,
    cores: BTreeMap<Cpu, usize>,
}

impl Occupancy {
    /// Counts the own CPUs of these layouts.
    pub(super) fn add(&mut self, topology: &Topology, layouts: &[Layout]) {
        let cores: BTreeMap<Cpu, Cpu> = topology.cpus.iter().map(|place| (place.cpu, place.core)).collect();
        for Layout { cpu, .. } in layouts {
            *self.cpus.entry(*cpu).or_default() += 1;
            *self.cores.entry(cores.get(cpu).copied().unwrap_or(*cpu)).or_default() += 1;
        }
    }

    fn of(&self, cpu: Cpu) -> usize {
        self.cpus.get(&cpu).copied().unwrap_or_default()
    }

    fn of_core(&self, core: Cpu) -> usize {
        self.cores.get(&core).copied().unwrap_or_default()
    }
}

/// Lays queues 0 to `queues` - 1 on CPUs; nothing without CPUs.
pub(super) fn layout(ground: &Ground, queues: usize, taken: &Occupancy) -> Vec<Layout> {
    let mut places = ground.places();
    if places.is_empty() || queues == 0 {
        return Vec::new();
    }
    if queues >= places.len() {
        let count = places.len();
        let mut order = ground.order(places);
        order.sort_by_key(|place| taken.of(place.cpu));
        let own = order.into_iter().cycle().take(queues);
        return own.map(|place| ground.alone(place, queues, count, taken)).collect();
    }
    places.sort_by_key(|place| (ground.nearness(place), place.llc, place.core, place.thread, place.cpu));
    let cores: Vec<&[&CpuPlace]> = places.chunk_by(|a, b| a.core == b.core).collect();
    let groups = if ground.spread { within_domains(&cores, queues) } else { even(&cores, queues) };
    groups.iter().filter_map(|group| ground.grouped(group, queues, places.len(), taken)).collect()
}

/// The layouts of the first `queues`: the CPUs of those left out go to the queues that stay, in turn, so that
/// every CPU keeps a queue.
pub(super) fn fold(layouts: &[Layout], queues: usize) -> Vec<Layout> {
    let fold = |queue: usize| {
        let all = || layouts.iter().skip(queue).step_by(queues);
        Layout {
            group: all().flat_map(|layout| layout.group.iter()).collect(),
            senders: all().flat_map(|layout| layout.senders.iter()).collect(),
            ..layouts[queue].clone()
        }
    };
    (0..queues.min(layouts.len())).map(fold).collect()
}

/// Gives each of these CPUs, which no group has, a queue to send on: one on its core, else in its cache, else
/// in its node, else on the nearest one; of several that with the fewest senders.
pub(super) fn add_senders(layouts: &mut [Layout], topology: &Topology, others: &CpuSet) {
    let places: BTreeMap<Cpu, &CpuPlace> = topology.cpus.iter().map(|place| (place.cpu, place)).collect();
    for place in others.iter().filter_map(|cpu| places.get(&cpu)) {
        let nearest = layouts.iter_mut().min_by_key(|layout| {
            let step = places.get(&layout.cpu).map_or(u32::MAX, |own| {
                if own.core == place.core {
                    0
                } else if own.llc == place.llc {
                    1
                } else {
                    2 + topology.distance(own.node, place.node)
                }
            });
            (step, layout.senders.len())
        });
        if let Some(layout) = nearest {
            layout.senders.insert(place.cpu);
        }
    }
}

impl<'a> Ground<'a> {
    fn places(&self) -> Vec<&'a CpuPlace> {
        self.topology.cpus.iter().filter(|place| self.cpus.contains(place.cpu)).collect()
    }

    /// How near a CPU is to the NIC, and its node.
    fn nearness(&self, place: &CpuPlace) -> (u32, Option<u32>) {
        (self.topology.distance(self.node, place.node), place.node)
    }

    /// The CPUs in the order in which they get queues.
    fn order(&self, mut places: Vec<&'a CpuPlace>) -> Vec<&'a CpuPlace> {
        if !self.spread {
            places.sort_by_key(|place| (self.nearness(place), place.thread, place.cpu));
            return places;
        }
        places.sort_by_key(|place| (self.nearness(place), place.llc, place.thread, place.cpu));
        let nodes = places.chunk_by(|a, b| a.node == b.node);
        interleave(
            nodes
                .map(|node| interleave(node.chunk_by(|a, b| a.llc == b.llc).map(<[_]>::to_vec).collect()))
                .collect(),
        )
    }

    fn alone(&self, place: &CpuPlace, queues: usize, cpus: usize, taken: &Occupancy) -> Layout {
        let group = CpuSet::from_iter([place.cpu]);
        let why = format!(
            "{}: {}, {}{}",
            self.describe(place),
            for_cpus(queues, "queue", cpus),
            self.describe_order(),
            others(taken.of(place.cpu))
        );
        Layout { cpu: place.cpu, senders: group.clone(), group, why }
    }

    fn grouped(&self, group: &[&CpuPlace], queues: usize, cpus: usize, taken: &Occupancy) -> Option<Layout> {
        let own = group
            .iter()
            .min_by_key(|place| (taken.of(place.cpu), taken.of_core(place.core), place.thread, place.cpu))?;
        let set: CpuSet = group.iter().map(|place| place.cpu).collect();
        let why = format!(
            "{} of its group {set} ({}): {}{}",
            self.describe(own),
            extent(group),
            for_cpus(queues, "queue", cpus),
            others(taken.of(own.cpu))
        );
        Some(Layout { cpu: own.cpu, senders: set.clone(), group: set, why })
    }

    fn describe(&self, place: &CpuPlace) -> String {
        let owner = self.owner;
        let node = match (place.node, self.node) {
            (None, _) => "node unknown".to_owned(),
            (Some(node), None) => format!("node {node}"),
            (Some(node), Some(own)) if node == own => format!("node {node}, the {owner}'s"),
            (Some(node), Some(own)) => format!("node {node}, the {owner} is on {own}"),
        };
        format!("CPU {} (thread {} of core {}, {node})", place.cpu, place.thread, place.core)
    }

    fn describe_order(&self) -> String {
        let owner = self.owner;
        match (self.spread, self.node) {
            (true, _) => "in turn over the nodes and caches".to_owned(),
            (false, Some(_)) => format!("the {owner}'s node first, one thread of each core first"),
            (false, None) => format!("the {owner}'s node is not known, one thread of each core first"),
        }
    }
}

/// `2 queues for 8 CPUs`.
pub(super) fn for_cpus(queues: usize, noun: &str, cpus: usize) -> String {
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    format!("{queues} {noun}{} for {cpus} CPU{}", plural(queues), plural(cpus))
}

fn others(taken: usize) -> String {
    match taken {
        0 => String::new(),
        1 => "; 1 queue of the interfaces before is there too".to_owned(),
        taken => format!("; {taken} queues of the interfaces before are there too"),
    }
}

/// What holds all of these CPUs.
pub(super) fn extent_of(topology: &Topology, cpus: &CpuSet) -> &'static str {
    let places: Vec<&CpuPlace> = topology.cpus.iter().filter(|place| cpus.contains(place.cpu)).collect();
    extent(&places)
}

/// What holds all CPUs of a group.
fn extent(group: &[&CpuPlace]) -> &'static str {
    let same = |key: fn(&CpuPlace) -> u64| group.windows(2).all(|pair| key(pair[0]) == key(pair[1]));
    if same(|place| place.core.into()) {
        "one core"
    } else if same(|place| place.llc.into()) {
        "one last level cache"
    } else if same(groups::node) {
        "one node"
    } else {
        "several nodes"
    }
}

#[cfg(test)]
mod tests;
