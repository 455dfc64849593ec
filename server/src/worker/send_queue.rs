//! The bytes queued for one peer, in the order in which they came. Pure.
//!
//! While the kernel reads from the first pieces to send them, these stay where they are.

use super::memory::{Memory, NO_PIECE, PieceId, SOURCE_BYTES, Span};

/// Bytes are to be copied out of the pool, which has few buffers left, and the spill has no place for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpillFull {
    /// Bytes that were copied before.
    pub(crate) copied: u64,
}

/// What is queued, and how much of it the send in flight reads from: a list of pieces, then bytes of the
/// [source](super::memory::SOURCE_PERIOD).
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(crate) struct SendQueue {
    first: PieceId,
    last: PieceId,
    pieces: u32,
    /// Pieces at the front that the send in flight reads from.
    sending: u32,
    /// Bytes in the pieces, and of the source.
    bytes: u64,
    /// Bytes of the source among them.
    owed: u64,
    /// Bytes that the send in flight is to send, 0 without one.
    sending_bytes: u64,
    /// Where the next byte of the source is.
    source_at: u32,
}

impl Default for SendQueue {
    fn default() -> Self {
        Self {
            first: NO_PIECE,
            last: NO_PIECE,
            pieces: 0,
            sending: 0,
            bytes: 0,
            owed: 0,
            sending_bytes: 0,
            source_at: 0,
        }
    }
}

