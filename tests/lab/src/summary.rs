//! Several rounds of one metric: median, spread, and whether before and after differ. Pure.

use serde::Serialize;

use crate::signed_rank::{least_p_value, p_value};

/// Up to this p-value before and after are said to differ. It is the share of rows without any difference for
/// which that is said all the same: of twenty rows, one.
pub const ALPHA: f64 = 0.05;

/// Median and extremes of a metric over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median: of an even number of values the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of the values; none if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// What can be said of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Of the first of each pair.
    pub before: Spread,
    /// Of the second.
    pub after: Spread,
    /// After over before, each of the same round; none if before is 0 in a round.
    pub ratio: Option<Spread>,
    /// Whether they differ.
    pub verdict: Verdict,
}

/// Whether before and after differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// They do, with this p-value, which is at most [`ALPHA`].
    Difference(f64),
    /// The rounds do not show that they do: this p-value is above [`ALPHA`].
    NoDifference(f64),
    /// So few rounds could not show a difference of any size.
    TooFewRounds,
}

impl Comparison {
    /// Of the pairs (before, after) of all rounds. None without a round, or if one has no value: the machine
    /// does not give the metric.
    pub fn of(rounds: &[(Option<f64>, Option<f64>)]) -> Option<Self> {
        let pairs: Vec<(f64, f64)> =
            rounds.iter().map(|&(before, after)| before.zip(after)).collect::<Option<_>>()?;
        let ratios: Option<Vec<f64>> =
            pairs.iter().map(|(before, after)| (*before > 0.0).then(|| after / before)).collect();
        Some(Self {
            before: Spread::of(pairs.iter().map(|(before, _)| *before))?,
            after: Spread::of(pairs.iter().map(|(_, after)| *after))?,
            ratio: ratios.and_then(Spread::of),
            verdict: Verdict::of(&pairs),
        })
    }
}

impl Verdict {
    fn of(pairs: &[(f64, f64)]) -> Self {
        if least_p_value(pairs.len()) > ALPHA {
            return Self::TooFewRounds;
        }
        match p_value(pairs) {
            p if p <= ALPHA => Self::Difference(p),
            p => Self::NoDifference(p),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(pairs: &[(f64, f64)]) -> Comparison {
        let rounds: Vec<_> = pairs.iter().map(|&(before, after)| (Some(before), Some(after))).collect();
        Comparison::of(&rounds).unwrap()
    }

    #[test]
    fn median_and_extremes() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    /// The spreads overlap, and yet each round says the same: what pairing is for.
    #[test]
    fn a_ratio_is_of_the_two_halves_of_a_round() {
        let slower_and_slower = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        let compared = compare(&slower_and_slower.map(|before| (before, before * 1.5)));
        assert_eq!(compared.ratio, Some(Spread { median: 1.5, min: 1.5, max: 1.5 }));
        assert_eq!(compared.verdict, Verdict::Difference(0.03125));
        assert!(compared.before.max > compared.after.min);
    }

    #[test]
    fn what_goes_both_ways_is_no_difference() {
        let pairs = [(10.0, 11.0), (10.0, 9.0), (10.0, 12.0), (10.0, 8.0), (10.0, 13.0), (10.0, 7.0)];
        assert!(matches!(compare(&pairs).verdict, Verdict::NoDifference(p) if p > 0.5));
        assert_eq!(compare(&[(0.0, 0.0); 6]).verdict, Verdict::NoDifference(1.0));
    }

    #[test]
    fn five_rounds_are_too_few_whatever_they_say_and_six_are_not() {
        for rounds in 1..=5 {
            let compared = compare(&vec![(0.5, 1.0); rounds]);
            assert_eq!(compared.verdict, Verdict::TooFewRounds);
            assert_eq!(compared.ratio.unwrap().median, 2.0, "what was measured is shown all the same");
        }
        assert_eq!(compare(&[(0.5, 1.0); 6]).verdict, Verdict::Difference(0.03125));
    }

    #[test]
    fn there_is_no_ratio_to_zero_and_no_comparison_without_a_value() {
        let compared = compare(&[(0.0, 1.0), (1.0, 2.0)]);
        assert_eq!((compared.ratio, compared.before.median), (None, 0.5));
        assert_eq!(Comparison::of(&[(Some(1.0), Some(1.0)), (Some(1.0), None)]), None);
        assert_eq!(Comparison::of(&[]), None);
    }
}
