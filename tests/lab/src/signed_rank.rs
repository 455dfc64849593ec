//! Whether pairs of values differ: an exact test. Pure.
//!
//! Wilcoxon's signed-rank test (F. Wilcoxon, *Individual comparisons by ranking methods*, Biometrics Bulletin
//! 1, 1945), which is the sign-flip permutation test on ranks: chosen because it uses the pairing of the
//! rounds, needs no distribution of the values, is exact for few rounds, and one disturbed round counts no
//! more than its rank.
//!
//! What it takes for granted is that, if before and after do not differ, each half of a round is as likely to
//! be the greater one. The lab therefore changes their order from round to round.

/// Two-sided probability that, if neither of a pair tends to be greater, the ranks of the pairs are as
/// one-sided as these or more: 1 if nothing differs, 2^(1-n) if all of n do in one direction.
///
/// Pairs are ranked by their relative difference, so that a round in which the whole machine was slower
/// counts as much as any other, and 0 is a value like all. Pairs without a difference are left out; of ties
/// each has the mean rank.
pub(crate) fn p_value(pairs: &[(f64, f64)]) -> f64 {
    let mut differences: Vec<f64> =
        pairs.iter().map(|&pair| relative_difference(pair)).filter(|difference| *difference != 0.0).collect();
    differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let ranks = doubled_ranks(&differences);
    let total: usize = ranks.iter().sum();
    let positive: usize = differences
        .iter()
        .zip(&ranks)
        .filter(|(difference, _)| **difference > 0.0)
        .map(|(_, rank)| rank)
        .sum();
    let tail: f64 = sums(&ranks)[..=positive.min(total - positive)].iter().sum();
    (2.0 * tail).min(1.0)
}

/// The smallest p-value that so many pairs can have.
pub(crate) fn least_p_value(pairs: usize) -> f64 {
    i32::try_from(pairs).map_or(0.0, |pairs| 2f64.powi(1 - pairs).min(1.0))
}

/// (b - a) / (a + b), -1 to 1: changes its sign with the order, and not with the unit.
fn relative_difference((a, b): (f64, f64)) -> f64 {
    if a == b { 0.0 } else { (b - a) / (a + b) }
}

/// Twice the rank of each of `sorted`, which makes the mean rank of a tie a whole number.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for tie in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        let first = ranks.len() + 1;
        let last = ranks.len() + tie.len();
        ranks.resize(last, first + last);
    }
    ranks
}

