use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Nodes of `cores` cores of `threads` threads; threads of one core are `nodes * cores` apart, as on x86.
pub(super) fn topology(nodes: u32, cores: u32, threads: u32) -> Topology {
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
        ..Topology::default()
    }
}

/// By distance, on a host without other interfaces.
fn layout(topology: &Topology, node: Option<u32>, cpus: &CpuSet, queues: usize) -> Vec<Layout> {
    super::layout(
        &Ground { topology, node, owner: "NIC", cpus, spread: false },
        queues,
        &Occupancy::default(),
    )
}

pub(super) fn own(layouts: &[Layout]) -> Vec<Cpu> {
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

fn spread(topology: &Topology, node: Option<u32>, queues: usize) -> Vec<Layout> {
    let ground = Ground { topology, node, owner: "NIC", cpus: &topology.online, spread: true };
    super::layout(&ground, queues, &Occupancy::default())
}

#[test]
fn spread_goes_round_the_nodes_and_caches() {
    let mut topology = topology(2, 4, 2);
    for place in &mut topology.cpus {
        place.llc = place.core / 2 * 2;
    }
    let all = spread(&topology, Some(1), 16);
    assert_eq!(own(&all), [4, 0, 6, 2, 5, 1, 7, 3, 12, 8, 14, 10, 13, 9, 15, 11]);
    assert_eq!(groups(&spread(&topology, Some(1), 4)), ["4-5,12-13", "0-1,8-9", "6-7,14-15", "2-3,10-11"]);
    assert_eq!(groups(&spread(&topology, None, 2)), ["0-3,8-11", "4-7,12-15"]);
    assert_eq!(groups(&spread(&topology, None, 3)), ["0-1,8-9", "4-7,12-15", "2-3,10-11"]);
    assert_eq!(groups(&spread(&topology, None, 1)), ["0-15"]);
}

#[test]
fn those_without_a_queue_send_on_the_nearest_one() {
    let topology = topology(2, 2, 2);
    let cpus = "0-3".parse().unwrap();
    let mut layouts = layout(&topology, None, &cpus, 4);
    add_senders(&mut layouts, &topology, &"4-7".parse().unwrap());
    let senders: Vec<String> = layouts.iter().map(|layout| layout.senders.to_string()).collect();
    assert_eq!(senders, ["0,4", "1,5", "2,6", "3,7"], "threads of one core");
    let mut layouts = layout(&topology, None, &"0,2".parse().unwrap(), 2);
    add_senders(&mut layouts, &topology, &"1,3,5,7".parse().unwrap());
    let senders: Vec<String> = layouts.iter().map(|layout| layout.senders.to_string()).collect();
    assert_eq!(senders, ["0-1,5", "2-3,7"], "CPUs of one node");
}

#[test]
fn the_thread_whose_core_has_less_takes_the_queue_of_the_next_interface() {
    let topology = topology(1, 2, 2);
    let mut taken = Occupancy::default();
    let ground =
        Ground { topology: &topology, node: None, owner: "NIC", cpus: &topology.online, spread: false };
    let mut next = || {
        let layouts = super::layout(&ground, 1, &taken);
        taken.add(&topology, &layouts);
        layouts[0].cpu
    };
    assert_eq!([next(), next(), next(), next(), next()], [0, 1, 2, 3, 0]);
}

proptest! {
    #[test]
    fn spread_groups_cross_no_node_and_no_cache_where_there_are_enough_queues(
        nodes in 1..5u32,
        caches in 1..4u32,
        cores in 1..5u32,
        threads in 1..3u32,
        queues in 1..60usize,
    ) {
        let mut topology = topology(nodes, caches * cores, threads);
        for place in &mut topology.cpus {
            place.llc = place.core / cores * cores;
        }
        let layouts = spread(&topology, Some(0), queues);
        prop_assert_eq!(layouts.len(), queues);
        let place = |cpu: Cpu| topology.cpus.iter().find(|place| place.cpu == cpu).unwrap();
        for layout in &layouts {
            let of = |key: fn(&CpuPlace) -> u64| {
                layout.group.iter().map(|cpu| key(place(cpu))).collect::<std::collections::BTreeSet<_>>().len()
            };
            prop_assert!(layout.group.contains(layout.cpu));
            prop_assert!(queues < nodes as usize || of(groups::node) == 1);
            prop_assert!(queues < 2 * (nodes * caches) as usize || of(|place| place.llc.into()) == 1);
        }
        let covered: CpuSet = layouts.iter().flat_map(|layout| layout.group.iter().collect::<Vec<_>>()).collect();
        prop_assert_eq!(covered, topology.online);
    }

    #[test]
    fn several_interfaces_load_the_cpus_evenly_and_each_reaches_all(
        nodes in 1..4u32,
        cores in 1..9u32,
        threads in 1..3u32,
        nics in prop::collection::vec((prop::option::of(0..4u32), 1..120usize), 1..6),
        spread in any::<bool>(),
    ) {
        let topology = topology(nodes, cores, threads);
        let cpus = topology.online.len();
        let mut taken = Occupancy::default();
        let mut fewer = 0;
        for &(node, queues) in &nics {
            let ground = Ground { topology: &topology, node, owner: "NIC", cpus: &topology.online, spread };
            let layouts = super::layout(&ground, queues, &taken);
            let reached: CpuSet =
                layouts.iter().flat_map(|layout| layout.group.iter().collect::<Vec<_>>()).collect();
            prop_assert_eq!(&reached, &topology.online);
            let mut own: BTreeMap<Cpu, usize> = topology.online.iter().map(|cpu| (cpu, 0)).collect();
            layouts.iter().for_each(|layout| *own.get_mut(&layout.cpu).unwrap() += 1);
            prop_assert!(own.values().max().unwrap() - own.values().min().unwrap() <= 1);
            taken.add(&topology, &layouts);
            fewer += usize::from(queues < cpus);
        }
        // With a queue for each CPU the difference is one at most. A queue of a group stays in it, so that an
        // interface with fewer queues may add one.
        let loads: Vec<usize> = topology.online.iter().map(|cpu| taken.of(cpu)).collect();
        let spread_of = loads.iter().max().unwrap() - loads.iter().min().unwrap();
        prop_assert!(spread_of <= fewer + usize::from(fewer < nics.len()), "{loads:?}");
    }

    #[test]
    fn equal_interfaces_load_the_cpus_evenly(
        nodes in 1..4u32,
        cores in 1..9u32,
        threads in 1..3u32,
        queues in 1..120usize,
        nics in 1..9usize,
        spread in any::<bool>(),
    ) {
        let topology = topology(nodes, cores, threads);
        let mut taken = Occupancy::default();
        for _ in 0..nics {
            let ground = Ground { topology: &topology, node: Some(0), owner: "NIC", cpus: &topology.online, spread };
            taken.add(&topology, &super::layout(&ground, queues, &taken));
        }
        // Equal interfaces have equal groups, in each of which the CPUs take turns.
        let ground = Ground { topology: &topology, node: Some(0), owner: "NIC", cpus: &topology.online, spread };
        for layout in super::layout(&ground, queues.min(topology.online.len()), &Occupancy::default()) {
            let loads: Vec<usize> = layout.group.iter().map(|cpu| taken.of(cpu)).collect();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        }
    }
}
