//! Medians with their spread. Pure.

use serde::Serialize;

/// The middle of some values, and their ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The median: of an even number of values the mean of the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// None without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }

    /// Of the ratios of the pairs, not the ratio of the medians: what both of a pair have suffered cancels out. A pair whose
    /// second value is 0 has no ratio.
    pub(crate) fn of_ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        Self::of(pairs.into_iter().filter(|&(_, below)| below != 0.0).map(|(above, below)| above / below))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), spread(3.0, 3.0, 3.0));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), spread(2.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), spread(3.0, 1.0, 9.0));
    }

    #[test]
    fn ratios_are_of_pairs() {
        // The machine was half as fast in the second round: the ratio does not show it.
        let spread = Spread::of_ratios([(4.0, 5.0), (8.0, 10.0), (1.0, 0.0)]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (0.8, 0.8, 0.8));
    }

    proptest! {
        #[test]
        fn half_of_the_values_is_on_each_side(values in prop::collection::vec(-1e9..1e9, 1..40)) {
            let spread = Spread::of(values.clone()).unwrap();
            let below = values.iter().filter(|&&value| value <= spread.median).count();
            let above = values.iter().filter(|&&value| value >= spread.median).count();
            prop_assert!(2 * below >= values.len() && 2 * above >= values.len());
            prop_assert!(spread.min <= spread.median && spread.median <= spread.max);
        }
    }
}
