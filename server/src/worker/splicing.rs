//! How a worker echoes large messages without copying them.
//!
//! A direct descriptor gets a plain one beside it first: io_uring's own splice runs on a thread of io-wq
//! (`IORING_OP_SPLICE` is `REQ_F_FORCE_ASYNC`). Then each time bytes wait they go through the worker's
//! [pipe](super::pipe) and back, at once, within the system calls. What the socket does not take is queued.

use std::num::NonZeroU32;

use rustix::io::Errno;

use super::Worker;
use super::connection::ReceiveEnd;
use super::kernel::{Kernel, Spliced};
use super::memory::SPILL_PIECE;
use super::token::{ConnectionId, Descriptor};

/// Bytes of a message for which it is worth to be spliced. Measured: see server/README.md.
const LARGE: usize = 16 * 1024;

impl<K: Kernel> Worker<'_, K> {
    /// True if a receive that brought so many bytes is of a large message: it has filled its buffer, and that
    /// is a large one or more waits.
    pub(super) fn is_large(&self, length: u32, left_some: bool) -> bool {
        let size = self.memory.pool().size();
        length as usize >= size && (left_some || size >= LARGE)
    }

    /// There is a plain descriptor beside a connection's direct one, or there was none to be had.
    pub(super) fn take_alias(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        let kept = result.ok().filter(|&number| number < self.settings.aliases_below);
        connection.alias_answered(kept.and_then(NonZeroU32::new));
        if let (Ok(number), None) = (result, kept) {
            self.kernel.close_now(Descriptor::Plain(number));
        }
        self.list(id);
    }

    /// Bytes can be spliced, or the watch for them has ended.
    pub(super) fn take_watch(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.receive_ended(ReceiveEnd::Stopped);
        match result {
            Ok(_) => self.splice(id),
            Err(Errno::CANCELED) => {}
            Err(_) => connection.stops_splicing(),
        }
        self.list(id);
    }

    fn splice(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let Some(number) = connection.to_splice() else { return };
        let Spliced { came, gone } = self.kernel.splice(number);
        if came == 0 {
            return connection.stops_splicing();
        }
        connection.spliced(came < self.memory.pool().size());
        let mut left = came - gone;
        self.counters.bytes_in.add(came as u64);
        self.counters.requests.add(1);
        self.counters.bytes_out.add(gone as u64);
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