impl SendQueue {
    /// True if nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first `most` pieces, oldest first, or bytes of the source if there is no piece.
    pub(crate) fn spans<'m>(
        &self,
        most: usize,
        memory: &'m Memory,
    ) -> impl Iterator<Item = Span> + Clone + use<'m> {
        let mut at = self.first;
        let pieces = std::iter::from_fn(move || {
            let piece = at;
            (piece != NO_PIECE).then(|| {
                at = memory.next(piece);
                memory.span(piece)
            })
        });
        let start = self.source_at;
        let end = u64::from(start).saturating_add(self.owed).min(SOURCE_BYTES as u64);
        let end = u32::try_from(end).expect("the source is shorter than 4 GiB");
        let source = (self.pieces == 0 && self.owed > 0).then_some(Span::of_source(start, end));
        pieces.chain(source).take(most)
    }

    /// Bytes that the send in flight is to send, 0 without one.
    pub(crate) fn sending_bytes(&self) -> u64 {
        self.sending_bytes
    }

    /// True if there are more pieces than the send in flight sends.
    pub(crate) fn has_more_pieces(&self) -> bool {
        self.pieces > self.sending
    }

    /// True if there is more than the send in flight sends.
    pub(crate) fn has_more(&self) -> bool {
        self.bytes > self.sending_bytes
    }

    /// Adds a piece.
    pub(crate) fn push(&mut self, piece: PieceId, memory: &mut Memory) {
        self.bytes += memory.span(piece).len() as u64;
        self.link(piece, memory);
    }

    /// Adds bytes of the source.
    pub(crate) fn owe(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// As [`SendQueue::push`], but copies the bytes out of their buffer if they are [to
    /// be](Memory::is_to_be_copied), behind those copied last. Returns the number of bytes copied.
    ///
    /// # Errors
    /// If there is no place for them; they are queued all the same.
    pub(crate) fn push_sparing(&mut self, piece: PieceId, memory: &mut Memory) -> Result<u64, SpillFull> {
        if !memory.is_to_be_copied(piece) {
            self.push(piece, memory);
            return Ok(0);
        }
        self.bytes += memory.span(piece).len() as u64;
        self.copy(piece, memory)
    }

    /// Copies the queue out of its buffers, as far as it is [to be](Memory::is_to_be_copied). Returns the
    /// number of bytes copied. Only without a send in flight.
    ///
    /// # Errors
    /// If there is no place for some; they stay where they are.
    pub(crate) fn spare_buffers(&mut self, memory: &mut Memory) -> Result<u64, SpillFull> {
        debug_assert_eq!(self.sending, 0);
        let mut at = self.first;
        (self.first, self.last, self.pieces) = (NO_PIECE, NO_PIECE, 0);
        let mut copied = Ok(0);
        while at != NO_PIECE {
            let piece = at;
            at = memory.next(piece);
            match copied {
                Ok(bytes) if memory.is_to_be_copied(piece) => {
                    let more = self.copy(piece, memory);
                    copied = more.map(|more| bytes + more).map_err(|_| SpillFull { copied: bytes });
                }
                _ => self.link(piece, memory),
            }
        }
        copied
    }

    /// Copies what is left of a buffer to the end of the list and gives the buffer back. Where there is no
    /// place, the buffer itself goes to the end of the list, which with few left is an error.
    fn copy(&mut self, piece: PieceId, memory: &mut Memory) -> Result<u64, SpillFull> {
        let mut left = memory.span(piece);
        let copied = left.len() as u64;
        // Not behind what the kernel reads from.
        let appendable = if self.pieces > self.sending { memory.room(self.last) } else { 0 };
        if left.len() > appendable + memory.spill_room() {
            self.link(piece, memory);
            return if memory.pool().few_left() { Err(SpillFull { copied: 0 }) } else { Ok(0) };
        }
        while left.len() > 0 {
            if self.pieces == self.sending || memory.room(self.last) == 0 {
                let fresh = memory.spill_piece().expect("there was room");
                self.link(fresh, memory);
            }
            let length = left.len().min(memory.room(self.last));
            let end = left.start + u32::try_from(length).expect("no longer than the span");
            memory.append(self.last, Span { end, ..left });
            left.start = end;
        }
        memory.give_back(piece);
        Ok(copied)
    }

    fn link(&mut self, piece: PieceId, memory: &mut Memory) {
        memory.set_next(piece, NO_PIECE);
        if self.first == NO_PIECE {
            self.first = piece;
        } else {
            memory.set_next(self.last, piece);
        }
        self.last = piece;
        self.pieces += 1;
    }

    /// The first `spans` [spans](SendQueue::spans) were given to the kernel to send.
    pub(crate) fn start(&mut self, spans: usize, memory: &Memory) {
        debug_assert!(self.sending_bytes == 0 && spans > 0);
        self.sending = self.pieces.min(u32::try_from(spans).expect("a send has few pieces"));
        self.sending_bytes = self.spans(spans, memory).map(|span| span.len() as u64).sum();
    }

    /// The send in flight ended; the kernel took `bytes` bytes. Pieces sent to their end are given back.
    pub(crate) fn sent(&mut self, bytes: u64, memory: &mut Memory) {
        debug_assert!(bytes <= self.sending_bytes);
        let from_source = self.sending == 0;
        self.sending = 0;
        self.sending_bytes = 0;
        self.bytes -= bytes;
        if from_source {
            self.owed -= bytes;
            let at = u64::from(self.source_at) + bytes;
            self.source_at = u32::try_from(at % SOURCE_BYTES as u64).expect("below SOURCE_BYTES");
            return;
        }
        let mut left = usize::try_from(bytes).expect("in memory");
        while self.first != NO_PIECE {
            let piece = self.first;
            let length = memory.span(piece).len();
            if length > left {
                memory.skip(piece, left);
                break;
            }
            left -= length;
            self.unlink_first(memory);
        }
    }

    fn unlink_first(&mut self, memory: &mut Memory) {
        let piece = self.first;
        self.first = memory.next(piece);
        if self.first == NO_PIECE {
            self.last = NO_PIECE;
        }
        self.pieces -= 1;
        memory.give_back(piece);
    }

    /// Drops what the kernel does not read from.
    pub(crate) fn clear(&mut self, memory: &mut Memory) {
        let mut kept = NO_PIECE;
        let mut at = self.first;
        for _ in 0..self.sending {
            kept = at;
            at = memory.next(at);
        }
        if kept == NO_PIECE {
            self.first = NO_PIECE;
        } else {
            memory.set_next(kept, NO_PIECE);
        }
        self.last = kept;
        self.pieces = self.sending;
        while at != NO_PIECE {
            let piece = at;
            at = memory.next(piece);
            memory.give_back(piece);
        }
        self.owed = if self.sending == 0 { self.sending_bytes } else { 0 };
        self.bytes = self.sending_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::buffers::Pages;
    use crate::worker::spill::{SPILL_PIECE, Spill};

    /// With a spill of so many pieces.
    fn memory_with(buffers: u16, size: u32, spill: u64) -> Memory {
        let spill = Spill::map(spill * SPILL_PIECE as u64).unwrap();
        Memory::map(buffers, size, Pages::Small, true, spill).unwrap()
    }

    fn memory(buffers: u16, size: u32) -> Memory {
        memory_with(buffers, size, 64)
    }

    /// A byte comes.
    fn receive(queue: &mut SendQueue, memory: &mut Memory) {
        memory.publish();
        let piece = memory.take(0, 1).unwrap();
        queue.push_sparing(piece, memory).unwrap();
    }

    /// Bytes that are in pieces, which are as many as the queue says.
    fn queued(queue: &SendQueue, memory: &Memory) -> u64 {
        let bytes = queue.spans(usize::MAX, memory).map(|span| span.len() as u64).sum();
        assert_eq!(queue.bytes(), bytes);
        bytes
    }

    /// A peer that writes one byte at a time and does not read.
    #[test]
    fn copied_bytes_are_put_together_but_not_with_what_is_being_sent() {
        let (mut queue, mut memory) = (SendQueue::default(), memory(2, 64));
        for _ in 0..4 * SPILL_PIECE {
            receive(&mut queue, &mut memory);
        }
        assert_eq!((queue.pieces, queue.bytes()), (4, 4 * SPILL_PIECE as u64));
        receive(&mut queue, &mut memory);
        queue.start(5, &memory);
        receive(&mut queue, &mut memory);
        assert_eq!((queue.pieces, queue.sending_bytes()), (6, 4 * SPILL_PIECE as u64 + 1));
        queue.sent(4 * SPILL_PIECE as u64 + 1, &mut memory);
        assert_eq!((queue.pieces, queue.bytes(), memory.spill_bytes()), (1, 1, SPILL_PIECE));
        queue.clear(&mut memory);
        assert_eq!((queue.is_empty(), memory.spill_bytes(), memory.pool().held()), (true, 0, 0));
    }

    #[test]
    fn a_piece_larger_than_one_of_the_spill_is_copied_into_several() {
        let (mut queue, mut memory) = (SendQueue::default(), memory(1, 40_000));
        let piece = memory.take(0, 40_000).unwrap();
        queue.push(piece, &mut memory);
        assert_eq!(queue.spare_buffers(&mut memory), Ok(40_000));
        assert_eq!((queue.pieces, queue.bytes(), memory.pool().held()), (3, 40_000, 0));
        queue.start(64, &memory);
        queue.sent(20_000, &mut memory);
        assert_eq!((queue.pieces, queue.bytes()), (2, 20_000));
    }

    /// Full buffers, and a spill that has room for one.
    #[test]
    fn without_a_place_bytes_stay_in_their_buffers_and_that_is_an_error_once_these_are_few() {
        let (mut queue, mut memory) = (SendQueue::default(), memory_with(8, 40_000, 3));
        let pushed: Vec<_> = (0..6)
            .map(|buffer| {
                let piece = memory.take(buffer, 40_000).unwrap();
                queue.push_sparing(piece, &mut memory)
            })
            .collect();
        assert_eq!(pushed, [Ok(0), Ok(0), Ok(0), Ok(0), Ok(40_000), Err(SpillFull { copied: 0 })]);
        assert_eq!(queued(&queue, &memory), 240_000, "nothing is lost");
        queue.start(4, &memory);
        queue.sent(160_000, &mut memory);
        let piece = memory.take(6, 1).unwrap();
        assert_eq!(queue.push_sparing(piece, &mut memory), Ok(0), "a few bytes, where buffers are many");
        assert_eq!((queued(&queue, &memory), memory.pool().held()), (80_001, 2));
        queue.clear(&mut memory);
        assert_eq!((memory.spill_bytes(), memory.pool().held()), (0, 0));
    }

    #[test]
    fn what_can_be_spared_of_a_queue_is_before_the_spill_is_full() {
        let (mut queue, mut memory) = (SendQueue::default(), memory_with(8, 40_000, 3));
        for buffer in 0..6 {
            let piece = memory.take(buffer, 40_000).unwrap();
            queue.push(piece, &mut memory);
        }
        assert_eq!(queue.spare_buffers(&mut memory), Err(SpillFull { copied: 40_000 }));
        assert_eq!((queued(&queue, &memory), memory.pool().held()), (240_000, 5));
        queue.clear(&mut memory);
        assert_eq!((memory.spill_bytes(), memory.pool().held()), (0, 0));
    }

    #[test]
    fn the_source_follows_itself() {
        let (mut queue, mut memory) = (SendQueue::default(), memory(1, 64));
        queue.owe(SOURCE_BYTES as u64 + 10);
        let spans = |queue: &SendQueue, memory: &Memory| queue.spans(64, memory).collect::<Vec<_>>();
        assert_eq!(spans(&queue, &memory), [Span::of_source(0, u32::try_from(SOURCE_BYTES).unwrap())]);
        queue.start(1, &memory);
        queue.sent(SOURCE_BYTES as u64 - 4, &mut memory);
        assert_eq!(spans(&queue, &memory)[0].len(), 4);
        queue.start(1, &memory);
        assert!(queue.has_more());
        queue.sent(4, &mut memory);
        assert_eq!(spans(&queue, &memory), [Span::of_source(0, 10)]);
    }
}
