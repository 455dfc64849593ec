//! `/proc/softirqs`: how often each CPU has run each kind of softirq since boot (`show_softirqs()` in
//! fs/proc/softirqs.c). Pure.

use std::collections::BTreeMap;

use super::ParseError;
use crate::cpu_set::Cpu;

/// How often one kind of softirq ran on each possible CPU since boot, modulo 2^32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftirqCounts {
    per_cpu: BTreeMap<Cpu, u32>,
}

impl SoftirqCounts {
    /// Reads the row `name` (such as `NET_RX`) of the text of `/proc/softirqs`.
    ///
    /// # Errors
    /// If the heading is not a list of CPUs, the row is missing, or it has another number of counts than the
    /// heading has CPUs.
    pub fn parse(text: &str, name: &str) -> Result<Self, ParseError> {
        let error = |line, reason, text: &str| ParseError { line, reason, text: text.to_owned() };
        let heading = text.lines().next().unwrap_or_default();
        let cpus: Option<Vec<Cpu>> =
            heading.split_whitespace().map(|word| word.strip_prefix("CPU")?.parse().ok()).collect();
        let cpus =
            cpus.filter(|cpus| !cpus.is_empty()).ok_or_else(|| error(1, "no list of CPUs", heading))?;
        let mut rows =
            text.lines().zip(1..).skip(1).filter_map(|(row, line)| Some((row, line, row.split_once(':')?)));
        let (row, line, (_, counts)) = rows
            .find(|(_, _, (found, _))| found.trim() == name)
            .ok_or_else(|| error(1, "no such row", name))?;
        let counts: Option<Vec<u32>> = counts.split_whitespace().map(|count| count.parse().ok()).collect();
        let counts = counts
            .filter(|counts| counts.len() == cpus.len())
            .ok_or_else(|| error(line, "not one count for each CPU", row))?;
        Ok(Self { per_cpu: cpus.into_iter().zip(counts).collect() })
    }

    /// How often the softirq ran on each CPU between `earlier` and this reading (fewer than 2^32 times).
    #[must_use]
    pub fn since(&self, earlier: &Self) -> BTreeMap<Cpu, u64> {
        let before = |cpu| earlier.per_cpu.get(cpu).copied().unwrap_or(0);
        self.per_cpu.iter().map(|(cpu, count)| (*cpu, count.wrapping_sub(before(cpu)).into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "                    CPU0       CPU2       \n          HI:          0          \
                        1\n      NET_RX: 4294967295     147183\n       BLOCK:          0      29278\n";

    #[test]
    fn counts_are_of_the_cpus_in_the_heading() {
        let counts = SoftirqCounts::parse(TEXT, "NET_RX").unwrap();
        assert_eq!(counts.per_cpu, BTreeMap::from([(0, u32::MAX), (2, 147_183)]));
    }

    #[test]
    fn a_difference_survives_the_wrap_of_32_bits() {
        let before = SoftirqCounts::parse(TEXT, "NET_RX").unwrap();
        let after = TEXT.replace("4294967295", "9").replace("147183", "147190");
        let after = SoftirqCounts::parse(&after, "NET_RX").unwrap();
        assert_eq!(after.since(&before), BTreeMap::from([(0, 10), (2, 7)]));
    }

    #[test]
    fn other_texts_are_refused_with_the_line() {
        for (text, name, message) in [
            ("", "NET_RX", "line 1: no list of CPUs: \"\""),
            ("  CPU0 CPUx\n", "NET_RX", "line 1: no list of CPUs"),
            (TEXT, "NET", "line 1: no such row: \"NET\""),
            (" CPU0 CPU1\nNET_RX: 1\n", "NET_RX", "line 2: not one count for each CPU: \"NET_RX: 1\""),
            (" CPU0\nNET_RX: -1\n", "NET_RX", "line 2: not one count for each CPU"),
        ] {
            let error = SoftirqCounts::parse(text, name).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }
}
