//! Open loop: when which message starts. Pure.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::pattern::next_random;

/// How the starts of an open loop are spread in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// At equal distances.
    #[default]
    Uniform,
    /// As independent users would come: the distances are random, exponentially distributed. The same in each
    /// run.
    Poisson,
}

/// The messages of one thread. All threads together start `rate` messages per second.
#[derive(Debug)]
pub(crate) struct Arrivals {
    start: Instant,
    spacing: Spacing,
    /// Nanoseconds between two messages of this thread, on average.
    mean: f64,
    /// Number of the next message on this thread.
    number: u64,
    /// When the next message starts, nanoseconds after `start`.
    next: f64,
    /// No message starts at this time or later, nanoseconds after `start`.
    end: f64,
    /// State of the random numbers.
    random: u64,
}

/// A message that is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Its number on this thread.
    pub(crate) number: u64,
    /// When it should start.
    pub(crate) time: Instant,
}

/// What all threads' arrivals have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) start: Instant,
    pub(crate) duration: Duration,
    /// Messages per second of all threads.
    pub(crate) rate: u32,
    pub(crate) spacing: Spacing,
    pub(crate) threads: usize,
}

impl Arrivals {
    /// The part of thread `index`. With equal distances the threads take turns.
    pub(crate) fn new(plan: &Plan, index: usize) -> Self {
        let between = 1e9 / f64::from(plan.rate);
        let mut arrivals = Self {
            start: plan.start,
            spacing: plan.spacing,
            mean: between * plan.threads as f64,
            number: 0,
            next: between * index as f64,
            end: plan.duration.as_nanos() as f64,
            random: index as u64,
        };
        if plan.spacing == Spacing::Poisson {
            arrivals.next = arrivals.distance();
        }
        arrivals
    }

    /// From one message to the next, nanoseconds.
    fn distance(&mut self) -> f64 {
        match self.spacing {
            Spacing::Uniform => self.mean,
            Spacing::Poisson => {
                // 53 random bits, from 2^-54 to below 1: the logarithm is finite.
                let uniform = ((next_random(&mut self.random) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
                -self.mean * uniform.ln()
            }
        }
    }

    /// When the next message starts, whether it is time or not; none if all have been taken.
    pub(crate) fn peek(&self) -> Option<Arrival> {
        // Half a nanosecond: the distances are sums of fractions.
        let time = self.start + Duration::from_secs_f64(self.next / 1e9);
        (self.next + 0.5 < self.end).then_some(Arrival { number: self.number, time })
    }

    /// Takes the next message if its time has come.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Arrival> {
        let arrival = self.peek().filter(|arrival| arrival.time <= now)?;
        self.number += 1;
        self.next += self.distance();
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn taken(thread: &mut Arrivals, now: Instant) -> Vec<Arrival> {
        std::iter::from_fn(|| thread.take(now)).collect()
    }

    fn plan(rate: u32, spacing: Spacing, threads: usize, duration: Duration) -> Plan {
        Plan { start: Instant::now(), duration, rate, spacing, threads }
    }

    #[test]
    fn the_threads_take_turns_at_equal_distances() {
        let plan = plan(1000, Spacing::Uniform, 3, 10 * MS);
        let mut threads: Vec<_> = (0..3).map(|index| Arrivals::new(&plan, index)).collect();
        let times = |thread: &mut Arrivals, now: Duration| -> Vec<_> {
            taken(thread, plan.start + now)
                .iter()
                .map(|a| (a.number, (a.time - plan.start).as_millis()))
                .collect()
        };
        assert_eq!(times(&mut threads[0], 5 * MS), [(0, 0), (1, 3)]);
        assert_eq!(threads[0].peek().unwrap().time, plan.start + 6 * MS);
        assert_eq!(times(&mut threads[1], 100 * MS), [(0, 1), (1, 4), (2, 7)]);
        assert_eq!(times(&mut threads[2], 100 * MS), [(0, 2), (1, 5), (2, 8)]);
        assert_eq!(times(&mut threads[0], 100 * MS), [(2, 6), (3, 9)]);
        assert!(threads.iter().all(|thread| thread.peek().is_none()));
    }

    #[test]
    fn a_day_at_the_highest_rate_does_not_drift() {
        let day = Duration::from_secs(86_400);
        let mut arrivals = Arrivals::new(&plan(100_000_000, Spacing::Uniform, 1, day), 0);
        arrivals.next = arrivals.end - 10.0;
        assert!(arrivals.take(arrivals.start + day).is_some() && arrivals.peek().is_none());
    }

    /// Distances of a Poisson process: their mean and their standard deviation are the same, and they do not
    /// depend on one another.
    #[test]
    fn random_distances_are_exponential() {
        let plan = plan(1_000_000, Spacing::Poisson, 2, 100 * MS);
        let arrivals = taken(&mut Arrivals::new(&plan, 1), plan.start + 100 * MS);
        let gaps: Vec<f64> =
            arrivals.windows(2).map(|pair| (pair[1].time - pair[0].time).as_secs_f64() * 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let covariance = |lag: usize| {
            let products = gaps.iter().zip(&gaps[lag..]).map(|(a, b)| (a - mean) * (b - mean));
            products.sum::<f64>() / (gaps.len() - lag) as f64
        };
        assert!((1.96..2.04).contains(&mean), "{mean}");
        assert!((0.95..1.05).contains(&(covariance(0).sqrt() / mean)), "{}", covariance(0));
        assert!((covariance(1) / covariance(0)).abs() < 0.02, "{}", covariance(1));
        let long = gaps.iter().filter(|&&gap| gap > 3.0 * mean).count() as f64 / gaps.len() as f64;
        assert!((0.045..0.055).contains(&long), "e^-3 = 0.0498, not {long}");
    }

    proptest! {
        #[test]
        fn no_message_is_taken_early_and_the_rate_is_that_of_all_threads(
            rate in 1..1_000_000u32, threads in 1..9usize, poisson in any::<bool>(),
            looks in proptest::collection::vec(0..50_000u64, 1..50),
        ) {
            let spacing = if poisson { Spacing::Poisson } else { Spacing::Uniform };
            let plan = plan(rate, spacing, threads, 50 * MS);
            let mut all = Vec::new();
            for index in 0..threads {
                let mut arrivals = Arrivals::new(&plan, index);
                let (mut now, mut own) = (plan.start, Vec::new());
                for &look in &looks {
                    now += Duration::from_micros(look);
                    let batch = taken(&mut arrivals, now);
                    prop_assert!(batch.iter().all(|arrival| arrival.time <= now));
                    own.extend(batch);
                }
                own.extend(taken(&mut arrivals, plan.start + 51 * MS));
                prop_assert!(own.iter().all(|arrival| arrival.time < plan.start + 50 * MS));
                prop_assert!(own.windows(2).all(|pair| pair[0].time <= pair[1].time));
                prop_assert!(own.iter().zip(0..).all(|(arrival, number)| arrival.number == number));
                all.extend(own);
            }
            let expected = f64::from(rate) * 0.05;
            let allowed = if poisson { 5.0 * expected.sqrt() + 5.0 } else { 1.0 };
            prop_assert!((all.len() as f64 - expected).abs() <= allowed, "{} {expected}", all.len());
        }
    }
}
