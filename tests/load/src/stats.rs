//! What one thread counts, and how the counts of threads are added.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use tune::cpu_set::Cpu;

/// Errors by kind: the kind is the errno's name (`ECONNRESET`), or what else happened (`closed by the peer`).
pub type ErrorCounts = BTreeMap<String, u64>;

/// What one thread has seen.
#[derive(Debug)]
pub struct ThreadStats {
    /// The CPU to which the thread was pinned.
    pub core: Cpu,
    /// Connections that were established.
    pub connections: u64,
    /// Messages that came back whole (echo), or connections that were made and closed (connect).
    pub operations: u64,
    /// Bytes of messages that came back.
    pub bytes: u64,
    /// Bytes that came back and are not what was sent at that offset.
    pub bytes_wrong: u64,
    /// Bytes that the kernel took for sending and that did not come back.
    pub bytes_lost: u64,
    /// Bytes that came back beyond what was sent.
    pub bytes_extra: u64,
    /// Operations that a count asked for and that were not completed.
    pub operations_missing: u64,
    /// Open loop: messages that started late because their connection had enough under way.
    pub operations_late: u64,
    /// Open loop: messages that could not be started: their connection was gone, or had enough under way until the end.
    pub operations_not_started: u64,
    /// UDP: datagrams that were not back in time.
    pub datagrams_lost: u64,
    /// UDP: datagrams that came back twice, or after they had been given up.
    pub datagrams_again: u64,
    /// UDP: datagrams that came back before one that was sent earlier.
    pub datagrams_overtaken: u64,
    /// Connections that could not be established, or failed afterwards.
    pub connections_failed: u64,
    /// Connections that could not be established.
    pub connect_errors: ErrorCounts,
    /// Connections that failed after they were established.
    pub io_errors: ErrorCounts,
    /// Nanoseconds of each operation: from when it should have started to its last byte, and of each that could not be
    /// started what it had waited by the end.
    pub latency: Histogram<u64>,
    /// Open loop: nanoseconds from when each operation was started to its last byte, which is what a client sees that waits for
    /// each answer.
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
            connections: 0,
            operations: 0,
            bytes: 0,
            bytes_wrong: 0,
            bytes_lost: 0,
            bytes_extra: 0,
            operations_missing: 0,
            operations_late: 0,
            operations_not_started: 0,
            datagrams_lost: 0,
            datagrams_again: 0,
            datagrams_overtaken: 0,
            connections_failed: 0,
            connect_errors: ErrorCounts::new(),
            io_errors: ErrorCounts::new(),
            latency: new_histogram(),
            raw: open.then(new_histogram),
            elapsed: Duration::ZERO,
            cpu_time: Duration::ZERO,
            busy: Duration::ZERO,
        }
    }

    /// An operation that ended `latency` after it should have started, `raw` after it was.
    pub(crate) fn count_operation(&mut self, latency: Duration, raw: Duration) {
        self.operations += 1;
        self.latency.saturating_record(nanoseconds(latency));
        if let Some(histogram) = &mut self.raw {
            histogram.saturating_record(nanoseconds(raw));
        }
    }

    /// A message that should have started so long ago and is not started any more.
    pub(crate) fn count_not_started(&mut self, waited: Duration) {
        self.operations_not_started += 1;
        self.latency.saturating_record(nanoseconds(waited));
    }

    pub(crate) fn count_connect_error(&mut self, error: &io::Error) {
        self.connections_failed += 1;
        *self.connect_errors.entry(error_kind(error)).or_default() += 1;
    }

    pub(crate) fn count_io_error(&mut self, error: &io::Error) {
        self.connections_failed += 1;
        *self.io_errors.entry(error_kind(error)).or_default() += 1;
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// 1 ns to 100 s, 3 significant digits; longer times count as 100 s.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("1 <= low, 2 * low <= high, 3 digits")
}

/// The errno's name, or the error's own text if it has no errno.
#[must_use]
pub fn error_kind(error: &io::Error) -> String {
    match (tune::errno::name(error), error.raw_os_error()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(number)) => format!("errno {number}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_as_in_errno_h() {
        assert_eq!(error_kind(&rustix::io::Errno::CONNRESET.into()), "ECONNRESET");
        assert_eq!(error_kind(&io::Error::from_raw_os_error(9999)), "errno 9999");
        assert_eq!(error_kind(&io::Error::other("closed by the peer")), "closed by the peer");
    }

    #[test]
    fn a_latency_beyond_the_histogram_is_its_maximum_not_a_panic() {
        let mut stats = ThreadStats::new(0, false);
        stats.count_operation(Duration::from_secs(1000), Duration::from_secs(1));
        stats.count_operation(Duration::ZERO, Duration::ZERO);
        assert_eq!(stats.latency.len(), 2);
    }
}
