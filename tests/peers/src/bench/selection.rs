//! Which rounds count. Pure.

use serde::Serialize;

use super::distance::Classes;

/// Share of foreign CPU time above which a round is disturbed.
pub(crate) const FOREIGN: f64 = 0.08;

/// What decides whether a round counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conditions {
    /// The greatest share of foreign CPU time of its turns.
    pub(crate) foreign: f64,
    /// The distances between the CPUs beside its turns, nanoseconds. All of them: where a busy machine strews
    /// them, those in the middle say that the least and the greatest are of one class.
    pub(crate) distances: Vec<f64>,
    /// An answer was wrong or missing.
    pub(crate) failed: bool,
}

/// The rounds that count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Selection {
    /// Their places, in order.
    pub(crate) rounds: Vec<usize>,
    /// How many of them are disturbed: they are here because there were not enough others.
    pub(crate) disturbed: usize,
}

impl Conditions {
    fn undisturbed(&self) -> bool {
        self.foreign <= FOREIGN
    }
}

/// Of the rounds of one class of distances, the undisturbed ones, or, if fewer than `wanted` are, the least
/// disturbed beside them. The class is that of most undisturbed rounds, then that of most.
pub(crate) fn select(rounds: &[Conditions], wanted: usize) -> Selection {
    let classes = Classes::of(rounds.iter().flat_map(|round| round.distances.iter().copied()));
    let of = |class: usize| -> Vec<usize> {
        let usable =
            |&index: &usize| !rounds[index].failed && classes.find(&rounds[index].distances) == Some(class);
        (0..rounds.len()).filter(usable).collect()
    };
    let undisturbed = |places: &[usize]| places.iter().filter(|&&index| rounds[index].undisturbed()).count();
    let key = |places: &Vec<usize>| (undisturbed(places).min(wanted), places.len());
    let mut places = (0..classes.len()).map(of).max_by_key(key).unwrap_or_default();
    // A stable sort: of rounds that are disturbed alike, or not at all, the earlier ones.
    let foreign = |index: &usize| if rounds[*index].undisturbed() { 0.0 } else { rounds[*index].foreign };
    places.sort_by(|a, b| foreign(a).total_cmp(&foreign(b)));
    places.truncate(wanted);
    places.sort_unstable();
    let disturbed = places.len() - undisturbed(&places);
    Selection { rounds: places, disturbed }
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

    const NEAR: &[f64] = &[30.0, 33.0];
    const FAR: &[f64] = &[150.0, 160.0];
    /// The distance changed in the round.
    const CHANGED: &[f64] = &[31.0, 155.0];

    fn round(foreign: f64, distances: &[f64]) -> Conditions {
        Conditions { foreign, distances: distances.to_vec(), failed: false }
    }

    #[test]
    fn disturbed_rounds_are_replaced_when_there_are_others() {
        let mut rounds = vec![round(0.01, NEAR), round(0.5, NEAR), round(0.02, NEAR)];
        assert!(!is_enough(&rounds, 3));
        assert_eq!(select(&rounds, 3), Selection { rounds: vec![0, 1, 2], disturbed: 1 });
        rounds.push(round(0.3, NEAR));
        assert_eq!(select(&rounds, 3).rounds, [0, 2, 3]);
        rounds.push(round(0.03, NEAR));
        assert!(is_enough(&rounds, 3));
        assert_eq!(select(&rounds, 3), Selection { rounds: vec![0, 2, 4], disturbed: 0 });
    }

    #[test]
    fn distances_are_not_mixed_and_failures_do_not_count() {
        let failed = Conditions { failed: true, ..round(0.0, FAR) };
        let rounds = [round(0.01, NEAR), round(0.01, FAR), round(0.01, CHANGED), round(0.01, FAR), failed];
        assert_eq!(select(&rounds, 4), Selection { rounds: vec![1, 3], disturbed: 0 });
        assert_eq!(select(&[], 4), Selection::default());
    }

    /// Measured beside four busy loops. Of the least and the greatest alone there would be two classes, and
    /// no round in one.
    #[test]
    fn distances_that_are_strewn_are_of_one_class() {
        let rounds = [
            round(0.9, &[57.0, 87.0, 58.0, 66.0, 64.0, 54.0]),
            round(0.9, &[58.0, 64.0, 53.0, 81.0, 79.0, 88.0]),
            round(0.9, &[63.0, 59.0, 83.0, 55.0, 80.0, 59.0]),
        ];
        assert_eq!(select(&rounds, 2), Selection { rounds: vec![0, 1], disturbed: 2 });
    }

    proptest! {
        #[test]
        fn what_is_selected_is_of_one_distance_and_no_disturbed_round_stands_for_an_undisturbed_one(
            rounds in prop::collection::vec((0.0..0.2, 0..3usize, any::<bool>()), 0..20), wanted in 1..10usize,
        ) {
            let distances = |class| [CHANGED, NEAR, FAR][class];
            let rounds: Vec<_> = rounds
                .into_iter()
                .map(|(foreign, class, failed)| Conditions { failed, ..round(foreign, distances(class)) })
                .collect();
            let selection = select(&rounds, wanted);
            prop_assert!(selection.rounds.len() <= wanted && selection.rounds.is_sorted());
            let Some(&first) = selection.rounds.first() else { return Ok(()) };
            let class = &rounds[first].distances;
            prop_assert!(class != CHANGED);
            for &index in &selection.rounds {
                prop_assert!(!rounds[index].failed && rounds[index].distances == *class);
            }
            if selection.disturbed > 0 {
                for index in (0..rounds.len()).filter(|index| !selection.rounds.contains(index)) {
                    let other = &rounds[index];
                    prop_assert!(other.failed || other.distances != *class || !other.undisturbed());
                }
            }
        }
    }
}
