//! Several rounds of one metric: median, spread, and whether before and after differ. Pure.

use serde::Serialize;

/// Median and extremes of a metric over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of the values; none if there are none, or if one round has no value: the machine does not give it.
    pub(crate) fn of(values: &[Option<f64>]) -> Option<Self> {
        let mut values: Vec<f64> = values.iter().copied().collect::<Option<_>>()?;
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

    fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// What can be said of before and after.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Comparison {
    /// After over before, by their medians; every value after is above, or below, every value before.
    Ratio(f64),
    /// As [`Comparison::Ratio`], but before is 0.
    FromZero,
    /// The spreads overlap.
    NoDifference,
    /// The machine does not give the metric.
    NotSupported,
}

impl Comparison {
    pub(crate) fn of(before: Option<Spread>, after: Option<Spread>) -> Self {
        match (before, after) {
            (Some(before), Some(after)) if before.overlaps(&after) => Self::NoDifference,
            (Some(before), Some(_)) if before.median == 0.0 => Self::FromZero,
            (Some(before), Some(after)) => Self::Ratio(after.median / before.median),
            _ => Self::NotSupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Option<Spread> {
        Spread::of(&values.iter().copied().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn median_and_extremes() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[]), None);
        assert_eq!(Spread::of(&[Some(1.0), None]), None);
    }

    #[test]
    fn overlapping_spreads_are_no_difference() {
        let compare = |before: &[f64], after: &[f64]| Comparison::of(spread(before), spread(after));
        assert_eq!(compare(&[1.0, 2.0], &[2.0, 9.0]), Comparison::NoDifference);
        assert_eq!(compare(&[1.0, 9.0], &[3.0, 4.0]), Comparison::NoDifference);
        assert_eq!(compare(&[1.0, 3.0], &[4.0, 6.0]), Comparison::Ratio(2.5));
        assert_eq!(compare(&[4.0, 6.0], &[1.0, 1.0]), Comparison::Ratio(0.2));
        assert_eq!(compare(&[0.0, 0.0], &[1.0, 2.0]), Comparison::FromZero);
        assert_eq!(compare(&[0.0], &[0.0]), Comparison::NoDifference);
        assert_eq!(Comparison::of(None, spread(&[1.0])), Comparison::NotSupported);
    }
}
