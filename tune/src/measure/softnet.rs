//! `/proc/net/softnet_stat`: what the network softirq of each online CPU has done since boot
//! (`softnet_seq_show()` in net/core/net-procfs.c). Pure.

use super::ParseError;
use crate::cpu_set::Cpu;

/// One line of `/proc/net/softnet_stat`, or the difference of two. The kernel counts modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SoftnetStat {
    /// The CPU.
    pub cpu: Cpu,
    /// Packets given to the protocols (column 1), counted by `__netif_receive_skb_core()` on the CPU that
    /// does it: for a packet that RPS moves, the CPU that it is moved to.
    pub processed: u32,
    /// Packets dropped because the backlog was full (column 2): `net.core.netdev_max_backlog`.
    pub dropped: u32,
    /// Softirqs that ended with work left because `netdev_budget` or `netdev_budget_usecs` was used up
    /// (column 3).
    pub time_squeeze: u32,
    /// Times this CPU was interrupted by another one to take packets that RPS moved to it (column 10); one
    /// interrupt can bring several packets.
    pub received_rps: u32,
}

impl SoftnetStat {
    /// Reads all lines. Since Linux 5.10 column 13 is the CPU; before, the lines are taken as CPU 0, 1, 2, …,
    /// which is right as long as none is offline.
    ///
    /// # Errors
    /// If a line has fewer than 10 columns or one of those that are read is not a number of 32 bits in hex.
    pub fn parse(text: &str) -> Result<Vec<Self>, ParseError> {
        (0u32..)
            .zip(text.lines().zip(1..))
            .map(|(index, (row, line))| Self::parse_line(row, line, index))
            .collect()
    }

    fn parse_line(row: &str, line: usize, index: Cpu) -> Result<Self, ParseError> {
        let error = |reason| ParseError { line, reason, text: row.to_owned() };
        let columns: Vec<&str> = row.split_whitespace().collect();
        if columns.len() < 10 {
            return Err(error("fewer than 10 columns"));
        }
        let number = |column: usize| {
            u32::from_str_radix(columns[column - 1], 16)
                .map_err(|_| error("a column is not a 32-bit number in hex"))
        };
        Ok(Self {
            cpu: if columns.len() >= 13 { number(13)? } else { index },
            processed: number(1)?,
            dropped: number(2)?,
            time_squeeze: number(3)?,
            received_rps: number(10)?,
        })
    }

    /// What happened between `earlier`, the same CPU's line, and this reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu,
            processed: self.processed.wrapping_sub(earlier.processed),
            dropped: self.dropped.wrapping_sub(earlier.dropped),
            time_squeeze: self.time_squeeze.wrapping_sub(earlier.time_squeeze),
            received_rps: self.received_rps.wrapping_sub(earlier.received_rps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX_6_18: &str = "\
0003d2c9 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000039 00000000 00000000 \
00000000 00000000 00000000
000338e1 00000002 00000003 00000000 00000000 00000000 00000000 00000000 00000000 000000ac 00000000 00000000 \
00000005 00000000 00000000
";

    #[test]
    fn columns_and_cpu_numbers() {
        let stats = SoftnetStat::parse(LINUX_6_18).unwrap();
        let second =
            SoftnetStat { cpu: 5, processed: 0x338e1, dropped: 2, time_squeeze: 3, received_rps: 0xac };
        assert_eq!((stats.len(), stats[0].cpu, stats[1]), (2, 0, second));
    }

    #[test]
    fn old_kernels_have_no_column_for_the_cpu() {
        let text = "1 0 0 0 0 0 0 0 0 0 0\n2 0 0 0 0 0 0 0 0 7 0\n";
        let stats = SoftnetStat::parse(text).unwrap();
        assert_eq!((stats[1].cpu, stats[1].processed, stats[1].received_rps), (1, 2, 7));
    }

    #[test]
    fn a_difference_survives_the_wrap_of_32_bits() {
        let earlier = SoftnetStat::parse("fffffffe 0 0 0 0 0 0 0 0 1\n").unwrap()[0];
        let later = SoftnetStat::parse("00000003 0 0 0 0 0 0 0 0 1\n").unwrap()[0];
        assert_eq!((later.since(&earlier).processed, later.since(&earlier).received_rps), (5, 0));
    }

    #[test]
    fn other_texts_are_refused_with_the_line() {
        let error = SoftnetStat::parse("1 2 3\n").unwrap_err().to_string();
        assert_eq!(error, "line 1: fewer than 10 columns: \"1 2 3\"");
        let error = SoftnetStat::parse("1 0 0 0 0 0 0 0 0 1\nx 0 0 0 0 0 0 0 0 1\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: a column is not a 32-bit number in hex"), "{error}");
        assert_eq!(SoftnetStat::parse("").unwrap(), []);
    }
}
