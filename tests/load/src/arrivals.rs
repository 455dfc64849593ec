//! Open loop: when which message starts. Pure.

use std::time::{Duration, Instant};

/// The messages of one thread: every `threads`-th of all, which start at equal distances in time.
#[derive(Debug)]
pub(crate) struct Arrivals {
    start: Instant,
    rate: u32,
    /// Number of the next message among all.
    next: u64,
    threads: u64,
    /// Number of the first message that does not start any more.
    end: u64,
}

/// A message that is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Its number among all.
    pub(crate) number: u64,
    /// When it should start.
    pub(crate) time: Instant,
}

impl Arrivals {
    /// `rate` messages per second in all for `duration` from `start`, of which this is thread `index` of `threads`.
    pub(crate) fn new(start: Instant, duration: Duration, rate: u32, index: usize, threads: usize) -> Self {
        let end = u64::try_from(duration.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
        Self { start, rate, next: index as u64, threads: threads as u64, end }
    }

    /// The next message, whether it is time or not; none if all have been taken.
    pub(crate) fn peek(&self) -> Option<Arrival> {
        let nanoseconds = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate);
        let after = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        (self.next < self.end).then(|| Arrival { number: self.next, time: self.start + after })
    }

    /// Takes the next message if its time has come.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Arrival> {
        let arrival = self.peek().filter(|arrival| arrival.time <= now)?;
        self.next += self.threads;
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_threads_share_the_messages_at_equal_distances() {
        let start = Instant::now();
        let mut threads: Vec<_> = (0..3).map(|index| Arrivals::new(start, 10 * MS, 1000, index, 3)).collect();
        let taken = |thread: &mut Arrivals, now: Duration| -> Vec<_> {
            std::iter::from_fn(|| thread.take(start + now))
                .map(|arrival| (arrival.number, arrival.time - start))
                .collect()
        };
        assert_eq!(taken(&mut threads[0], 5 * MS), [(0, Duration::ZERO), (3, 3 * MS)]);
        assert_eq!(threads[0].peek(), Some(Arrival { number: 6, time: start + 6 * MS }));
        assert_eq!(taken(&mut threads[1], 100 * MS), [(1, MS), (4, 4 * MS), (7, 7 * MS)]);
        assert_eq!(taken(&mut threads[2], 100 * MS), [(2, 2 * MS), (5, 5 * MS), (8, 8 * MS)]);
        assert_eq!(taken(&mut threads[0], 100 * MS), [(6, 6 * MS), (9, 9 * MS)]);
        assert!(threads.iter().all(|thread| thread.peek().is_none()));
    }

    #[test]
    fn a_day_at_the_highest_rate_does_not_overflow() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start, Duration::from_secs(86_400), u32::MAX, 0, 1);
        arrivals.next = arrivals.end - 1;
        assert!(arrivals.peek().unwrap().time <= start + Duration::from_secs(86_400));
    }
}
