//! Whether one worker accepts far more connections than its share. Pure.
//!
//! Steering by CPU gives a worker the connections whose SYNs its CPU receives. That is a fair share where a
//! NIC spreads them over all CPUs, and not where they come from a program on this host, or through fewer
//! queues than there are workers: then workers idle while one is busy.
//!
//! Skewed is a window of time in which the busiest worker accepted at least [`RATIO`] times its share, so
//! that all together do at most 57 % of what they could (with two workers: one has 87.5 %), provided that
//! this is no accident:
//!
//! * The window is the shortest of 1 to 10 s that ends now, has at least 256 connections, and half of them at
//!   most in one tick: a burst is no trend.
//! * With equal chances for all it would happen less than once in 10^12 windows (Chernoff's bound, for every
//!   worker). That matters with many workers: 256 connections over 48 make one of them look busy in every
//!   other window.

use std::collections::VecDeque;
use std::time::Duration;

/// How often the counts are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Times its share that the busiest worker has in a skewed window.
const RATIO: f64 = 1.75;
/// Windows are at least this long, and have at least so many connections.
const SHORTEST: Duration = Duration::from_secs(1);
const FEWEST: u64 = 256;
/// And at most this long.
const LONGEST: Duration = Duration::from_secs(10);
/// How unlikely an accident is, for all workers: e^-27.6 is 10^-12.
const SURPRISE: f64 = 27.6;

/// What the counts say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// Too few connections, or too short a time.
    NotEnough,
    /// No worker has far more than its share.
    Even,
    /// One has.
    Skewed(Skew),
}

/// A skewed window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Skew {
    /// Index of the busiest worker.
    pub(crate) worker: usize,
    /// What it accepted, or has open.
    pub(crate) accepted: u64,
    /// What all did, or have.
    pub(crate) total: u64,
    /// Within this time.
    pub(crate) time: Duration,
}

/// What happened between two looks at the counts.
#[derive(Debug)]
struct Tick {
    time: Duration,
    accepted: Vec<u64>,
}

/// The last [`LONGEST`] of what the workers accepted.
#[derive(Debug)]
pub(crate) struct Watch {
    now: Duration,
    totals: Vec<u64>,
    /// Newest first.
    ticks: VecDeque<Tick>,
}

impl Watch {
    /// Of workers that have accepted `totals` so far.
    pub(crate) fn new(totals: Vec<u64>) -> Self {
        Self { now: Duration::ZERO, totals, ticks: VecDeque::new() }
    }

    /// Takes what the workers have accepted in all, `now` after the watch began.
    pub(crate) fn observe(&mut self, now: Duration, totals: &[u64]) -> Verdict {
        let since = self.totals.iter().zip(totals).map(|(&before, &after)| after.saturating_sub(before));
        self.ticks.push_front(Tick { time: now.saturating_sub(self.now), accepted: since.collect() });
        self.now = now;
        self.totals.copy_from_slice(totals);
        self.verdict()
    }

    /// Looks at longer and longer windows, and forgets what is before the longest.
    fn verdict(&mut self) -> Verdict {
        let mut time = Duration::ZERO;
        let mut accepted = vec![0; self.totals.len()];
        let mut most_in_one = 0;
        for (index, tick) in self.ticks.iter().enumerate() {
            time += tick.time;
            accepted.iter_mut().zip(&tick.accepted).for_each(|(sum, count)| *sum += count);
            most_in_one = most_in_one.max(tick.accepted.iter().sum());
            let total: u64 = accepted.iter().sum();
            if time >= SHORTEST && total >= FEWEST && most_in_one <= total / 2 {
                match judge(&accepted, total, time) {
                    Verdict::NotEnough => {}
                    verdict => return verdict,
                }
            }
            if time >= LONGEST {
                self.ticks.truncate(index + 1);
                break;
            }
        }
        Verdict::NotEnough
    }
}

/// Of workers with this many connections open, and places for this many: the busiest, if it is full and has
/// far more than its share. Who comes to it waits, is not counted as accepted, and so makes no window skewed,
/// while others have room.
pub(crate) fn crowded(open: &[u64], places: &[u64]) -> Option<Skew> {
    let total = open.iter().sum();
    match (total > 0).then(|| judge(open, total, Duration::ZERO)) {
        Some(Verdict::Skewed(skew)) if open[skew.worker] >= places[skew.worker] => Some(skew),
        _ => None,
    }
}

