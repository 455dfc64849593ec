//! The table and the JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::machine::Machine;
use crate::measurement::{Measurement, Workload};
use crate::metrics::{Metric, Unit, metrics};
use crate::settings::Difference;
use crate::summary::{ALPHA, Comparison, Spread, Verdict};

/// Version of the JSON form of [`Results`].
const SCHEMA: u32 = 2;

/// What stands under the table: what its words mean, and what it does not show. The same at length: lib.rs.
const NOTES: &str = "\
after / before: of the two halves of each round. p: exact signed-rank test over the rounds, two-sided. \"no \
difference\":
p above 0.05; of 20 rows without one, 1 is expected to be below. \"too few rounds\": with fewer than 6 no p \
can be below.
accept-local, request-local: share of the connections accepted, and of the receives, whose last segment the \
kernel
processed on the CPU of the worker that serves them.
This is no real NIC. Before, a veth without RPS processes a packet on the CPU that sent it, so a SYN's CPU \
is its client's;
after, RPS stands in for an interrupt per queue. The shares show what chooses the worker, as on a NIC. The \
rates do not
carry over: client and server share CPUs, RPS adds inter-processor interrupts, and there are no interrupts \
and no DMA.
";

/// Everything a run has measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    schema: u32,
    pub(crate) machine: Machine,
    pub(crate) workload: Workload,
    pub(crate) rounds: Vec<Round>,
    /// p-value up to which before and after are said to differ.
    alpha: f64,
    /// The rows of the table.
    pub(crate) summary: Vec<Row>,
}

/// One round: before and, between apply and restore, after.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    /// Which of them came first.
    pub(crate) first: Side,
    pub(crate) before: Measurement,
    /// What `tune apply` has changed, read back.
    pub(crate) applied: Vec<Difference>,
    pub(crate) after: Measurement,
}

/// The two halves of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Before,
    After,
}

/// One metric over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    #[serde(skip)]
    unit: Unit,
    /// None if the machine does not give the metric.
    comparison: Option<Comparison>,
}

impl Results {
    pub(crate) fn new(machine: Machine, workload: Workload, rounds: Vec<Round>) -> Self {
        let row = |metric: Metric| {
            let pair = |round: &Round| (metric.value(&round.before), metric.value(&round.after));
            let pairs: Vec<_> = rounds.iter().map(pair).collect();
            Row { comparison: Comparison::of(&pairs), name: metric.name, unit: metric.unit }
        };
        let summary = metrics(&machine.cpus).into_iter().map(row).collect();
        Self { schema: SCHEMA, machine, workload, rounds, alpha: ALPHA, summary }
    }

    /// Prints the table.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Workload { connections, size, .. } = self.workload;
        writeln!(out, "{}", self.machine)?;
        writeln!(
            out,
            "before: listeners chosen by hash, the interface as the kernel made it; after: profiles/lab.toml \
             applied, listeners chosen by CPU"
        )?;
        let rounds = match self.rounds.len() {
            1 => "1 round, which says nothing of the spread".to_owned(),
            rounds => {
                format!("{rounds} rounds, by turns before first and after first; median (least-greatest)")
            }
        };
        writeln!(out, "{connections} connections, messages of {size} bytes; {rounds}\n")?;
        let heading = ["", "before", "after", "after / before", "p"].map(str::to_owned);
        let lines: Vec<[String; 5]> =
            std::iter::once(heading).chain(self.summary.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(width);
        for [name, before, after, ratio, verdict] in &lines {
            writeln!(out, "{name:a$}  {before:>b$}  {after:>c$}  {ratio:>d$}  {verdict:>e$}")?;
        }
        write!(out, "\n{NOTES}")
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let name = self.name.clone();
        let Some(Comparison { before, after, ratio, verdict }) = self.comparison else {
            return [name, "not supported".to_owned(), "not supported".to_owned(), dash(), dash()];
        };
        let ratio = ratio
            .map_or_else(dash, |ratio| format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.min, ratio.max));
        let verdict = match verdict {
            Verdict::Difference(p) if p < 0.0005 => "< 0.001".to_owned(),
            Verdict::Difference(p) => format!("{p:.3}"),
            Verdict::NoDifference(p) => format!("no difference, {p:.2}"),
            Verdict::TooFewRounds => "too few rounds".to_owned(),
        };
        [name, print_spread(before, self.unit), print_spread(after, self.unit), ratio, verdict]
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn print_spread(spread: Spread, unit: Unit) -> String {
    let print = |value| print_value(value, unit);
    let suffix = if unit == Unit::Share { " %" } else { "" };
    format!("{}{suffix} ({}-{})", print(spread.median), print(spread.min), print(spread.max))
}

fn print_value(value: f64, unit: Unit) -> String {
    let value = if unit == Unit::Share { value * 100.0 } else { value };
    match value.abs() {
        size if unit == Unit::Share || (10.0..100.0).contains(&size) => format!("{value:.1}"),
        size if size == 0.0 || size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed_rank::least_p_value;

    #[test]
    fn values_have_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (12345.6, "12346")]
        {
            assert_eq!(print_value(value, Unit::Number), text);
        }
        assert_eq!(
            print_spread(Spread { median: 0.5, min: 0.4756, max: 1.0 }, Unit::Share),
            "50.0 % (47.6-100.0)"
        );
    }

    #[test]
    fn a_row_says_how_sure_it_is() {
        let row = |pairs: &[(f64, f64)]| {
            let rounds: Vec<_> = pairs.iter().map(|&(before, after)| (Some(before), Some(after))).collect();
            Row { name: "x".to_owned(), unit: Unit::Number, comparison: Comparison::of(&rounds) }.cells()
        };
        let values = ["x", "2.00 (2.00-2.00)", "4.00 (4.00-4.00)", "2.00 (2.00-2.00)"];
        for (rounds, verdict) in [(2, "too few rounds"), (6, "0.031"), (20, "< 0.001")] {
            let cells = row(&vec![(2.0, 4.0); rounds]);
            assert_eq!((&cells[..4], &*cells[4]), (&values.map(str::to_owned)[..], verdict));
        }
        assert_eq!(row(&[(0.0, 0.0); 6]), ["x", "0 (0-0)", "0 (0-0)", "-", "no difference, 1.00"]);
        assert_eq!(row(&[]), ["x", "not supported", "not supported", "-", "-"]);
    }

    #[test]
    fn the_notes_say_the_alpha_and_the_rounds_that_are_used() {
        assert!(NOTES.contains(&format!("p above {ALPHA}")));
        assert!(NOTES.contains(&format!("of {} rows", 1.0 / ALPHA)));
        let fewest = (1..).find(|&rounds| least_p_value(rounds) <= ALPHA).unwrap();
        assert!(NOTES.contains(&format!("fewer than {fewest} no p")));
        assert!(NOTES.lines().all(|line| line.len() <= 125), "{NOTES}");
    }
}
