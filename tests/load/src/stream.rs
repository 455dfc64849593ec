//! A TCP connection's bytes: messages one after the other, as one stream. Pure.

use std::time::Instant;

use crate::flow::{Flow, Shape};
use crate::messages::Messages;
use crate::stats::ThreadStats;

/// One connection's stream in both directions.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The stream of the pattern.
    id: u32,
    messages: Messages,
    /// Bytes given to the kernel, those included that it has not taken yet.
    given: u64,
    /// Bytes that the kernel took.
    sent: u64,
    /// Bytes that came back.
    received: u64,
}

impl Flow for Stream {
    fn new(id: u32, messages: u64, shape: &Shape<'_>) -> Self {
        Self { id, messages: Messages::new(messages, shape.depth), given: 0, sent: 0, received: 0 }
    }

    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn messages_mut(&mut self) -> &mut Messages {
        &mut self.messages
    }

    fn next_send<'a>(&mut self, shape: &Shape<'a>) -> Option<&'a [u8]> {
        if self.given > self.sent {
            return None;
        }
        let finished = self.received / shape.size;
        let end = (finished + self.messages.under_way() as u64) * shape.size;
        let left = end.checked_sub(self.given).filter(|&left| left > 0)?;
        let bytes = shape.pattern.bytes(self.id, self.given, left);
        self.given += bytes.len() as u64;
        Some(bytes)
    }

    fn sent(&mut self, length: usize) {
        self.sent += length as u64;
        self.given = self.sent;
    }

    fn received(&mut self, shape: &Shape<'_>, bytes: &[u8], now: Instant, stats: &mut ThreadStats) {
        let awaited = self.given.saturating_sub(self.received);
        let awaited = usize::try_from(awaited).map_or(bytes.len(), |awaited| awaited.min(bytes.len()));
        let (echo, extra) = bytes.split_at(awaited);
        stats.counts.bytes_wrong += shape.pattern.count_wrong(self.id, self.received, echo);
        stats.counts.bytes_extra += extra.len() as u64;
        stats.counts.bytes += echo.len() as u64;
        let before = self.received / shape.size;
        self.received += echo.len() as u64;
        for _ in before..self.received / shape.size {
            self.messages.finish(0, now, stats);
        }
    }

    /// A stream loses nothing as long as it lives.
    fn expire(&mut self, _: &Shape<'_>, _: Instant, _: &mut ThreadStats) {}

    fn outstanding(&self, _: &Shape<'_>) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pattern::Pattern;

    /// What a server may do to a stream.
    #[derive(Debug, Clone, Copy)]
    enum Fault {
        Flip(usize),
        Lose(usize),
        Repeat(usize),
    }

    fn fault() -> impl Strategy<Value = Option<Fault>> {
        let place = 0..4000usize;
        proptest::option::of(prop_oneof![
            place.clone().prop_map(Fault::Flip),
            place.clone().prop_map(Fault::Lose),
            place.prop_map(Fault::Repeat),
        ])
    }

    fn damage(bytes: &mut Vec<u8>, fault: Fault) {
        match fault {
            Fault::Flip(at) => bytes[at] ^= 1,
            Fault::Lose(at) => drop(bytes.remove(at)),
            Fault::Repeat(at) => bytes.insert(at, bytes[at]),
        }
    }

    proptest! {
        /// However the kernel cuts the bytes, a right echo is right, and any fault is found.
        #[test]
        fn every_fault_is_found_and_nothing_else(
            id in any::<u32>(), takes in proptest::collection::vec(1..700usize, 1..20),
            cuts in proptest::collection::vec(1..700usize, 1..20), fault in fault(),
        ) {
            let pattern = Pattern::default();
            let shape = Shape { pattern: &pattern, size: 100, depth: 40 };
            let (now, mut stats) = (Instant::now(), ThreadStats::new(0, false));
            let mut stream = Stream::new(id, 40, &shape);
            stream.messages_mut().start(now);
            let mut echo = Vec::new();
            for take in takes.iter().cycle() {
                let Some(bytes) = stream.next_send(&shape) else { break };
                prop_assert!(stream.next_send(&shape).is_none(), "one send at a time");
                let taken = bytes.len().min(*take);
                echo.extend_from_slice(&bytes[..taken]);
                stream.sent(taken);
            }
            prop_assert_eq!(echo.len(), 4000);
            if let Some(fault) = fault {
                damage(&mut echo, fault);
            }
            let mut rest = &echo[..];
            for cut in cuts.iter().cycle() {
                let (now_here, later) = rest.split_at((*cut).min(rest.len()));
                stream.received(&shape, now_here, now, &mut stats);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let bad = stats.counts.bytes_wrong + stats.counts.bytes_extra + stream.outstanding(&shape);
            match fault {
                None => prop_assert_eq!((bad, stats.counts.operations, stats.counts.bytes), (0, 40, 4000)),
                Some(Fault::Flip(_)) => prop_assert_eq!((bad, stats.counts.bytes_wrong), (1, 1)),
                Some(Fault::Lose(_)) => prop_assert_eq!((stream.outstanding(&shape), stats.counts.operations), (1, 39)),
                Some(Fault::Repeat(_)) => prop_assert_eq!(stats.counts.bytes_extra, 1),
            }
        }
    }
}
