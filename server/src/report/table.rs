//! The final report for people.

use std::io::{self, Write};

use super::grid::Grid;
use super::{CoreReport, Report};
use crate::stats::{Counters, Source};

/// One column of the table.
struct Column {
    title: &'static str,
    cell: fn(&Counters) -> String,
    /// The column is there only if this is above 0 for any core; `None`: it always is.
    only_if: Option<fn(&Counters) -> u64>,
    /// It is about connections: datagrams have none.
    of_connections: bool,
}

impl Column {
    fn is_in(&self, total: &Counters) -> bool {
        !(self.of_connections && total.are_of_datagrams())
            && self.only_if.is_none_or(|value| value(total) > 0)
    }
}

const fn always(title: &'static str, cell: fn(&Counters) -> String) -> Column {
    Column { title, cell, only_if: None, of_connections: false }
}

const fn of_connections(title: &'static str, cell: fn(&Counters) -> String) -> Column {
    Column { of_connections: true, ..always(title, cell) }
}

macro_rules! if_any {
    ($title:literal, $field:ident) => {
        Column { only_if: Some(|c| c.$field), ..always($title, |c| c.$field.to_string()) }
    };
}

/// What was done.
const WORK: &[Column] = &[
    of_connections("accepted", |c| c.accepted.to_string()),
    of_connections("open", |c| c.open.to_string()),
    if_any!("receives", requests),
    if_any!("datagrams in", datagrams_in),
    if_any!("datagrams out", datagrams_out),
    always("bytes in", |c| c.bytes_in.to_string()),
    always("bytes out", |c| c.bytes_out.to_string()),
    of_connections("accept-local", |c| percent(c.accept_local())),
    of_connections("request-local", |c| percent(c.request_local())),
];

/// What happened beside it, at limits above all.
const EVENTS: &[Column] = &[
    if_any!("resets", reset),
    if_any!("refused", refused),
    if_any!("at limit", queue_waits),
    if_any!("listen drops", listen_drops),
    if_any!("idle closed", idle_closed),
    if_any!("cut off", cut_off),
    if_any!("no buffer", starved),
    if_any!("send blocked", blocked),
    if_any!("bytes copied", bytes_copied),
    if_any!("spill bytes", spill_bytes),
    if_any!("spill full", spill_full),
    if_any!("bytes spliced", bytes_spliced),
    if_any!("not spliced", splice_refused),
    if_any!("accept rests", accept_rests),
    if_any!("CQ overflows", cq_overflows),
    if_any!("zero-copy", zerocopy_sends),
    if_any!("of them copied", zerocopy_copied),
    if_any!("handed over", handed_over),
    if_any!("taken over", taken_over),
    if_any!("dropped", datagrams_dropped),
    if_any!("truncated", datagrams_truncated),
    if_any!("overrun", datagrams_overrun),
];

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for line in lines(report) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = block(report, WORK);
    lines.extend(block(report, EVENTS));
    lines.extend(spread(report));
    lines.extend(report.cores.iter().filter_map(sources));
    lines
}

/// The columns of these that are to be shown, if any.
fn block(report: &Report, columns: &[Column]) -> Vec<String> {
    let shown: Vec<&Column> = columns.iter().filter(|column| column.is_in(&report.total)).collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let mut grid = Grid::new(["core"].into_iter().chain(shown.iter().map(|column| column.title)));
    let mut row = |name: String, counters: &Counters| {
        grid.push([name].into_iter().chain(shown.iter().map(|column| (column.cell)(counters))));
    };
    report.cores.iter().for_each(|core| row(core.core.to_string(), &core.counters));
    row("total".to_owned(), &report.total);
    grid.lines(usize::MAX)
}

/// A share as people read it.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// How evenly connections are spread, where there are several cores to spread over.
fn spread(report: &Report) -> Option<String> {
    let spread = report.accepted_spread().filter(|_| report.cores.len() > 1)?;
    Some(format!("spread of accepted connections over {} cores: {spread:.2} (max/mean)", report.cores.len()))
}

/// How many sources a line names.
const MOST_SOURCES: usize = 4;