fn judge(accepted: &[u64], total: u64, time: Duration) -> Verdict {
    let busiest = accepted.iter().copied().enumerate().max_by_key(|&(_, count)| count);
    let Some((worker, most)) = busiest else { return Verdict::NotEnough };
    let workers = as_f64(accepted.len() as u64);
    let (share, fair) = (as_f64(most) / as_f64(total), 1.0 / workers);
    if share < RATIO * fair {
        Verdict::Even
    } else if as_f64(total) * divergence(share, fair) < SURPRISE + workers.ln() {
        Verdict::NotEnough
    } else {
        Verdict::Skewed(Skew { worker, accepted: most, total, time })
    }
}

/// The divergence of Kullback and Leibler between two biased coins: of n throws of the `fair` one, a share of
/// `seen` or more has a probability of e^(-n * divergence) at most.
fn divergence(seen: f64, fair: f64) -> f64 {
    let part = |seen: f64, fair: f64| if seen > 0.0 { seen * (seen / fair).ln() } else { 0.0 };
    part(seen, fair) + part(1.0 - seen, 1.0 - fair)
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The last verdict, and when the first one of a skew came, if counts grow by these in every tick.
    fn watch(workers: usize, ticks: &[Vec<u64>]) -> (Verdict, Option<Duration>) {
        let mut watch = Watch::new(vec![0; workers]);
        let mut totals = vec![0; workers];
        let (mut now, mut last, mut skewed) = (Duration::ZERO, Verdict::NotEnough, None);
        for tick in ticks {
            now += TICK;
            totals.iter_mut().zip(tick).for_each(|(total, count)| *total += count);
            last = watch.observe(now, &totals);
            if matches!(last, Verdict::Skewed(_)) {
                skewed = skewed.or(Some(now));
            }
        }
        (last, skewed)
    }

    #[test]
    fn one_worker_of_two_that_gets_everything_is_seen_after_a_second() {
        let (verdict, skewed) = watch(2, &vec![vec![3, 1277]; 4]);
        let skew = Skew { worker: 1, accepted: 4 * 1277, total: 5120, time: Duration::from_secs(1) };
        assert_eq!((verdict, skewed), (Verdict::Skewed(skew), Some(Duration::from_secs(1))));
    }

    #[test]
    fn sixty_to_forty_is_even() {
        assert_eq!(watch(2, &vec![vec![600, 400]; 100]), (Verdict::Even, None));
        assert_eq!(watch(2, &vec![vec![3, 2]; 100]).1, None, "slowly, too");
    }

    #[test]
    fn eighty_to_twenty_is_borne_and_ninety_to_ten_is_not() {
        assert_eq!(watch(2, &vec![vec![800, 200]; 100]), (Verdict::Even, None));
        assert!(watch(2, &vec![vec![900, 100]; 4]).1.is_some());
    }

    #[test]
    fn a_slow_client_is_seen_within_ten_seconds_and_a_very_slow_one_never() {
        assert_eq!(watch(2, &vec![vec![10, 0]; 40]).1, Some(26 * TICK), "26 * 10 are 256 and more");
        assert_eq!(watch(2, &vec![vec![6, 0]; 400]), (Verdict::NotEnough, None));
    }

    #[test]
    fn a_burst_is_no_trend() {
        let mut ticks = vec![vec![0, 0]; 8];
        ticks.push(vec![5000, 0]);
        ticks.extend(vec![vec![100, 90]; 8]);
        assert_eq!(watch(2, &ticks).1, None);
    }

    #[test]
    fn what_was_even_long_ago_does_not_hide_a_skew() {
        let mut ticks = vec![vec![5000, 5000]; 100];
        ticks.extend(vec![vec![1000, 0]; 5]);
        let (verdict, skewed) = watch(2, &ticks);
        assert!(matches!(verdict, Verdict::Skewed(_)), "{verdict:?}");
        assert_eq!(skewed, Some(104 * TICK));
    }

    #[test]
    fn eight_queues_for_48_workers_are_a_skew() {
        let tick: Vec<u64> = (0..48).map(|worker| if worker < 8 { 100 } else { 0 }).collect();
        assert!(watch(48, &vec![tick; 4]).1.is_some());
    }

    /// 256 connections, 9 of which on one of 48: 1.7 times its share is what one of them has in every other
    /// window.
    #[test]
    fn many_workers_need_more_connections_to_be_sure() {
        let tick = |scale: u64| (0..48).map(|w| if w == 0 { 2 * scale } else { scale }).collect::<Vec<u64>>();
        assert_eq!(watch(48, &vec![tick(2); 4]), (Verdict::NotEnough, None));
        assert!(watch(48, &vec![tick(100); 4]).1.is_some());
    }

    #[test]
    fn a_full_worker_is_crowded_if_it_has_nearly_all_connections() {
        let crowded =
            |open: &[u64], places| crowded(open, places).map(|skew| (skew.worker, skew.accepted, skew.total));
        assert_eq!(crowded(&[0, 50], &[50, 50]), Some((1, 50, 50)));
        assert_eq!(crowded(&[0, 49], &[50, 50]), None, "there is room");
        assert_eq!(crowded(&[40, 50], &[50, 50]), None, "they are even");
        assert_eq!(crowded(&[0, 4], &[4, 4]), None, "an accident once in 8 times");
        assert_eq!(crowded(&[0, 0], &[0, 0]), None);
        assert_eq!(crowded(&[50], &[50]), None);
    }

    #[test]
    fn a_single_worker_is_never_skewed() {
        assert_eq!(watch(1, &vec![vec![5000]; 100]), (Verdict::Even, None));
    }

    #[test]
    fn memory_is_bounded_by_the_longest_window() {
        let mut watch = Watch::new(vec![0; 2]);
        (1..1000).for_each(|tick| _ = watch.observe(TICK * tick, &[0, 0]));
        assert_eq!(watch.ticks.len(), 40);
    }

    /// Connections that each go to a worker by chance.
    fn by_chance(workers: usize) -> impl Strategy<Value = Vec<Vec<u64>>> {
        let tick = prop::collection::vec(0..workers, 0..300).prop_map(move |chosen| {
            let mut tick = vec![0; workers];
            chosen.into_iter().for_each(|worker| tick[worker] += 1);
            tick
        });
        prop::collection::vec(tick, 1..24)
    }

    proptest! {
        #[test]
        fn chance_alone_is_never_skewed(
            ticks in prop_oneof![by_chance(2), by_chance(3), by_chance(48)]
        ) {
            prop_assert_eq!(watch(ticks[0].len(), &ticks).1, None);
        }

        #[test]
        fn fewer_than_256_in_ten_seconds_are_never_skewed(
            ticks in prop::collection::vec(prop::collection::vec(0..4u64, 2), 1..100)
        ) {
            let few = |window: &[Vec<u64>]| window.iter().flatten().sum::<u64>() < FEWEST;
            prop_assume!(ticks.windows(40.min(ticks.len())).all(few));
            prop_assert_eq!(watch(2, &ticks).1, None);
        }

        #[test]
        fn everything_on_one_worker_is_seen_wherever_it_is(
            workers in 2..100usize, which in any::<prop::sample::Index>(), rate in 64..100_000u64
        ) {
            let mut tick = vec![0; workers];
            let worker = which.index(workers);
            tick[worker] = rate;
            let (verdict, skewed) = watch(workers, &vec![tick; 4]);
            prop_assert_eq!(skewed, Some(SHORTEST));
            let skew = Skew { worker, accepted: 4 * rate, total: 4 * rate, time: SHORTEST };
            prop_assert_eq!(verdict, Verdict::Skewed(skew));
        }

        #[test]
        fn which_worker_it_is_does_not_matter(
            ticks in prop::collection::vec(prop::collection::vec(0..500u64, 4), 1..50)
        ) {
            let turned: Vec<Vec<u64>> = ticks.iter().map(|tick| tick.iter().rev().copied().collect()).collect();
            prop_assert_eq!(watch(4, &ticks).1, watch(4, &turned).1);
        }
    }
}
