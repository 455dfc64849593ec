//! Queues of one interface on PCI functions in several nodes. Pure.
//!
//! mlx5 makes one interface of the functions of a card that has one in each socket (multi-pf-netdev.rst,
//! "Channels distribution"): channel c is on function c modulo their number. Its packets are written to the
//! memory of that function's node, so the queue belongs to a CPU there.

use std::collections::BTreeMap;

use super::{Ground, Layout, Occupancy, layout};
use crate::cpu_set::CpuSet;

/// What a queue's node is the node of.
const OWNER: &str = "function";

/// Lays queues on CPUs near the node of each one's function. As [`layout`], every CPU gets a queue before any
/// gets two; with fewer queues than CPUs those of a function share the CPUs that are nearest to it.
pub(in crate::plan) fn layout_on_functions(
    ground: &Ground,
    nodes: &[Option<u32>],
    taken: &Occupancy,
) -> Vec<Layout> {
    let cpus = ground.places().len();
    if cpus > nodes.len() { shared(ground, nodes, taken) } else { in_rounds(ground, nodes, taken) }
}

/// In each round every CPU is taken once: for a queue the nearest that has the fewest queues of the
/// interfaces before.
fn in_rounds(ground: &Ground, nodes: &[Option<u32>], taken: &Occupancy) -> Vec<Layout> {
    let order = ground.order(ground.places());
    let mut left = Vec::new();
    let mut layouts = Vec::new();
    for &node in nodes {
        if left.is_empty() {
            left.clone_from(&order);
        }
        let cost = |position: &usize| {
            let place = left[*position];
            (taken.of(place.cpu), ground.topology.distance(node, place.node), *position)
        };
        if let Some(nearest) = (0..left.len()).min_by_key(cost) {
            let place = left.remove(nearest);
            layouts.push(Ground { node, owner: OWNER, ..*ground }.alone(
                place,
                nodes.len(),
                order.len(),
                taken,
            ));
        }
    }
    layouts
}

/// Each function's queues on the CPUs that are nearest to it; as on one function where it has more queues
/// than those.
fn shared(ground: &Ground, nodes: &[Option<u32>], taken: &Occupancy) -> Vec<Layout> {
    let mut functions: BTreeMap<Option<u32>, (CpuSet, Vec<usize>)> = BTreeMap::new();
    for (queue, &node) in nodes.iter().enumerate() {
        functions.entry(node).or_default().1.push(queue);
    }
    for place in ground.places() {
        let distance = |node: &Option<u32>| ground.topology.distance(*node, place.node);
        if let Some((_, (cpus, _))) = functions.iter_mut().min_by_key(|(node, _)| distance(node)) {
            cpus.insert(place.cpu);
        }
    }
    if functions.values().any(|(cpus, queues)| queues.len() > cpus.len()) {
        return layout(ground, nodes.len(), taken);
    }
    let mut layouts = BTreeMap::new();
    for (node, (cpus, queues)) in &functions {
        let own = Ground { node: *node, owner: OWNER, cpus, ..*ground };
        layouts.extend(queues.iter().zip(layout(&own, queues.len(), taken)));
    }
    layouts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{own, topology};
    use super::*;

    fn laid(cpus: &str, nodes: &[u32]) -> Vec<Layout> {
        let topology = topology(2, 4, 1);
        let (cpus, nodes): (CpuSet, Vec<_>) =
            (cpus.parse().unwrap(), nodes.iter().copied().map(Some).collect());
        let ground = Ground { topology: &topology, node: Some(0), owner: "NIC", cpus: &cpus, spread: false };
        layout_on_functions(&ground, &nodes, &Occupancy::default())
    }

    proptest! {
        #[test]
        fn every_cpu_is_in_a_group_and_none_has_two_queues_before_every_one_has_one(
            nodes in prop::collection::vec(0..3u32, 1..20),
            cpus in prop::collection::btree_set(0..8u32, 1..8),
        ) {
            let cpus: CpuSet = cpus.into_iter().collect();
            let layouts = laid(&cpus.to_string(), &nodes);
            prop_assert_eq!(layouts.len(), nodes.len());
            let reached: CpuSet = layouts.iter().flat_map(|layout| layout.group.iter()).collect();
            prop_assert_eq!(&reached, &cpus);
            let of = |cpu| layouts.iter().filter(|layout| layout.cpu == cpu).count();
            let (least, most) = (nodes.len() / cpus.len(), nodes.len().div_ceil(cpus.len()));
            prop_assert!(cpus.iter().all(|cpu| (least..=most).contains(&of(cpu))));
        }
    }

    #[test]
    fn with_a_queue_for_each_cpu_each_fires_on_the_node_of_its_function() {
        assert_eq!(own(&laid("0-7", &[0, 1, 0, 1, 0, 1, 0, 1])), [0, 4, 1, 5, 2, 6, 3, 7]);
        let twice = own(&laid("0-1,4-5", &[0, 1, 0, 1, 0, 1, 0, 1]));
        assert_eq!(twice, [0, 4, 1, 5, 0, 4, 1, 5]);
        let uneven = own(&laid("0-3,4", &[0, 1, 0, 1, 0]));
        assert_eq!(uneven, [0, 4, 1, 2, 3], "every CPU has a queue, if of the other function");
    }

    #[test]
    fn with_fewer_queues_than_cpus_the_groups_are_on_the_node_of_their_function() {
        let layouts = laid("0-7", &[0, 1, 0, 1]);
        let groups: Vec<String> = layouts.iter().map(|layout| layout.group.to_string()).collect();
        assert_eq!(groups, ["0-1", "4-5", "2-3", "6-7"]);
        let layouts = laid("0-4", &[0, 1, 0]);
        let groups: Vec<String> = layouts.iter().map(|layout| layout.group.to_string()).collect();
        assert_eq!(groups, ["0-1", "4", "2-3"]);
        let all =
            |layouts: Vec<Layout>| layouts.iter().flat_map(|layout| layout.group.iter()).collect::<CpuSet>();
        assert_eq!(all(laid("0-3", &[0, 1, 0])).to_string(), "0-3", "no CPU near a function: as on one");
    }
}
