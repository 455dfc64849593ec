//! Where samples came from: how many segments were received on which CPU. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::{Serialize, Serializer};
use tune::cpu_set::Cpu;

use super::Counter;

/// Counters in one [`Line`].
const LINE: usize = 16;

/// No two workers count in the same cache line, nor in two that are fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([Counter; LINE]);

/// The counts of one worker by CPU, allocated once. The default knows no CPU: all is unknown to it.
#[derive(Debug, Default)]
pub(crate) struct LiveSources {
    known: Box<[Line]>,
    unknown: Counter,
}

impl LiveSources {
    /// For CPU numbers below `cpus`.
    pub(super) fn new(cpus: u32) -> Self {
        let lines = (cpus as usize).div_ceil(LINE);
        Self { known: (0..lines).map(|_| Line::default()).collect(), unknown: Counter::default() }
    }

    /// Counts one sample. Only the thread that counts may call this.
    pub(super) fn count(&self, source: Option<Cpu>) {
        let known = source.and_then(|cpu| Some(&self.known.get(cpu as usize / LINE)?.0[cpu as usize % LINE]));
        known.unwrap_or(&self.unknown).add(1);
    }

    /// Reads them all.
    pub(crate) fn read(&self) -> Sources {
        let counters = self.known.iter().flat_map(|line| &line.0);
        let known = (0..).zip(counters).map(|(cpu, counter)| (Source::Cpu(cpu), counter.get()));
        let all = known.chain([(Source::Unknown, self.unknown.get())]);
        Sources { counts: all.filter(|&(_, count)| count > 0).collect() }
    }
}

/// Where a segment was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// On this CPU.
    Cpu(Cpu),
    /// The kernel does not say.
    Unknown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(cpu) => write!(f, "{cpu}"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}

/// How many samples came from where, the worker's own CPU included: their sum is the number of samples. What
/// nothing came from is not in it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sources {
    counts: BTreeMap<Source, u64>,
}

impl Sources {
    /// In the order of the CPUs.
    pub fn iter(&self) -> impl Iterator<Item = (Source, u64)> {
        self.counts.iter().map(|(&source, &count)| (source, count))
    }

    /// The sum over all sources.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Those that are not `own`, most samples first.
    #[must_use]
    pub fn elsewhere(&self, own: Cpu) -> Vec<(Source, u64)> {
        let mut others: Vec<_> = self.iter().filter(|&(source, _)| source != Source::Cpu(own)).collect();
        others.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        others
    }
}

impl FromIterator<(Source, u64)> for Sources {
    fn from_iter<I: IntoIterator<Item = (Source, u64)>>(counts: I) -> Self {
        Self { counts: counts.into_iter().filter(|&(_, count)| count > 0).collect() }
    }
}

impl AddAssign<&Self> for Sources {
    fn add_assign(&mut self, other: &Self) {
        for (source, count) in other.iter() {
            *self.counts.entry(source).or_default() += count;
        }
    }
}

/// As an object: `{"3": 12, "unknown": 1}`.
impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(source, count)| (source.to_string(), count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_cpu_number_of_this_host_can_be_is_unknown() {
        let live = LiveSources::new(20);
        for cpu in [Some(0), Some(19), Some(8191), Some(u32::MAX), None] {
            live.count(cpu);
        }
        let read = live.read();
        assert_eq!(
            read.iter().collect::<Vec<_>>(),
            [(Source::Cpu(0), 1), (Source::Cpu(19), 1), (Source::Unknown, 3)]
        );
        LiveSources::default().count(Some(0));
    }

    #[test]
    fn what_came_from_elsewhere_is_sorted_by_how_much() {
        let sources: Sources =
            [(Source::Cpu(0), 9), (Source::Cpu(1), 2), (Source::Unknown, 5), (Source::Cpu(2), 0)]
                .into_iter()
                .collect();
        assert_eq!(sources.elsewhere(0), [(Source::Unknown, 5), (Source::Cpu(1), 2)]);
        assert_eq!(sources.elsewhere(7)[0], (Source::Cpu(0), 9));
    }

    #[test]
    fn sums_go_by_source_and_json_names_only_what_there_is() {
        let mut sum: Sources = [(Source::Cpu(10), 1), (Source::Cpu(2), 3)].into_iter().collect();
        sum += &[(Source::Cpu(10), 4), (Source::Unknown, 1)].into_iter().collect();
        assert_eq!(serde_json::to_string(&sum).unwrap(), r#"{"2":3,"10":5,"unknown":1}"#);
    }
}
