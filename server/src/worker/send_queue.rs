//! The bytes queued for one peer, in the order in which they came. Pure.
//!
//! While the kernel reads from the first chunks to send them, these stay where they are.

use std::collections::VecDeque;

use super::token::BufferId;

/// Copied bytes that come in small pieces are put together to pieces of up to this many bytes.
pub(crate) const COPY_PIECE: usize = 16 * 1024;

/// A list that has grown past this gives its own memory back when it is empty.
const KEPT_CAPACITY: usize = 32;

/// Where queued bytes lie.
#[derive(Debug)]
pub(crate) enum Storage {
    /// In a buffer of the worker's pool, to be given back.
    Pool(BufferId),
    /// In memory of its own: copied, because the peer reads too slowly for its bytes to stay in the pool.
    Heap(Vec<u8>),
}

/// A piece of received bytes on its way back to the peer.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Where the bytes lie.
    pub(crate) storage: Storage,
    /// Index of the first byte not yet sent.
    pub(crate) start: usize,
    /// Index behind the last byte.
    pub(crate) end: usize,
}

impl Chunk {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// What is queued, and how much of it the send in flight reads from.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Chunks at the front that the send in flight reads from.
    sending: usize,
    /// Bytes of those chunks.
    sending_bytes: usize,
}

impl SendQueue {
    /// True if nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Number of chunks.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Number of bytes in all chunks.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunks, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter()
    }

    /// Bytes that the send in flight is to send, 0 without one.
    pub(crate) fn sending_bytes(&self) -> usize {
        self.sending_bytes
    }

    /// True if there is more than the send in flight sends.
    pub(crate) fn has_more(&self) -> bool {
        self.chunks.len() > self.sending
    }

    /// Adds a chunk.
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Adds a copy of these bytes, behind those copied last if they were few.
    pub(crate) fn push_copy(&mut self, bytes: &[u8]) {
        let last_is_free = self.has_more();
        if let Some(Chunk { storage: Storage::Heap(memory), end, .. }) = self.chunks.back_mut()
            && last_is_free
            && memory.len() + bytes.len() <= COPY_PIECE
        {
            memory.extend_from_slice(bytes);
            *end = memory.len();
            self.bytes += bytes.len();
        } else {
            self.push(Chunk { storage: Storage::Heap(bytes.to_vec()), start: 0, end: bytes.len() });
        }
    }

    /// The first `chunks` chunks were given to the kernel to send.
    pub(crate) fn start(&mut self, chunks: usize) {
        debug_assert!(self.sending == 0 && chunks > 0 && chunks <= self.chunks.len());
        self.sending = chunks;
        self.sending_bytes = self.chunks.iter().take(chunks).map(Chunk::len).sum();
    }

    /// The send in flight ended; the kernel took `bytes` bytes. Chunks sent to their end go to `give_back`.
    pub(crate) fn sent(&mut self, bytes: usize, mut give_back: impl FnMut(Chunk)) {
        debug_assert!(bytes <= self.sending_bytes);
        self.sending = 0;
        self.sending_bytes = 0;
        self.bytes -= bytes;
        let mut left = bytes;
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.len() > left {
                chunk.start += left;
                break;
            }
            left -= chunk.len();
            give_back(self.chunks.pop_front().expect("front exists"));
        }
        if self.chunks.is_empty() && self.chunks.capacity() > KEPT_CAPACITY {
            self.chunks = VecDeque::new();
        }
    }

    /// Drops the chunks that the kernel does not read from.
    pub(crate) fn clear(&mut self, give_back: impl FnMut(Chunk)) {
        self.chunks.drain(self.sending..).for_each(give_back);
        self.bytes = self.sending_bytes;
    }

    /// Puts every chunk that the kernel does not read from through `moved`, which may copy it out of the pool.
    pub(crate) fn relocate(&mut self, moved: impl FnMut(&mut Chunk)) {
        self.chunks.range_mut(self.sending..).for_each(moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that writes one byte at a time and does not read.
    #[test]
    fn copied_bytes_are_put_together_but_not_with_what_is_being_sent() {
        let mut queue = SendQueue::default();
        for _ in 0..4 * COPY_PIECE {
            queue.push_copy(&[1]);
        }
        assert_eq!((queue.len(), queue.bytes()), (4, 4 * COPY_PIECE));
        queue.push_copy(&[1]);
        queue.start(5);
        queue.push_copy(&[2]);
        assert_eq!((queue.len(), queue.sending_bytes()), (6, 4 * COPY_PIECE + 1));
    }
}
