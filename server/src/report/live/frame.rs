//! The lines of one live table. Pure.

use std::time::Duration;

use tune::cpu_set::Cpu;

use super::super::grid::Grid;
use super::super::table::percent;
use crate::stats::{self, Counters};

/// The index of the line with the titles of the columns.
pub(super) const TITLES: usize = 1;

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// One core.
#[derive(Debug, Clone)]
pub(super) struct Row {
    core: Cpu,
    /// Since the start.
    now: Counters,
    /// In the interval.
    during: Counters,
}

impl Row {
    pub(super) fn new(core: Cpu, now: &Counters, before: &Counters) -> Self {
        Self { core, now: *now, during: now.since(before) }
    }
}

/// One column: what happened in the interval, which was this many seconds long.
struct Column {
    title: &'static str,
    cell: fn(&Counters, f64) -> String,
    /// The column is there only once any core has counted one of these.
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

const fn always(title: &'static str, cell: fn(&Counters, f64) -> String) -> Column {
    Column { title, cell, only_if: None, of_connections: false }
}

const fn of_connections(title: &'static str, cell: fn(&Counters, f64) -> String) -> Column {
    Column { of_connections: true, ..always(title, cell) }
}

macro_rules! if_any {
    ($title:literal, $field:ident) => {
        Column { only_if: Some(|c| c.$field), ..always($title, |c, seconds| rate(c.$field, seconds)) }
    };
}

const COLUMNS: &[Column] = &[
    of_connections("open", |c, _| c.open.to_string()),
    of_connections("accept/s", |c, seconds| rate(c.accepted, seconds)),
    if_any!("receives/s", requests),
    if_any!("datagrams/s", datagrams_in),
    always("in", |c, seconds| bytes(c.bytes_in, seconds)),
    always("out", |c, seconds| bytes(c.bytes_out, seconds)),
    of_connections("accept-local", |c, _| percent(c.accept_local())),
    of_connections("request-local", |c, _| percent(c.request_local())),
    if_any!("resets/s", reset),
    if_any!("refused/s", refused),
    if_any!("at limit/s", queue_waits),
    if_any!("no buffer/s", starved),
    if_any!("blocked/s", blocked),
    if_any!("spill full/s", spill_full),
    if_any!("accept rests/s", accept_rests),
    if_any!("dropped/s", datagrams_dropped),
];

/// The table: a line with `title` and the spread of the accepts, the titles, the rows, the total. On a
/// terminal of this size it fits: the busiest cores are shown, and a line says how many are not.
pub(super) fn lines(title: &str, time: Duration, rows: &[Row], size: Option<Size>) -> Vec<String> {
    // The last line of a terminal is the cursor's.
    let height = size.map_or(usize::MAX, |size| size.rows.saturating_sub(1).max(1));
    let width = size.map_or(usize::MAX, |size| size.columns);
    let most = height.saturating_sub(3); // title, titles, total
    let shown = if rows.len() <= most { rows.to_vec() } else { busiest(rows, most.saturating_sub(1).max(1)) };
    let spread = stats::spread(rows.iter().map(|row| row.during.accepted)).filter(|_| rows.len() > 1);
    let spread = spread.map_or_else(String::new, |spread| format!("  accept spread {spread:.2} (max/mean)"));
    let mut lines = vec![format!("{title}{spread}")];
    lines.extend(table(&shown, rows, time.as_secs_f64(), width));
    let left_out = rows.len() - shown.len();
    if left_out > 0 {
        let plural = if left_out == 1 { "core" } else { "cores" };
        lines.insert(lines.len() - 1, format!("… {left_out} less busy {plural} not shown"));
    }
    lines.truncate(height);
    lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
}

/// Titles, the rows that are shown, the total of all.
fn table(shown: &[Row], all: &[Row], seconds: f64, width: usize) -> Vec<String> {
    let (mut now, mut during) = (Counters::default(), Counters::default());
    all.iter().for_each(|row| {
        now += row.now;
        during += row.during;
    });
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| column.is_in(&now)).collect();
    let mut grid = Grid::new([" core"].into_iter().chain(columns.iter().map(|column| column.title)));
    let mut push = |name: String, counters: &Counters| {
        grid.push([name].into_iter().chain(columns.iter().map(|column| (column.cell)(counters, seconds))));
    };
    shown.iter().for_each(|row| push(row.core.to_string(), &row.during));
    push("total".to_owned(), &during);
    grid.lines(width)
}

