//! How far two CPUs are from each other: how long a cache line takes from one to the other.
//!
//! Two virtual CPUs are sometimes two threads of one core and sometimes on different sockets, as the host's
//! scheduler pleases, for minutes; an exchange of messages costs half as much again then. So rounds are
//! compared only if they were measured at the same distance.

use std::hint::spin_loop;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tune::affinity;
use tune::cpu_set::Cpu;

/// Times to and fro of one batch, and batches. The fastest batch counts: one in which nobody was interrupted.
const ROUND_TRIPS: u32 = 200;
const BATCHES: u32 = 20;

/// Of two distances that follow each other in order of size, the greater begins a new class if it is more
/// than so many times the lesser.
const STEP: f64 = 1.5;

/// Classes of distances: what is in one class can be compared. Nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Classes(Vec<RangeInclusive<f64>>);

impl Classes {
    /// Those that some distances fall into.
    pub(crate) fn of(distances: impl IntoIterator<Item = f64>) -> Self {
        let mut distances: Vec<f64> = distances.into_iter().collect();
        distances.sort_unstable_by(f64::total_cmp);
        let ranges = distances.chunk_by(|&lesser, &greater| greater <= STEP * lesser);
        Self(ranges.filter_map(|range| Some(*range.first()?..=*range.last()?)).collect())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The class that holds all of some distances.
    pub(crate) fn find(&self, distances: &[f64]) -> Option<usize> {
        self.0.iter().position(|class| distances.iter().all(|distance| class.contains(distance)))
    }
}

/// A cache line of its own.
#[repr(align(128))]
struct Ball(AtomicU32);

/// Time that a cache line takes from `a` to `b`: half a round trip.
pub(crate) fn measure(a: Cpu, b: Cpu) -> anyhow::Result<Duration> {
    let ball = Ball(AtomicU32::new(0));
    let failed = AtomicBool::new(false);
    let last = 2 * ROUND_TRIPS * BATCHES;
    // One waits for even numbers and the other for odd ones.
    let play = |cpu: Cpu, first: u32| -> anyhow::Result<Duration> {
        let pinned = affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"));
        if pinned.is_err() {
            failed.store(true, Ordering::Release);
        }
        pinned?;
        let (mut best, mut start) = (Duration::MAX, Instant::now());
        for number in (first..last).step_by(2) {
            while ball.0.load(Ordering::Acquire) != number {
                if failed.load(Ordering::Acquire) {
                    return Err(anyhow!("the other thread has failed"));
                }
                spin_loop();
            }
            if number % (2 * ROUND_TRIPS) == first {
                let now = Instant::now();
                if number > first {
                    best = best.min(now - start);
                }
                start = now;
            }
            ball.0.store(number + 1, Ordering::Release);
        }
        Ok(best / (2 * ROUND_TRIPS))
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| play(b, 1));
        let one = scope.spawn(|| play(a, 0));
        let panicked = |_| anyhow!("a thread panicked");
        let (one, other) = (one.join().map_err(panicked)?, other.join().map_err(panicked)?);
        Ok(one?.min(other?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cpus_have_a_distance() {
        let cpus: Vec<Cpu> = affinity::allowed().unwrap().iter().take(2).collect();
        let [a, b] = cpus[..] else { return eprintln!("SKIPPED: needs 2 CPUs") };
        let distance = measure(a, b).unwrap();
        assert!(distance > Duration::ZERO && distance < Duration::MAX / 1000, "{distance:?}");
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error_and_nobody_waits() {
        let cpu = affinity::allowed().unwrap().iter().next().unwrap();
        assert!(measure(cpu, 8191).is_err() && measure(8191, cpu).is_err());
    }

    #[test]
    fn classes_are_apart_by_half_as_much_again() {
        let classes = Classes::of([72.0, 30.0, 160.0, 94.0, 31.0]);
        assert_eq!(classes.0, [30.0..=31.0, 72.0..=94.0, 160.0..=160.0]);
        let found =
            [[30.0, 31.0], [72.0, 72.0], [31.0, 72.0], [200.0, 200.0]].map(|some| classes.find(&some));
        assert_eq!(found, [Some(0), Some(1), None, None]);
        assert_eq!(Classes::of([]).len(), 0);
    }
}
