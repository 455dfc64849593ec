//! Which messages of a connection are under way, wait, or are still to come. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use crate::stats::ThreadStats;

/// When a message under way was started, and should have been.
#[derive(Debug, Clone, Copy)]
struct Start {
    intended: Instant,
    actual: Instant,
}

/// The messages of one connection. One is under way from before its first byte is sent until its last byte
/// came back.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Under way, oldest first.
    started: VecDeque<Start>,
    /// Closed loop: messages that may still be started.
    left: u64,
    /// Open loop: when each message that waits to be started should have been, oldest first.
    due: VecDeque<Instant>,
    /// Messages that may be under way at once.
    depth: usize,
}

impl Messages {
    pub(crate) fn new(left: u64, depth: usize) -> Self {
        Self { started: VecDeque::new(), left, due: VecDeque::new(), depth }
    }

    /// Open loop: a message that should start at `time`. True if it can: not as many as allowed are under way
    /// or waiting.
    pub(crate) fn schedule(&mut self, time: Instant) -> bool {
        self.due.push_back(time);
        self.started.len() + self.due.len() <= self.depth
    }

    /// Starts as many as may be under way.
    pub(crate) fn start(&mut self, now: Instant) {
        while self.started.len() < self.depth {
            let Some(intended) = self.due.pop_front().or_else(|| (self.left > 0).then_some(now)) else {
                return;
            };
            self.left -= u64::from(self.left > 0);
            self.started.push_back(Start { intended, actual: now });
        }
    }

    /// The message at `index` of those under way, oldest first, came back.
    pub(crate) fn finish(&mut self, index: usize, now: Instant, stats: &mut ThreadStats) {
        let start = self.started.remove(index).expect("it is under way");
        stats.count_operation(now - start.intended, now.saturating_duration_since(start.actual));
    }

    /// Gives the oldest message up if it was started before `time`. False if there is none.
    pub(crate) fn give_up_before(&mut self, time: Instant) -> bool {
        let old = self.started.front().is_some_and(|start| start.actual < time);
        if old {
            self.started.pop_front();
        }
        old
    }

    /// Starts no further message of those that are still to come; those that wait are [`Messages::abandon`]ed
    /// or started.
    pub(crate) fn stop(&mut self) {
        self.left = 0;
    }

    /// Open loop: the messages that wait are not started any more. Each counts in the corrected times with
    /// what it has waited.
    pub(crate) fn abandon(&mut self, now: Instant, stats: &mut ThreadStats) {
        for time in self.due.drain(..) {
            stats.count_not_started(now - time);
        }
    }

    /// Messages under way.
    pub(crate) fn under_way(&self) -> usize {
        self.started.len()
    }

    /// True if no message is under way and none is to be started.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.started.is_empty() && self.due.is_empty()
    }

    /// Messages under way or, with a count, still to come.
    pub(crate) fn unfinished(&self) -> u64 {
        self.left + self.started.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_message_that_waited_is_late_by_as_much_and_the_raw_time_hides_it() {
        let (start, mut stats) = (Instant::now(), ThreadStats::new(0, true));
        let mut messages = Messages::new(0, 1);
        assert!(messages.schedule(start));
        messages.start(start);
        assert!(!messages.schedule(start + 10 * MS));
        messages.start(start + 10 * MS);
        assert_eq!(messages.under_way(), 1);
        for time in [start + 50 * MS, start + 70 * MS] {
            messages.finish(0, time, &mut stats);
            messages.start(time);
        }
        assert!(messages.is_done());
        let near = |nanoseconds: u64, expected: Duration| {
            let expected = u64::try_from(expected.as_nanos()).unwrap();
            nanoseconds.abs_diff(expected) < expected / 500
        };
        let raw = stats.raw.unwrap();
        assert!(near(stats.latency.max(), 60 * MS) && near(raw.max(), 50 * MS), "{raw:?}");
        assert!(near(raw.min(), 20 * MS), "from its start at 50 ms to 70 ms");
    }

    #[test]
    fn what_is_given_up_while_it_waits_counts_with_the_time_it_has_waited() {
        let (start, mut stats) = (Instant::now(), ThreadStats::new(0, true));
        let mut messages = Messages::new(0, 1);
        assert!((0..3).all(|index| messages.schedule(start + index * MS) == (index == 0)));
        messages.start(start);
        messages.abandon(start + 10 * MS, &mut stats);
        assert_eq!(
            (stats.counts.operations_not_started, stats.counts.operations, messages.under_way()),
            (2, 0, 1)
        );
        assert_eq!((stats.latency.len(), stats.raw.unwrap().len()), (2, 0));
    }

    proptest! {
        /// A server that takes one message at a time and `service` for each: the corrected time of a message
        /// is what a queue in front of the server would have made it wait, whatever the depth; the raw one is
        /// never more.
        #[test]
        fn the_corrected_time_is_that_of_a_queue(
            gaps in proptest::collection::vec(0..2000u32, 1..50), service in 1..1000u32, depth in 1..5usize,
        ) {
            let (start, us) = (Instant::now(), Duration::from_micros(1));
            let mut stats = ThreadStats::new(0, true);
            let mut messages = Messages::new(0, depth);
            let mut arrivals: VecDeque<Instant> = gaps.iter().scan(start, |time, &gap| {
                *time += gap * us;
                Some(*time)
            }).collect();
            let (mut server_free, mut slowest) = (start, Duration::ZERO);
            let mut ends = VecDeque::new();
            for &time in &arrivals {
                server_free = server_free.max(time) + service * us;
                slowest = slowest.max(server_free - time);
                ends.push_back(server_free);
            }
            while let Some(&end) = ends.front() {
                match arrivals.front().filter(|&&time| time <= end).copied() {
                    Some(time) => {
                        arrivals.pop_front();
                        messages.schedule(time);
                        messages.start(time);
                    }
                    None => {
                        ends.pop_front();
                        messages.finish(0, end, &mut stats);
                        messages.start(end);
                    }
                }
            }
            prop_assert!(messages.is_done());
            prop_assert_eq!(stats.counts.operations, gaps.len() as u64);
            let slowest = u64::try_from(slowest.as_nanos()).unwrap();
            prop_assert!(stats.latency.max().abs_diff(slowest) <= slowest / 500, "{:?} \
                {}", stats.latency.max(), slowest);
            prop_assert!(stats.raw.unwrap().max() <= stats.latency.max());
        }
    }
}