/// `core 0: 12 of 50 sampled connections came in on CPU 3 (9), 5 (3)`; `None` if all was local.
fn sources(core: &CoreReport) -> Option<String> {
    let part = |what: &str, sources: &crate::stats::Sources| {
        let elsewhere = sources.elsewhere(core.core);
        let count: u64 = elsewhere.iter().map(|&(_, count)| count).sum();
        let of = format!("{count} of {} sampled {what} came in on {}", sources.total(), names(&elsewhere));
        (count > 0).then_some(of)
    };
    let accepts = part("connections", &core.accept_from);
    let requests = part("receives", &core.request_from);
    let parts: Vec<String> = accepts.into_iter().chain(requests).collect();
    (!parts.is_empty()).then(|| format!("core {}: {}", core.core, parts.join("; ")))
}

/// `CPU 3 (9), 5 (3) and 2 others (4)`
fn names(sources: &[(Source, u64)]) -> String {
    let (named, others) = sources.split_at(sources.len().min(MOST_SOURCES));
    let name = |&(source, count): &(Source, u64)| match source {
        Source::Cpu(cpu) => format!("{cpu} ({count})"),
        Source::Unknown => format!("? ({count})"),
    };
    let named: Vec<String> = named.iter().map(name).collect();
    let rest: u64 = others.iter().map(|&(_, count)| count).sum();
    let rest =
        if others.is_empty() { String::new() } else { format!(" and {} others ({rest})", others.len()) };
    format!("CPU {}{rest}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;
    use crate::stats::Sources;

    #[test]
    fn the_table_is_aligned() {
        let lines = lines(&report());
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[..4].windows(2).all(|pair| pair[0].len() == pair[1].len()), "{lines:#?}");
        assert!(lines[3].contains("50.0 %") && lines[3].ends_with("  -"), "{lines:#?}");
        assert_eq!(lines[4], "spread of accepted connections over 2 cores: 1.00 (max/mean)");
    }

    #[test]
    fn what_never_happened_has_no_column() {
        let mut cores = report().cores;
        cores[1].counters.starved = 7;
        cores[0].counters.requests = 9;
        let lines = lines(&Report::new(cores));
        assert!(lines[0].contains("receives"), "{lines:#?}");
        assert_eq!(
            lines[4..8],
            [" core  no buffer", "    4          0", "    1          7", "total          7"]
        );
    }

    #[test]
    fn datagrams_have_no_columns_of_connections() {
        let counters = Counters {
            datagrams_in: 7,
            datagrams_out: 7,
            bytes_in: 70,
            bytes_out: 70,
            ..Counters::default()
        };
        let lines = lines(&Report::new(vec![CoreReport { counters, ..core() }]));
        assert_eq!(lines[0], " core  datagrams in  datagrams out  bytes in  bytes out");
    }

    #[test]
    fn every_counter_has_a_column() {
        let numbered = Report::new(vec![CoreReport { counters: Counters::numbered(), ..core() }]);
        let text = lines(&numbered).join("\n");
        let samples = ["accept_samples", "accept_local_samples", "request_samples", "request_local_samples"];
        for (number, field) in (1..).zip(Counters::FIELDS).filter(|(_, field)| !samples.contains(field)) {
            let number: u32 = number;
            let shown = text.split_whitespace().any(|word| word == number.to_string());
            assert!(shown, "{field} ({number}) in\n{text}");
        }
    }

    fn core() -> CoreReport {
        CoreReport {
            core: 1000,
            counters: Counters::default(),
            accept_from: Sources::default(),
            request_from: Sources::default(),
        }
    }

    fn from(counts: &[(u32, u64)]) -> Sources {
        counts.iter().map(|&(cpu, count)| (Source::Cpu(cpu), count)).collect()
    }

    #[test]
    fn a_line_says_where_what_was_not_local_came_from() {
        let accepts = from(&[(1000, 38), (5, 3), (3, 9)]);
        let line = sources(&CoreReport { accept_from: accepts.clone(), ..core() });
        let expected = "core 1000: 12 of 50 sampled connections came in on CPU 3 (9), 5 (3)";
        assert_eq!(line.as_deref(), Some(expected));
        let requests = from(&[(1, 9), (2, 8), (3, 7), (4, 6), (5, 5), (6, 4)]);
        let line = sources(&CoreReport { accept_from: accepts, request_from: requests, ..core() });
        let requests =
            "; 39 of 39 sampled receives came in on CPU 1 (9), 2 (8), 3 (7), 4 (6) and 2 others (9)";
        assert_eq!(line, Some(format!("{expected}{requests}")));
    }

    #[test]
    fn a_core_where_all_was_local_has_no_line() {
        assert_eq!(sources(&CoreReport { accept_from: from(&[(1000, 5)]), ..core() }), None);
        assert_eq!(sources(&core()), None);
    }
}
