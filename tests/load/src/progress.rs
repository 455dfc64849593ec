//! The line on a terminal that says how far a run is.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope, Thread};
use std::time::{Duration, Instant};

use crate::stats::ThreadStats;

/// From one line to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// What a thread shows of itself. On a cache line of its own, which is read twice a second.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    operations: AtomicU64,
    failed: AtomicU64,
}

impl Live {
    /// Shows what has been counted by now.
    pub(crate) fn show(&self, stats: &ThreadStats) {
        self.operations.store(stats.counts.operations, Ordering::Relaxed);
        self.failed.store(stats.counts.connections_failed + stats.counts.bytes_wrong, Ordering::Relaxed);
    }
}

/// The line, until it is dropped.
pub(crate) struct Line {
    done: Arc<AtomicBool>,
    thread: Option<Thread>,
}

impl Line {
    /// Writes a line to standard error every half second.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>, live: &'scope [Live]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let write = move || {
            let (start, mut before) = (Instant::now(), 0);
            while !until.load(Ordering::Relaxed) {
                thread::park_timeout(INTERVAL);
                let sum = |count: fn(&Live) -> &AtomicU64| {
                    live.iter().map(|live| count(live).load(Ordering::Relaxed)).sum::<u64>()
                };
                let (operations, failed) = (sum(|live| &live.operations), sum(|live| &live.failed));
                let line = text(start.elapsed(), operations, operations - before.min(operations), failed);
                before = operations;
                // Whoever looks at it has gone if it fails.
                let _ = write!(io::stderr(), "\r\x1b[K{line}");
            }
            let _ = write!(io::stderr(), "\r\x1b[K");
        };
        // Without a thread there is no line.
        let thread = thread::Builder::new().name("progress".to_owned()).spawn_scoped(scope, write);
        Self { done, thread: thread.ok().map(|thread| thread.thread().clone()) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// `new`: operations since the line before.
fn text(elapsed: Duration, operations: u64, new: u64, failed: u64) -> String {
    let rate = new as f64 / INTERVAL.as_secs_f64();
    let bad = if failed == 0 { String::new() } else { format!(", {failed} FAILED") };
    format!("{:6.1} s  {operations} done, {rate:.0} per second{bad}", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_time_operations_and_rate_and_failures_only_if_there_are_any() {
        let time = Duration::from_millis(2500);
        assert_eq!(text(time, 1000, 100, 0), "   2.5 s  1000 done, 200 per second");
        assert_eq!(text(time, 1000, 0, 3), "   2.5 s  1000 done, 0 per second, 3 FAILED");
    }
}
