//! What one thread has seen.

use std::time::Duration;

use hdrhistogram::Histogram;
use tune::cpu_set::Cpu;

use crate::counts::Counts;

/// What one thread has seen.
#[derive(Debug)]
pub struct ThreadStats {
    /// The CPU to which the thread was pinned.
    pub core: Cpu,
    /// What it has counted.
    pub counts: Counts,
    /// Nanoseconds of each operation: from when it should have started to its last byte, and of each that
    /// could not be started what it had waited by the end.
    pub latency: Histogram<u64>,
    /// Open loop: nanoseconds from when each operation was started to its last byte, which is what a client
    /// sees that waits for each answer.
    pub raw: Option<Histogram<u64>>,
    /// From the common start to the last completed operation.
    pub elapsed: Duration,
    /// CPU time of the thread in that time, user and system.
    pub cpu_time: Duration,
    /// Time in which the thread worked, or waited for its CPU: without what it slept, or spun in vain.
    pub busy: Duration,
}

impl ThreadStats {
    /// `open`: of an open loop.
    pub(crate) fn new(core: Cpu, open: bool) -> Self {
        Self {
            core,
            counts: Counts::default(),
            latency: new_histogram(),
            raw: open.then(new_histogram),
            elapsed: Duration::ZERO,
            cpu_time: Duration::ZERO,
            busy: Duration::ZERO,
        }
    }

    /// An operation that ended `latency` after it should have started, `raw` after it was.
    pub(crate) fn count_operation(&mut self, latency: Duration, raw: Duration) {
        self.counts.operations += 1;
        self.latency.saturating_record(nanoseconds(latency));
        if let Some(histogram) = &mut self.raw {
            histogram.saturating_record(nanoseconds(raw));
        }
    }

    /// A message that should have started so long ago and is not started any more.
    pub(crate) fn count_not_started(&mut self, waited: Duration) {
        self.counts.operations_not_started += 1;
        self.latency.saturating_record(nanoseconds(waited));
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// 1 ns to 100 s, 3 significant digits; longer times count as 100 s.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("1 <= low, 2 * low <= high, 3 digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_beyond_the_histogram_is_its_maximum_not_a_panic() {
        let mut stats = ThreadStats::new(0, false);
        stats.count_operation(Duration::from_secs(1000), Duration::from_secs(1));
        stats.count_operation(Duration::ZERO, Duration::ZERO);
        assert_eq!(stats.latency.len(), 2);
    }
}
