//! Which rounds count. Pure.

use serde::Serialize;

use super::distance::Distance;

/// Share of foreign CPU time above which a round is disturbed.
pub(crate) const FOREIGN: f64 = 0.08;

/// What decides whether a round counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Conditions {
    /// The greatest share of foreign CPU time of its turns.
    pub(crate) foreign: f64,
    /// The distance in all its turns, if it was the same.
    pub(crate) distance: Option<Distance>,
    /// An answer was wrong or missing.
    pub(crate) failed: bool,
}

/// The rounds that count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Selection {
    /// Their places, in order.
    pub(crate) rounds: Vec<usize>,
    /// Their distance.
    pub(crate) distance: Option<Distance>,
    /// How many of them are disturbed: they are here because there were not enough others.
    pub(crate) disturbed: usize,
}

impl Conditions {
    fn undisturbed(&self) -> bool {
        self.foreign <= FOREIGN
    }
}

/// Of the rounds of one distance, the undisturbed ones, or, if fewer than `wanted` are, the least disturbed beside them. The
/// distance is that of most undisturbed rounds, then that of most.
pub(crate) fn select(rounds: &[Conditions], wanted: usize) -> Selection {
    let of = |distance: Distance| -> Vec<usize> {
        let usable = |&index: &usize| !rounds[index].failed && rounds[index].distance == Some(distance);
        (0..rounds.len()).filter(usable).collect()
    };
    let undisturbed = |places: &[usize]| places.iter().filter(|&&index| rounds[index].undisturbed()).count();
    let (near, far) = (of(Distance::Near), of(Distance::Far));
    let key = |places: &[usize]| (undisturbed(places).min(wanted), places.len());
    let (mut places, distance) =
        if key(&far) > key(&near) { (far, Distance::Far) } else { (near, Distance::Near) };
    // A stable sort: of rounds that are disturbed alike, or not at all, the earlier ones.
    let foreign = |index: &usize| if rounds[*index].undisturbed() { 0.0 } else { rounds[*index].foreign };
    places.sort_by(|a, b| foreign(a).total_cmp(&foreign(b)));
    places.truncate(wanted);
    places.sort_unstable();
    let disturbed = places.len() - undisturbed(&places);
    let distance = (!places.is_empty()).then_some(distance);
    Selection { rounds: places, distance, disturbed }
}

/// True if no further round is needed.
pub(crate) fn is_enough(rounds: &[Conditions], wanted: usize) -> bool {
    let selection = select(rounds, wanted);
    selection.rounds.len() == wanted && selection.disturbed == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(foreign: f64, distance: impl Into<Option<Distance>>) -> Conditions {
        Conditions { foreign, distance: distance.into(), failed: false }
    }

    #[test]
    fn disturbed_rounds_are_replaced_when_there_are_others() {
        use Distance::Near;
        let mut rounds = vec![round(0.01, Near), round(0.5, Near), round(0.02, Near)];
        assert!(!is_enough(&rounds, 3));
        assert_eq!(
            select(&rounds, 3),
            Selection { rounds: vec![0, 1, 2], distance: Some(Near), disturbed: 1 }
        );
        rounds.push(round(0.3, Near));
        assert_eq!(select(&rounds, 3).rounds, [0, 2, 3]);
        rounds.push(round(0.03, Near));
        assert!(is_enough(&rounds, 3));
        assert_eq!(
            select(&rounds, 3),
            Selection { rounds: vec![0, 2, 4], distance: Some(Near), disturbed: 0 }
        );
    }

    #[test]
    fn distances_are_not_mixed_and_failures_do_not_count() {
        use Distance::{Far, Near};
        let failed = Conditions { failed: true, ..round(0.0, Far) };
        let rounds = [round(0.01, Near), round(0.01, Far), round(0.01, None), round(0.01, Far), failed];
        assert_eq!(select(&rounds, 4), Selection { rounds: vec![1, 3], distance: Some(Far), disturbed: 0 });
        assert_eq!(select(&[], 4), Selection { rounds: vec![], distance: None, disturbed: 0 });
    }

    proptest! {
        #[test]
        fn what_is_selected_is_of_one_distance_and_no_disturbed_round_stands_for_an_undisturbed_one(
            rounds in prop::collection::vec((0.0..0.2, 0..3usize, any::<bool>()), 0..20), wanted in 1..10usize,
        ) {
            let distance = |class| [None, Some(Distance::Near), Some(Distance::Far)][class];
            let rounds: Vec<_> = rounds
                .into_iter()
                .map(|(foreign, class, failed)| Conditions { foreign, distance: distance(class), failed })
                .collect();
            let selection = select(&rounds, wanted);
            prop_assert!(selection.rounds.len() <= wanted && selection.rounds.is_sorted());
            for &index in &selection.rounds {
                prop_assert!(!rounds[index].failed && rounds[index].distance == selection.distance);
            }
            if selection.disturbed > 0 {
                let left = (0..rounds.len()).filter(|index| !selection.rounds.contains(index));
                for index in left {
                    let other = rounds[index];
                    prop_assert!(other.failed || other.distance != selection.distance || !other.undisturbed());
                }
            }
        }
    }
}