/// The probability of each sum of ranks when each rank is added or not by the toss of a coin.
fn sums(ranks: &[usize]) -> Vec<f64> {
    let total: usize = ranks.iter().sum();
    let mut probabilities = vec![0.0; total + 1];
    probabilities[0] = 1.0;
    for &rank in ranks {
        for sum in (0..=total).rev() {
            let with = if sum >= rank { probabilities[sum - rank] } else { 0.0 };
            probabilities[sum] = f64::midpoint(probabilities[sum], with);
        }
    }
    probabilities
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pairs whose relative differences have these signs and, in this order, the ranks 1, 2, 3, …
    fn signs(signs: &[bool]) -> Vec<(f64, f64)> {
        let pair =
            |(rank, &up): (f64, &bool)| if up { (1000.0, 1000.0 + rank) } else { (1000.0 + rank, 1000.0) };
        (1..).map(f64::from).zip(signs).map(pair).collect()
    }

    /// All signs of the ranks, counted.
    fn by_enumeration(pairs: &[(f64, f64)]) -> f64 {
        let mut differences: Vec<f64> =
            pairs.iter().map(|&pair| relative_difference(pair)).filter(|d| *d != 0.0).collect();
        differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let ranks: Vec<f64> = doubled_ranks(&differences).into_iter().map(|rank| rank as f64).collect();
        let signed = |positive: &dyn Fn(usize) -> bool| {
            ranks.iter().enumerate().map(|(i, rank)| if positive(i) { *rank } else { -rank }).sum::<f64>()
        };
        let observed = signed(&|i| differences[i] > 0.0).abs();
        let all = 1u32 << ranks.len();
        let extreme = (0..all).filter(|set| signed(&|i| set & (1 << i) != 0).abs() >= observed).count();
        extreme as f64 / f64::from(all)
    }

    #[test]
    fn all_in_one_direction_is_the_least_that_is_possible() {
        for pairs in 1..=20 {
            for up in [true, false] {
                assert_eq!(p_value(&signs(&vec![up; pairs])), least_p_value(pairs), "{pairs}");
            }
        }
        assert_eq!((least_p_value(5), least_p_value(6)), (0.0625, 0.03125));
        assert_eq!(p_value(&[]), 1.0);
        assert_eq!(p_value(&[(0.0, 0.0), (3.0, 3.0)]), 1.0, "nothing differs");
    }

    /// The largest sums of the minority's ranks with p <= 0.05, two-sided, as in every printed table.
    #[test]
    fn critical_values_are_those_of_the_tables() {
        for (pairs, critical) in
            [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25), (20, 52), (25, 89)]
        {
            let p = |sum: usize| {
                // The greatest ranks that fit are negative.
                let (mut left, mut up) = (sum, vec![true; pairs]);
                for rank in (1..=pairs).rev().filter(|&rank| (rank <= left).then(|| left -= rank).is_some()) {
                    up[rank - 1] = false;
                }
                p_value(&signs(&up))
            };
            assert!(
                p(critical) <= 0.05 && p(critical + 1) > 0.05,
                "{pairs}: {} {}",
                p(critical),
                p(critical + 1)
            );
        }
    }

    /// Darwin's maize, the example of `scipy.stats.wilcoxon`: ranks 10 and 14 of 15 are negative, W = 24.
    #[test]
    fn a_published_p_value() {
        let up: Vec<bool> = (1..=15).map(|rank| rank != 10 && rank != 14).collect();
        assert_eq!(p_value(&signs(&up)), 0.041_259_765_625);
    }

    #[test]
    fn zero_is_a_value_and_ties_share_their_rank() {
        assert_eq!(p_value(&[(0.0, 1.0), (0.0, 7.0), (0.0, 2.0), (0.0, 3.0)]), 0.125);
        assert_eq!(doubled_ranks(&[0.1, -0.2, 0.2, 0.3]), [2, 5, 5, 8]);
        assert_eq!(p_value(&[(1.0, 2.0), (2.0, 1.0)]), 1.0, "a tie of opposite signs");
    }

    #[test]
    fn it_ends_for_the_most_rounds() {
        let p = p_value(&signs(&[true; 200]));
        assert!(p > 0.0 && p < 1e-50, "{p}");
    }

    proptest! {
        #[test]
        fn it_is_the_count_of_all_signs(
            pairs in prop::collection::vec((0..6u8, 0..6u8), 0..11),
        ) {
            let pairs: Vec<(f64, f64)> = pairs.into_iter().map(|(a, b)| (a.into(), b.into())).collect();
            let (p, counted) = (p_value(&pairs), by_enumeration(&pairs));
            prop_assert!((p - counted).abs() < 1e-12, "{} {}", p, counted);
        }

        #[test]
        fn before_and_after_may_change_places_and_units(
            pairs in prop::collection::vec((1..1000u32, 1..1000u32), 1..20),
        ) {
            let map = |change: fn((f64, f64)) -> (f64, f64)| {
                pairs.iter().map(|&(a, b)| change((a.into(), b.into()))).collect::<Vec<_>>()
            };
            let p = p_value(&map(|pair| pair));
            prop_assert!(p > 0.0 && p <= 1.0);
            prop_assert_eq!(p, p_value(&map(|(a, b)| (b, a))));
            prop_assert_eq!(p, p_value(&map(|(a, b)| (a * 1024.0, b * 1024.0))));
        }
    }
}
