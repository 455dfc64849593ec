//! A UDP socket's datagrams: each a message of its own, which may be lost, repeated or overtaken. Pure.
//!
//! Datagram `k` holds the bytes of the pattern from `k * size` on. Which one came back is told by its bytes:
//! those of the datagrams under way differ.

use std::collections::VecDeque;
use std::time::Instant;

use crate::flow::{Flow, Shape};
use crate::messages::Messages;
use crate::stats::ThreadStats;

/// Datagrams that are remembered after they came back or were given up, to know one that comes again, or too
/// late.
const REMEMBERED: usize = 256;

/// One socket's datagrams.
#[derive(Debug)]
pub(crate) struct Datagrams {
    id: u32,
    messages: Messages,
    /// Datagrams given to the kernel.
    given: u64,
    /// Bytes are on their way to the kernel.
    sending: bool,
    /// Numbers of those under way, oldest first; as long as `messages` has under way, or shorter by what is
    /// still to be sent.
    awaited: VecDeque<u64>,
    /// Numbers of the last that are not awaited any more.
    past: VecDeque<u64>,
}

impl Datagrams {
    fn is(&self, number: u64, shape: &Shape<'_>, bytes: &[u8]) -> bool {
        shape.pattern.count_wrong(self.id, number * shape.size, bytes) == 0
    }

    fn forget(&mut self, index: usize) {
        let number = self.awaited.remove(index).expect("it is awaited");
        if self.past.len() == REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back(number);
    }
}

impl Flow for Datagrams {
    fn new(id: u32, messages: u64, shape: &Shape<'_>) -> Self {
        let messages = Messages::new(messages, shape.depth);
        Self { id, messages, given: 0, sending: false, awaited: VecDeque::new(), past: VecDeque::new() }
    }

    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn messages_mut(&mut self) -> &mut Messages {
        &mut self.messages
    }

    fn next_send<'a>(&mut self, shape: &Shape<'a>) -> Option<&'a [u8]> {
        if self.sending || self.awaited.len() == self.messages.under_way() {
            return None;
        }
        self.sending = true;
        self.awaited.push_back(self.given);
        self.given += 1;
        Some(shape.pattern.bytes(self.id, (self.given - 1) * shape.size, shape.size))
    }

    fn sent(&mut self, _: usize) {
        self.sending = false;
    }

    fn received(&mut self, shape: &Shape<'_>, bytes: &[u8], now: Instant, stats: &mut ThreadStats) {
        let whole = bytes.len() as u64 == shape.size;
        let matches = |&number: &u64| whole && self.is(number, shape, bytes);
        if let Some(index) = self.awaited.iter().position(matches) {
            stats.counts.bytes += shape.size;
            stats.counts.datagrams_overtaken += u64::from(index > 0);
            self.messages.finish(index, now, stats);
            self.forget(index);
        } else if self.past.iter().any(matches) {
            stats.counts.datagrams_again += 1;
        } else if let Some(&oldest) = self.awaited.front() {
            // Whatever it should have been, it is none: it stands for the oldest.
            let length = bytes.len().min(usize::try_from(shape.size).unwrap_or(usize::MAX));
            let wrong = shape.pattern.count_wrong(self.id, oldest * shape.size, &bytes[..length]);
            stats.counts.bytes_wrong += wrong.max(u64::from(whole));
            stats.counts.bytes_extra += (bytes.len() - length) as u64;
            stats.counts.bytes_lost += shape.size - length as u64;
            stats.counts.bytes += length as u64;
            self.messages.finish(0, now, stats);
            self.forget(0);
        } else {
            stats.counts.bytes_extra += bytes.len() as u64;
        }
    }

    fn expire(&mut self, shape: &Shape<'_>, time: Instant, stats: &mut ThreadStats) {
        while !self.awaited.is_empty() && self.messages.give_up_before(time) {
            stats.counts.datagrams_lost += 1;
            stats.counts.bytes_lost += shape.size;
            self.forget(0);
        }
    }

    fn outstanding(&self, shape: &Shape<'_>) -> u64 {
        self.awaited.len() as u64 * shape.size
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::pattern::Pattern;

    const SIZE: u64 = 16;

    fn sent(flow: &mut Datagrams, shape: &Shape<'_>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| {
            let bytes = flow.next_send(shape)?.to_vec();
            flow.sent(bytes.len());
            Some(bytes)
        })
        .collect()
    }

    proptest! {
        #[test]
        fn any_order_is_right_and_what_is_lost_repeated_or_changed_is_told_apart(
            id in any::<u32>(), order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(),
            lost in 0..8usize, repeated in 0..8usize, changed in 0..8usize, byte in 0..16usize,
        ) {
            let pattern = Pattern::default();
            let shape = Shape { pattern: &pattern, size: SIZE, depth: 8 };
            let (now, mut stats) = (Instant::now(), ThreadStats::new(0, false));
            let mut flow = Datagrams::new(id, 8, &shape);
            flow.messages_mut().start(now);
            let mut datagrams = sent(&mut flow, &shape);
            prop_assert_eq!(datagrams.len(), 8);
            datagrams[changed][byte] ^= 1;
            for &index in order.iter().filter(|&&index| index != lost && index != changed) {
                flow.received(&shape, &datagrams[index], now, &mut stats);
                if index == repeated {
                    flow.received(&shape, &datagrams[index], now, &mut stats);
                }
            }
            let again = repeated != lost && repeated != changed;
            prop_assert_eq!((stats.counts.datagrams_again, stats.counts.bytes_wrong), (u64::from(again), 0));
            if changed != lost {
                flow.received(&shape, &datagrams[changed], now, &mut stats);
                prop_assert!(stats.counts.bytes_wrong > 0);
            }
            flow.expire(&shape, now + Duration::from_secs(1), &mut stats);
            prop_assert_eq!((stats.counts.datagrams_lost, stats.counts.bytes_lost), (1, SIZE));
            prop_assert!(flow.messages().is_done());
            flow.received(&shape, &[0; 16], now, &mut stats);
            prop_assert_eq!(stats.counts.bytes_extra, 16);
        }
    }

    #[test]
    fn a_short_or_long_datagram_is_no_right_one() {
        let pattern = Pattern::default();
        let shape = Shape { pattern: &pattern, size: SIZE, depth: 2 };
        let (now, mut stats) = (Instant::now(), ThreadStats::new(0, false));
        let mut flow = Datagrams::new(3, 2, &shape);
        flow.messages_mut().start(now);
        let datagrams = sent(&mut flow, &shape);
        flow.received(&shape, &datagrams[0][..15], now, &mut stats);
        let long = [&datagrams[1][..], &[0]].concat();
        flow.received(&shape, &long, now, &mut stats);
        assert_eq!((stats.counts.bytes_lost, stats.counts.bytes_extra, stats.counts.bytes_wrong), (1, 1, 0));
    }
}
