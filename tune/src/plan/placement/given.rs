//! Queues whose interrupts stay where they are. Pure.

use super::Layout;
use crate::cpu_set::{Cpu, CpuSet};

/// Whether the first queue may have this layout, which was laid out for the second.
type Suits<'a> = &'a dyn Fn(usize, usize, &Layout) -> bool;

/// Hands the layouts out again, where the interrupts of some queues stay on the CPUs `given`: such a queue
/// gets a layout with that CPU in its group, its own if it is one. Where none is left it keeps a group
/// without its CPU: RPS takes there what it receives. The others keep theirs, or get one that is left, so
/// that every CPU is still served.
pub(in crate::plan) fn follow(layouts: Vec<Layout>, given: &[Option<Cpu>]) -> Vec<Layout> {
    let mut free: Vec<Option<Layout>> = layouts.into_iter().map(Some).collect();
    let mut chosen: Vec<Option<Layout>> = vec![None; free.len()];
    let fits = |queue: usize, layout: &Layout| given[queue].is_some_and(|cpu| layout.group.contains(cpu));
    let preferences: [Suits; 4] = [
        &|queue, of, layout| queue == of && fits(queue, layout),
        &|queue, _, layout| fits(queue, layout),
        &|queue, of, _| queue == of,
        &|_, _, _| true,
    ];
    for suits in preferences {
        for (queue, choice) in chosen.iter_mut().enumerate().filter(|(_, choice)| choice.is_none()) {
            let suits = |(of, layout): (usize, &Option<Layout>)| {
                layout.as_ref().is_some_and(|layout| suits(queue, of, layout))
            };
            if let Some(of) = free.iter().enumerate().position(suits) {
                *choice = free[of].take();
            }
        }
    }
    let stay = |(layout, given): (Layout, &Option<Cpu>)| match *given {
        Some(cpu) => Layout { cpu, why: format!("CPU {cpu}, where its interrupt stays"), ..layout },
        None => layout,
    };
    let mut layouts: Vec<Layout> = chosen.into_iter().flatten().zip(given).map(stay).collect();
    // Whose sends can complete in its own group sends on no queue that completes elsewhere.
    let at_home = |layout: &Layout| layout.group.contains(layout.cpu);
    let served: Vec<CpuSet> =
        layouts.iter().filter(|layout| at_home(layout)).map(|layout| layout.group.clone()).collect();
    for layout in layouts.iter_mut().filter(|layout| !at_home(layout) && served.contains(&layout.group)) {
        layout.senders = CpuSet::new();
    }
    layouts
}

impl Layout {
    /// The CPU of its group that its packets belong to first: its own, unless its interrupt stays elsewhere.
    pub(in crate::plan) fn first_of_group(&self) -> Cpu {
        if self.group.contains(self.cpu) { self.cpu } else { self.group.first().unwrap_or(self.cpu) }
    }

    /// True if its CPU has nothing to hand to others.
    pub(in crate::plan) fn is_alone(&self) -> bool {
        self.group == CpuSet::from_iter([self.cpu])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Groups of the CPUs in turn, the first of each its own.
    fn layouts(groups: &[&str]) -> Vec<Layout> {
        let layout = |group: &&str| {
            let group: CpuSet = group.parse().unwrap();
            Layout { cpu: group.first().unwrap(), senders: group.clone(), group, why: String::new() }
        };
        groups.iter().map(layout).collect()
    }

    /// `CPU:GROUP` of each queue.
    fn followed(groups: &[&str], given: &[Option<Cpu>]) -> Vec<String> {
        let followed = follow(layouts(groups), given);
        followed.iter().map(|layout| format!("{}:{}", layout.cpu, layout.group)).collect()
    }

    #[test]
    fn a_queue_gets_the_group_of_the_cpu_that_its_interrupt_stays_on() {
        let each = ["0", "1", "2", "3"];
        assert_eq!(followed(&each, &[None; 4]), ["0:0", "1:1", "2:2", "3:3"]);
        assert_eq!(followed(&each, &[Some(3), None, None, None]), ["3:3", "1:1", "2:2", "0:0"]);
        assert_eq!(followed(&each, &[Some(1), Some(0), Some(3), Some(2)]), ["1:1", "0:0", "3:3", "2:2"]);
        assert_eq!(followed(&["0-3", "4-7"], &[Some(6), Some(2)]), ["6:4-7", "2:0-3"]);
        assert_eq!(
            followed(&["0", "1", "0", "1"], &[None, Some(0), None, None]),
            ["1:1", "0:0", "0:0", "1:1"]
        );
    }

    #[test]
    fn what_is_left_over_is_received_elsewhere_and_handed_on() {
        let twice = [Some(0), Some(2), Some(0), Some(2)];
        assert_eq!(followed(&["0", "1", "2", "3"], &twice), ["0:0", "2:2", "0:1", "2:3"]);
        assert_eq!(followed(&["0", "1"], &[Some(9), Some(0)]), ["9:1", "0:0"], "no worker's");
        assert_eq!(followed(&["0-3", "4-7"], &[Some(0), Some(1)]), ["0:0-3", "1:4-7"]);
    }

    #[test]
    fn nobody_sends_on_a_queue_that_completes_elsewhere_beside_one_of_its_own() {
        let given: Vec<Option<Cpu>> = (0..8).map(Some).collect();
        let eight = follow(layouts(&["0", "1", "2", "3", "0", "1", "2", "3"]), &given);
        let senders: Vec<String> = eight.iter().map(|layout| layout.senders.to_string()).collect();
        assert_eq!(senders, ["0", "1", "2", "3", "", "", "", ""]);
        let first: Vec<Cpu> = eight.iter().map(Layout::first_of_group).collect();
        assert_eq!(first, [0, 1, 2, 3, 0, 1, 2, 3], "what they receive is the workers'");
        let one_each = follow(layouts(&["0", "1"]), &[Some(9), Some(0)]);
        assert_eq!(one_each[0].senders.to_string(), "1", "it has no other");
    }

    proptest! {
        #[test]
        fn every_group_is_handed_out_once_and_every_given_cpu_is_kept(
            given in prop::collection::vec(prop::option::of(0..12u32), 8),
        ) {
            let groups = ["0", "1", "2", "3", "4", "5", "6", "7"];
            let followed = follow(layouts(&groups), &given);
            let mut left: Vec<String> = followed.iter().map(|layout| layout.group.to_string()).collect();
            left.sort();
            prop_assert_eq!(left, groups);
            for (layout, given) in followed.iter().zip(&given) {
                match given {
                    Some(cpu) => prop_assert_eq!(layout.cpu, *cpu),
                    None => prop_assert!(layout.is_alone()),
                }
            }
        }
    }
}
