//! How a worker echoes large messages without copying them.
//!
//! A direct descriptor gets a plain one beside it first: io_uring's own splice runs on a thread of io-wq
//! (`IORING_OP_SPLICE` is `REQ_F_FORCE_ASYNC`). Then each time bytes wait, and it is the connection's turn,
//! they go through the worker's [pipe] and back. What the socket does not take is queued.

use std::num::NonZeroU32;

use rustix::io::Errno;

use super::Worker;
use super::connection::ReceiveEnd;
use super::kernel::{Kernel, Spliced};
use super::pipe;
use super::spill::{LEAST_SPILL, SPILL_PIECE};
use super::token::{ConnectionId, Descriptor};

/// Bytes for which splicing is worth it. Measured: see server/README.md.
const LARGE: usize = 16 * 1024;

/// A spill that is not tight has a place for all that a splice may leave.
const _: () = assert!(LEAST_SPILL / 2 >= pipe::MOST as u64);

/// Bytes after which a turn of the loop splices no more: others wait meanwhile.
const MOST_A_TURN: usize = 512 * 1024;

impl<K: Kernel> Worker<'_, K> {
    /// True if what follows a receive that brought so many bytes is to be spliced. That was of a large
    /// message if it has filled its buffer, and that is a large one, or more waits.
    pub(super) fn is_to_be_spliced(&self, length: u32, left_some: bool) -> bool {
        let size = self.memory.pool().size();
        self.splices && length as usize >= size && (left_some || size >= LARGE) && self.may_splice()
    }

    /// True if there is a place for all that a splice may leave, none of which may stay in the pipe. What is
    /// left of a tight spill is for those that are received from, of whom one receive at a time can bring
    /// less.
    fn may_splice(&self) -> bool {
        !self.memory.spill_is_tight() && self.memory.spill_room() >= self.kernel.most_spliced()
    }

    /// There is a plain descriptor beside a connection's direct one, or there was none to be had.
    pub(super) fn take_alias(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        let kept = result.ok().filter(|&number| number < self.settings.aliases_below);
        let kept = kept.and_then(NonZeroU32::new);
        connection.alias_answered(kept);
        self.counters.splice_refused.add(kept.is_none().into());
        if let (Ok(number), None) = (result, kept) {
            self.kernel.close_now(Descriptor::Plain(number));
        }
        self.list(id);
    }

    /// Something can be spliced or received, or the watch for that has ended.
    pub(super) fn take_watch(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.receive_ended(ReceiveEnd::Stopped);
        match result {
            Ok(mask) if mask & u32::from(libc::POLLERR.unsigned_abs()) == 0 => {
                connection.bytes_wait();
                self.connections.queue_up(&mut self.to_splice, id);
            }
            Err(Errno::CANCELED) => {}
            // A splice would take the error before the bytes that came before it.
            Ok(_) | Err(_) => connection.stops_splicing(),
        }
        self.list(id);
    }

    /// Lets those splice who have waited longest, as much as a turn may.
    pub(super) fn splice_some(&mut self) {
        let mut left = MOST_A_TURN;
        while left > 0
            && let Some(id) = self.to_splice.pop_front()
        {
            left = left.saturating_sub(self.splice(id));
        }
    }

    /// Splices what waits for a connection whose turn it is. Returns the number of bytes.
    fn splice(&mut self, id: ConnectionId) -> usize {
        let may_splice = self.may_splice();
        let Some(connection) = self.connections.get(id) else { return 0 };
        if !may_splice {
            connection.stops_splicing();
            self.list(id);
            return 0;
        }
        let Some(number) = connection.take_turn() else { return 0 };
        let spliced = self.kernel.splice(number);
        match spliced {
            Ok(Spliced { came: 1.., .. }) => {}
            // A receive tells whether it was the end.
            Ok(_) | Err(Errno::AGAIN) => connection.stops_splicing(),
            Err(_) => self.failed(id),
        }
        self.list(id);
        let Ok(Spliced { came: came @ 1.., gone }) = spliced else { return 0 };
        self.took(id, came, gone);
        came
    }

    /// So many bytes were taken out of a connection's socket, and the first of them went back.
    fn took(&mut self, id: ConnectionId, came: usize, gone: usize) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.spliced(came < LARGE.min(self.memory.pool().size()));
        let mut left = came - gone;
        self.counters.bytes_in.add(came as u64);
        self.counters.requests.add(1);
        self.counters.bytes_out.add(gone as u64);
        self.counters.bytes_spliced.add(gone as u64);
        self.counters.blocked.add(u64::from(left > 0));
        self.counters.bytes_copied.add(left as u64);
        while left > 0 {
            let most = left.min(SPILL_PIECE);
            let piece = self.memory.spill(|bytes| self.kernel.left_over(&mut bytes[..most]));
            left -= self.memory.span(piece).len();
            connection.left_over(piece, self.memory);
        }
        self.heard(id);
    }
}
