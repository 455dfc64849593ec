//! Cells and tables. Pure but for the writer.

use std::io::{self, Write};

use lab::summary::{Comparison, Spread, Verdict};

/// What the marks of [`ratio`] mean. The test is that of [`Verdict`], at [`lab::summary::ALPHA`].
pub(crate) const RATIO_LEGEND: &str =
    "= no difference (Wilcoxon's signed-rank test of the rounds, p > 0.05), ? too few rounds to tell";

/// Median and extremes.
pub(crate) fn spread(spread: Option<&Spread>, digits: usize) -> String {
    let show = |s: &Spread| format!("{:.digits$} ({:.digits$}-{:.digits$})", s.median, s.min, s.max);
    spread.map_or("-".to_owned(), show)
}

/// The ratio's median and extremes, and whether it is one.
pub(crate) fn ratio(comparison: Option<&Comparison>) -> String {
    let mark = match comparison.map(|comparison| comparison.verdict) {
        Some(Verdict::NoDifference(_)) => " =",
        Some(Verdict::TooFewRounds) => " ?",
        Some(Verdict::Difference(_)) | None => "",
    };
    spread(comparison.and_then(|comparison| comparison.ratio.as_ref()), 2) + mark
}

/// Columns under each other, the first to the left and the others to the right.
pub(crate) fn print(out: &mut impl Write, table: &[Vec<String>]) -> io::Result<()> {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| table.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in table {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += &if index == 0 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A Markdown table; its first row is the header.
pub(crate) fn print_markdown(out: &mut impl Write, table: &[Vec<String>]) -> io::Result<()> {
    for (index, row) in table.iter().enumerate() {
        writeln!(out, "| {} |", row.join(" | "))?;
        if index == 0 {
            writeln!(out, "|{}", "---|".repeat(row.len()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_whether_it_is_one() {
        assert!(RATIO_LEGEND.contains(&format!("p > {}", lab::summary::ALPHA)));
        let compare = |pairs: &[(f64, f64)]| {
            let pairs: Vec<_> = pairs.iter().map(|&(before, after)| (Some(before), Some(after))).collect();
            ratio(Comparison::of(&pairs).as_ref())
        };
        assert_eq!(compare(&[(10.0, 8.0); 9]), "0.80 (0.80-0.80)");
        assert_eq!(compare(&[(10.0, 8.0); 3]), "0.80 (0.80-0.80) ?");
        let noise = [(10.0, 9.0), (10.0, 11.0), (10.0, 10.5), (10.0, 9.5), (10.0, 10.2), (10.0, 9.8)];
        assert_eq!(compare(&noise), "1.00 (0.90-1.10) =");
        assert_eq!(compare(&[]), "-");
    }

    #[test]
    fn columns_are_aligned() {
        let table = [["", "x"], ["long", "1.00"]].map(|row| row.map(str::to_owned).to_vec());
        let text = |print: fn(&mut Vec<u8>, &[Vec<String>]) -> io::Result<()>| {
            let mut out = Vec::new();
            print(&mut out, &table).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(print), "           x\n  long  1.00\n");
        assert_eq!(text(print_markdown), "|  | x |\n|---|---|\n| long | 1.00 |\n");
    }
}