/// The `count` busiest, in the order in which they are given.
fn busiest(rows: &[Row], count: usize) -> Vec<Row> {
    let mut total = Counters::default();
    rows.iter().for_each(|row| total += row.during);
    let work = |c: &Counters| [c.accepted, c.requests + c.datagrams_in, c.bytes_in + c.bytes_out];
    let total = work(&total);
    // The sum of the shares that a core has in each kind of work.
    let score = |row: &Row| -> f64 {
        work(&row.during).into_iter().zip(total).filter_map(|(part, whole)| stats::share(part, whole)).sum()
    };
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| score(&rows[b]).total_cmp(&score(&rows[a])));
    order.truncate(count);
    order.sort_unstable();
    order.into_iter().map(|index| rows[index].clone()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// `950`, `12.3 k`
fn rate(count: u64, seconds: f64) -> String {
    scaled(per_second(count, seconds), "").trim_end().to_owned()
}

/// `1.23 MB/s`
fn bytes(count: u64, seconds: f64) -> String {
    scaled(per_second(count, seconds), "B/s")
}

/// Three digits and a power of 1000.
fn scaled(value: f64, unit: &str) -> String {
    if value < 999.5 {
        let digits = usize::from(value > 0.0 && value < 9.95);
        return format!("{value:.digits$} {unit}");
    }
    let mut scaled = value;
    for prefix in ["k", "M", "G", "T"] {
        scaled /= 1000.0;
        if scaled < 999.5 || prefix == "T" {
            let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
            return format!("{scaled:.digits$} {prefix}{unit}");
        }
    }
    unreachable!("the last prefix returns")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn row(core: Cpu, accepted: u64) -> Row {
        let now = Counters {
            accepted,
            open: 2,
            bytes_in: accepted * 1000,
            accept_samples: accepted,
            accept_local_samples: accepted / 2,
            ..Counters::default()
        };
        Row::new(core, &now, &Counters::default())
    }

    #[test]
    fn it_has_rates_and_shares_of_the_interval() {
        let before = Counters { accepted: 1_000_000, open: 7, ..Counters::default() };
        let now = Counters { accepted: 1_000_500, open: 3, bytes_in: 5_000_000, ..before };
        let rows = [Row::new(3, &now, &before), row(0, 100)];
        let lines = lines("T", 2 * SECOND, &rows, None);
        assert_eq!(
            lines,
            [
                "T  accept spread 1.67 (max/mean)",
                " core  open  accept/s         in    out  accept-local  request-local",
                "    3     3       250  2.50 MB/s  0 B/s             -              -",
                "    0     2        50  50.0 kB/s  0 B/s        50.0 %              -",
                "total     5       300  2.55 MB/s  0 B/s        50.0 %              -",
            ]
        );
    }

    #[test]
    fn datagrams_have_no_columns_of_connections() {
        let now = Counters { datagrams_in: 500, bytes_in: 500, bytes_out: 500, ..Counters::default() };
        let lines = lines("T", SECOND, &[Row::new(0, &now, &Counters::default())], None);
        assert_eq!(lines[TITLES], " core  datagrams/s       in      out");
    }

    #[test]
    fn a_column_stays_once_it_was_needed() {
        let before = Counters { starved: 1, ..Counters::default() };
        let lines = lines("T", SECOND, &[Row::new(0, &before, &before)], None);
        assert!(lines[TITLES].ends_with("no buffer/s") && lines[2].ends_with(" 0"), "{lines:#?}");
        assert_eq!(lines[0], "T", "one core has no spread");
    }

    #[test]
    fn on_a_small_terminal_the_busiest_that_fit_are_shown() {
        let rows: Vec<Row> = [5, 90, 1, 80, 0].into_iter().zip(0..).map(|(n, core)| row(core, n)).collect();
        let lines = lines("T", SECOND, &rows, Some(Size { rows: 7, columns: 32 }));
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1], " core  open  accept/s         in");
        assert!(lines[2].starts_with("    1 ") && lines[3].starts_with("    3 "), "{lines:#?}");
        assert_eq!(lines[4], "… 3 less busy cores not shown");
        assert!(lines[5].starts_with("total    10       176"), "{lines:#?}");
    }

    #[test]
    fn it_never_exceeds_the_terminal() {
        for (height, width) in [(1, 1), (2, 10), (3, 80), (4, 5), (5, 200), (30, 40)] {
            for cores in [1, 2, 30] {
                let rows: Vec<Row> = (0..cores).map(|core| row(core, 3)).collect();
                let lines = lines("a long title", SECOND, &rows, Some(Size { rows: height, columns: width }));
                assert!(lines.len() <= (height - 1).max(1), "{height}x{width}: {lines:#?}");
                assert!(
                    lines.iter().all(|line| line.chars().count() <= width),
                    "{height}x{width}: {lines:#?}"
                );
            }
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let expected = [
            (0, "0"),
            (5, "5.0"),
            (999, "999"),
            (1000, "1.00 k"),
            (12_345, "12.3 k"),
            (999_499, "999 k"),
            (999_999, "1.00 M"),
            (1_234_567_890, "1.23 G"),
        ];
        for (count, text) in expected {
            assert_eq!(rate(count, 1.0), text);
        }
        assert_eq!(bytes(25, 10.0), "2.5 B/s");
        assert!(bytes(u64::MAX, 1.0).ends_with(" TB/s"));
        assert_eq!(rate(5, 0.0), "0");
    }
}
