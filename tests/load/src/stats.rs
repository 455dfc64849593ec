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
    /// Connections that could not be established.
    pub connect_errors: ErrorCounts,
    /// Connections that failed after they were established.
    pub io_errors: ErrorCounts,
    /// Nanoseconds from the first byte written to the last byte read of each operation.
    pub latency: Histogram<u64>,
    /// From the common start to the last completed operation.
    pub elapsed: Duration,
    /// CPU time of the thread in that time, user and system.
    pub cpu_time: Duration,
}

impl ThreadStats {
    pub(crate) fn new(core: Cpu) -> Self {
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
            connect_errors: ErrorCounts::new(),
            io_errors: ErrorCounts::new(),
            latency: new_histogram(),
            elapsed: Duration::ZERO,
            cpu_time: Duration::ZERO,
        }
    }

    pub(crate) fn count_operation(&mut self, latency: Duration) {
        self.operations += 1;
        self.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn count_connect_error(&mut self, error: &io::Error) {
        *self.connect_errors.entry(error_kind(error)).or_default() += 1;
    }

    pub(crate) fn count_io_error(&mut self, error: &io::Error) {
        *self.io_errors.entry(error_kind(error)).or_default() += 1;
    }
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
        let mut stats = ThreadStats::new(0);
        stats.count_operation(Duration::from_secs(1000));
        stats.count_operation(Duration::ZERO);
        assert_eq!(stats.latency.len(), 2);
    }
}
