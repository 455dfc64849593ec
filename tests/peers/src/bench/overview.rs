//! All scenarios in one table: what each contender's operation costs, and how far the first is from the
//! others. Pure.

use lab::summary::{Comparison, Spread};

use super::table;

/// One scenario's line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) scenario: String,
    /// Server CPU time per operation, microseconds, of each contender that took part; the first is compared
    /// with the others.
    pub(crate) cpu: Vec<(String, Option<Spread>)>,
    /// The first over each of the others.
    pub(crate) ratios: Vec<(String, Option<Comparison>)>,
}

impl Line {
    /// The median of a contender; none if it took no part.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let (_, spread) = self.cpu.iter().find(|(other, _)| other == name)?;
        spread.map(|spread| spread.median)
    }

    /// The contender that uses the least CPU time, beside the first: its place in `ratios`.
    pub(crate) fn best(&self) -> Option<usize> {
        let medians = self.cpu.iter().skip(1).enumerate();
        let medians = medians.filter_map(|(place, (_, spread))| Some((place, spread.as_ref()?.median)));
        medians.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
    }
}

/// Header and lines: medians of `names`, the ratio to the second of them, the best of the others and the
/// ratio to it.
pub(crate) fn table(names: &[String], lines: &[Line]) -> Vec<Vec<String>> {
    let [first, second, ..] = names else { return Vec::new() };
    let mut header = vec!["CPU us/op".to_owned()];
    header.extend(names.iter().cloned());
    header.extend([format!("{first} / {second}"), "best other".to_owned(), format!("{first} / best other")]);
    let mut table = vec![header];
    for line in lines {
        let cpu = |name: &String| line.median(name).map_or("-".to_owned(), |median| format!("{median:.2}"));
        let ratio = |found: Option<&(String, Option<Comparison>)>| {
            table::ratio(found.and_then(|(_, comparison)| comparison.as_ref()))
        };
        let best = line.best().map(|place| &line.ratios[place]);
        let mut row = vec![line.scenario.clone()];
        row.extend(names.iter().map(cpu));
        row.push(ratio(line.ratios.iter().find(|(name, _)| name == second)));
        row.extend([best.map_or("-".to_owned(), |(name, _)| name.clone()), ratio(best)]);
        table.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_other_is_named_and_who_took_no_part_is_left_out() {
        let names = ["server", "epoll", "monoio", "nginx"].map(str::to_owned);
        let cost = |name: &str, us: f64| (name.to_owned(), Spread::of([us, us, us]));
        let ratio =
            |name: &str, other: f64| (name.to_owned(), Comparison::of(&[(Some(other), Some(4.0)); 9]));
        let line = Line {
            scenario: "echo".to_owned(),
            cpu: vec![cost("server", 4.0), cost("epoll", 8.0), cost("monoio", 5.0)],
            ratios: vec![ratio("epoll", 8.0), ratio("monoio", 5.0)],
        };
        let table = table(&names, &[line]);
        let row = "echo|4.00|8.00|5.00|-|0.50 (0.50-0.50)|monoio|0.80 (0.80-0.80)";
        assert_eq!(table[1].join("|"), row);
        assert_eq!(table[0].len(), table[1].len());
        assert!(super::table(&names[..1], &[]).is_empty());
    }
}
