//! The table and the JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::machine::Machine;
use crate::measurement::{Measurement, Workload};
use crate::metrics::{Unit, metrics};
use crate::settings::Difference;
use crate::summary::{Comparison, Spread};

/// Version of the JSON form of [`Results`].
const SCHEMA: u32 = 1;

/// Everything a run has measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    schema: u32,
    pub(crate) machine: Machine,
    pub(crate) workload: Workload,
    pub(crate) rounds: Vec<Round>,
    /// The rows of the table.
    pub(crate) summary: Vec<Row>,
}

/// One round: before, apply, after, restore.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) before: Measurement,
    /// What `tune apply` has changed, read back.
    pub(crate) applied: Vec<Difference>,
    pub(crate) after: Measurement,
}

/// One metric over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    #[serde(skip)]
    unit: Unit,
    before: Option<Spread>,
    after: Option<Spread>,
    comparison: Comparison,
}

impl Results {
    pub(crate) fn new(machine: Machine, workload: Workload, rounds: Vec<Round>) -> Self {
        let spread = |metric: &crate::metrics::Metric, side: fn(&Round) -> &Measurement| {
            Spread::of(&rounds.iter().map(|round| metric.value(side(round))).collect::<Vec<_>>())
        };
        let row = |metric: crate::metrics::Metric| {
            let (before, after) =
                (spread(&metric, |round| &round.before), spread(&metric, |round| &round.after));
            Row {
                comparison: Comparison::of(before, after),
                name: metric.name,
                unit: metric.unit,
                before,
                after,
            }
        };
        let summary = metrics(&machine.cpus).into_iter().map(row).collect();
        Self { schema: SCHEMA, machine, workload, rounds, summary }
    }

    /// Prints the table.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Workload { connections, size, .. } = self.workload;
        let machine = &self.machine;
        writeln!(out, "Linux {}, {}, CPUs {}", machine.kernel, machine.cpu_model, machine.cpus)?;
        writeln!(
            out,
            "before: listeners chosen by hash, the interface as the kernel made it; after: profiles/lab.toml applied, \
             listeners chosen by CPU"
        )?;
        let rounds = match self.rounds.len() {
            1 => "1 round A B, which says nothing of the spread".to_owned(),
            rounds => format!("{rounds} rounds A B A B, median (least-greatest)"),
        };
        writeln!(out, "{connections} connections, messages of {size} bytes; {rounds}\n")?;
        let heading = ["", "before", "after", "after / before"].map(str::to_owned);
        let lines: Vec<[String; 4]> =
            std::iter::once(heading).chain(self.summary.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for [name, before, after, comparison] in &lines {
            let [a, b, c, d] = widths;
            writeln!(out, "{name:a$}  {before:>b$}  {after:>c$}  {comparison:>d$}")?;
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let cell = |spread: Option<Spread>| {
            spread.map_or_else(|| "not supported".to_owned(), |spread| print_spread(spread, self.unit))
        };
        let comparison = match self.comparison {
            Comparison::Ratio(ratio) => format!("{ratio:.2}"),
            Comparison::FromZero => "from 0".to_owned(),
            Comparison::NoDifference => "no difference".to_owned(),
            Comparison::NotSupported => "-".to_owned(),
        };
        [self.name.clone(), cell(self.before), cell(self.after), comparison]
    }
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
    fn a_row_says_what_is_not_supported_and_what_does_not_differ() {
        let some = Some(Spread { median: 2.0, min: 1.0, max: 3.0 });
        let row = |before, after| {
            let comparison = Comparison::of(before, after);
            Row { name: "x".to_owned(), unit: Unit::Number, before, after, comparison }.cells()
        };
        assert_eq!(row(some, some), ["x", "2.00 (1.00-3.00)", "2.00 (1.00-3.00)", "no difference"]);
        assert_eq!(row(None, None), ["x", "not supported", "not supported", "-"]);
    }
}
