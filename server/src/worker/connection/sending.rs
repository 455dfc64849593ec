//! What a connection sends, and what becomes of its sends. Pure.

use rustix::io::Errno;

use super::Connection;
use super::state::{State, Way};
use crate::worker::memory::{Memory, PieceId};
use crate::worker::send_queue::SpillFull;

impl Connection {
    /// The bytes that came in a piece are to be sent back. Returns how many were copied out of its buffer.
    ///
    /// # Errors
    /// As [`push_sparing`](crate::worker::send_queue::SendQueue::push_sparing); the connection is to be
    /// [given up](Connection::give_up).
    pub(crate) fn echo(&mut self, piece: PieceId, memory: &mut Memory) -> Result<u64, SpillFull> {
        if self.blocked {
            self.queue.push_sparing(piece, memory)
        } else {
            self.queue.push(piece, memory);
            Ok(0)
        }
    }

    /// As [`spare_buffers`](crate::worker::send_queue::SendQueue::spare_buffers).
    ///
    /// # Errors
    /// As there; the connection is to be [given up](Connection::give_up).
    pub(crate) fn spare_buffers(&mut self, memory: &mut Memory) -> Result<u64, SpillFull> {
        self.queue.spare_buffers(memory)
    }

    /// The first `spans` spans of the queue were given to the kernel to send, as its request number
    /// `request`.
    pub(crate) fn send_started(&mut self, spans: usize, request: u64, memory: &Memory) {
        debug_assert!(!self.in_flight.send);
        self.in_flight.send = true;
        self.send_waits = false;
        self.send_request = request;
        self.queue.start(spans, memory);
    }

    /// The send in flight waits for the peer, which until it has ended is as one that does not read.
    pub(crate) fn send_waits(&mut self) {
        self.send_waits = true;
        self.blocked = true;
    }

    /// The number of the request that the last send was.
    pub(crate) fn send_request(&self) -> u64 {
        self.send_request
    }

    /// True if something is to be done as soon as the send in flight has ended.
    pub(crate) fn awaits_send(&self) -> bool {
        let splices_then = self.way == Way::Pipe;
        self.in_flight.send && (self.state != State::Open || self.queue.has_more() || splices_then)
    }

    /// The send in flight completed; the kernel took `bytes` bytes, 0 if the socket was full.
    pub(crate) fn sent(&mut self, bytes: u64, tick: u32, memory: &mut Memory) {
        debug_assert!(self.in_flight.send);
        self.blocked = bytes < self.queue.sending_bytes();
        if bytes > 0 {
            self.was_active(tick);
            self.must_copy = false;
        }
        self.send_ended(bytes, memory);
    }

    /// The kernel had no memory to send without a copy: what the send in flight was to send is sent with one.
    pub(crate) fn zero_copy_refused(&mut self, memory: &mut Memory) {
        self.must_copy = true;
        self.send_ended(0, memory);
    }

    /// True if the next send is to copy whatever its length.
    pub(crate) fn must_copy(&self) -> bool {
        self.must_copy
    }

    /// The send in flight was ended by a cancel or a signal.
    pub(crate) fn send_stopped(&mut self, memory: &mut Memory) {
        self.send_ended(0, memory);
    }

    /// The send in flight failed for good.
    pub(crate) fn send_failed(&mut self, memory: &mut Memory) {
        if self.has_descriptor() {
            self.state = State::Aborting;
        }
        self.send_stopped(memory);
    }

    fn send_ended(&mut self, bytes: u64, memory: &mut Memory) {
        self.in_flight.send = false;
        self.cancel_asked = false;
        self.queue.sent(bytes, memory);
        if self.discards() {
            self.queue.clear(memory);
        }
    }

    /// The zero-copy send in flight did this; the kernel reads from its pieces until the notification.
    pub(crate) fn notification_follows(&mut self, result: Result<u32, Errno>) {
        self.zero_copy = result;
        self.in_flight.notification = true;
        // Whoever waits for the send to end, to close, need not wait for the notification.
        self.cancel_asked = false;
    }

    /// The kernel reads no more from the zero-copy send's pieces. Gives what the send has done.
    pub(crate) fn notified(&mut self) -> Result<u32, Errno> {
        self.in_flight.notification = false;
        self.zero_copy
    }
}
