//! `/proc/interrupts`: which interrupt fired on which CPU.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tune::cpu_set::Cpu;

use super::nic::read as read_file;

/// A row: an interrupt with a number, its handler, and how often it fired on each online CPU.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) irq: u32,
    pub(super) name: String,
    pub(super) counts: BTreeMap<Cpu, u64>,
}

/// Reads them.
pub(super) fn read() -> Result<Vec<Row>> {
    parse(&read_file("/proc/interrupts")?).context("/proc/interrupts is not understood")
}

fn parse(text: &str) -> Option<Vec<Row>> {
    let (head, rows) = text.split_once('\n')?;
    let cpus: Option<Vec<Cpu>> =
        head.split_whitespace().map(|cpu| cpu.strip_prefix("CPU")?.parse().ok()).collect();
    let cpus = cpus?;
    let row = |line: &str| {
        let (irq, rest) = line.split_once(':')?;
        let irq = irq.trim().parse().ok()?;
        let mut words = rest.split_whitespace();
        let counts =
            cpus.iter().map(|cpu| Some((*cpu, words.next()?.parse().ok()?))).collect::<Option<_>>()?;
        Some(Row { irq, name: words.next_back()?.to_owned(), counts })
    };
    Some(rows.lines().filter_map(row).collect())
}

/// How often each interrupt has fired on each CPU since an earlier look; only what is not 0.
pub(super) fn since(earlier: &[Row]) -> Result<BTreeMap<u32, BTreeMap<Cpu, u64>>> {
    let earlier: BTreeMap<u32, &Row> = earlier.iter().map(|row| (row.irq, row)).collect();
    let of = |row: &Row| {
        let before = |cpu| earlier.get(&row.irq).and_then(|row| row.counts.get(cpu)).copied().unwrap_or(0);
        let grown = row.counts.iter().map(|(cpu, count)| (*cpu, count.saturating_sub(before(cpu))));
        (row.irq, grown.filter(|(_, count)| *count > 0).collect())
    };
    Ok(read()?.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_cpus_in_the_head() {
        let text = "           CPU0       CPU2\n 35:          7          9  IR-PCI-MSIX-0000:41:00.0 \
                    1-edge   virtio2-input.0\nNMI:   0   0   Non-maskable interrupts\n";
        let rows = parse(text).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].irq, rows[0].name.as_str()), (35, "virtio2-input.0"));
        assert_eq!(rows[0].counts, BTreeMap::from([(0, 7), (2, 9)]));
    }
}
