//! One connection: what is queued for its peer, what the kernel holds, what to ask for next. Pure.
//!
//! The worker tells a [`Connection`] what completed; [`Connection::next_step`] says what to ask the kernel for.
//! The rules that this file keeps:
//!
//! * bytes go back in the order in which they came, each once: one send in flight, the queue advances only by what
//!   the kernel says it took;
//! * a buffer that the kernel reads from stays where it is until that send has completed;
//! * a peer that does not read stops being read from: at most [`PAUSE_AT`] bytes plus what one armed receive may still
//!   bring ([`super::operations::RECEIVE_CREDIT`] where the kernel has it) are queued, in few pieces however small the
//!   peer's writes are;
//! * requests end before the descriptor is closed, and the slot is free only when nothing is in flight.

mod step;

use super::send_queue::{Chunk, SendQueue};
use super::token::Descriptor;
pub(crate) use step::{ReceiveEnd, Step};

/// While the peer's window is closed, no new receive is armed once this many bytes are queued for it.
pub(crate) const PAUSE_AT: usize = 64 * 1024;

/// Requests of a connection that the kernel holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InFlight {
    receive: bool,
    send: bool,
    cancel: bool,
    /// A look at the socket: at its CPU, or at its unsent bytes.
    look: bool,
    shutdown: bool,
}

impl InFlight {
    fn any(self) -> bool {
        self != Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The slot has no connection.
    Free,
    /// Bytes go both ways.
    Open,
    /// The peer has sent its FIN. What is queued is sent, then closed.
    Finishing,
    /// The server drains. No more is received; what is queued is sent, then the FIN.
    Ending,
    /// The server has sent its FIN first. Bytes that crossed it are read and dropped, until the peer closes or has
    /// acknowledged everything: closing before would reset the connection, and the peer lose what it has not got yet.
    Lingering,
    /// Reset, or out of time: nothing more is sent.
    Aborting,
    /// The close is in flight.
    Closing,
}

/// The state of one slot of the connection table.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    descriptor: Descriptor,
    in_flight: InFlight,
    /// The last send found the socket full.
    blocked: bool,
    /// The last receive found the pool empty.
    starved: bool,
    /// Bytes came, or the connection was accepted, since [`Connection::take_heard`] was last called.
    heard: bool,
    /// The FIN of [`State::Lingering`] was asked for.
    shutdown_asked: bool,
    /// A cancel was asked for, and what it was to end has not ended yet.
    cancel_asked: bool,
    /// Waits in the worker's list of connections to look at. Kept by the worker.
    pub(crate) listed: bool,
    /// The locality of its receives is sampled.
    pub(crate) sampled: bool,
    /// Number of receives that brought bytes.
    receives: u32,
    /// Number of the request that the send in flight is.
    send_request: u64,
    queue: SendQueue,
}

impl Connection {
    /// A slot without a connection.
    pub(crate) fn free() -> Self {
        Self {
            state: State::Free,
            descriptor: Descriptor::Direct(0),
            in_flight: InFlight::default(),
            blocked: false,
            starved: false,
            heard: false,
            shutdown_asked: false,
            cancel_asked: false,
            listed: false,
            sampled: false,
            receives: 0,
            send_request: 0,
            queue: SendQueue::default(),
        }
    }

    /// A connection with this descriptor was accepted; the slot is free.
    pub(crate) fn open(&mut self, descriptor: Descriptor) {
        debug_assert_eq!(self.state, State::Free);
        *self = Self { state: State::Open, descriptor, heard: true, listed: self.listed, ..Self::free() };
    }

    /// How the kernel knows it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    pub(crate) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// True while the kernel may read from what is queued.
    pub(crate) fn is_sending(&self) -> bool {
        self.in_flight.send
    }

    /// True while the close is in flight.
    pub(crate) fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// True while the peer does not read as fast as it writes.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// True if nothing is queued or being sent, and an armed receive would have told if bytes waited in the socket: they
    /// may while it was paused or found no buffer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && !self.in_flight.send && self.in_flight.receive
    }

    /// Whether bytes came since this was last asked.
    pub(crate) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// Bytes came. Returns how many receives have brought bytes, this one included.
    pub(crate) fn received(&mut self, chunk: Chunk) -> u32 {
        self.queue.push(chunk);
        self.count_receive()
    }

    /// As [`Connection::received`], for bytes that are to be copied. They are put behind those copied last.
    pub(crate) fn received_copy(&mut self, bytes: &[u8]) -> u32 {
        self.queue.push_copy(bytes);
        self.count_receive()
    }

    fn count_receive(&mut self) -> u32 {
        self.heard = true;
        self.receives = self.receives.saturating_add(1);
        self.receives
    }

    /// True if bytes that come now are not to be queued: the connection is being given up.
    pub(crate) fn discards(&self) -> bool {
        !matches!(self.state, State::Open | State::Finishing | State::Ending)
    }

    /// The receive is no longer armed.
    pub(crate) fn receive_ended(&mut self, end: ReceiveEnd) {
        self.in_flight.receive = false;
        self.cancel_asked = false;
        match (end, self.state) {
            (ReceiveEnd::Eof, State::Open | State::Ending) => self.state = State::Finishing,
            (ReceiveEnd::Eof, State::Lingering) => self.state = State::Aborting,
            (ReceiveEnd::NoBuffers, State::Open | State::Lingering) => self.starved = true,
            _ => {}
        }
    }

    /// What is queued.
    pub(crate) fn queue(&self) -> &SendQueue {
        &self.queue
    }

    /// The first `chunks` chunks were given to the kernel to send, as its request number `request`.
    pub(crate) fn send_started(&mut self, chunks: usize, request: u64) {
        debug_assert!(!self.in_flight.send);
        self.in_flight.send = true;
        self.send_request = request;
        self.queue.start(chunks);
    }

    /// Bytes of the send in flight, if it is the one with this request number.
    pub(crate) fn bytes_of_send(&self, request: u64) -> Option<usize> {
        (self.in_flight.send && self.send_request == request).then(|| self.queue.sending_bytes())
    }

    /// True if something is to be done as soon as the send in flight has ended.
    pub(crate) fn awaits_send(&self) -> bool {
        self.in_flight.send && (self.state != State::Open || self.queue.has_more())
    }

    /// The send in flight completed; the kernel took `bytes` bytes, 0 if the socket was full. Chunks sent to their end
    /// go to `give_back`.
    pub(crate) fn sent(&mut self, bytes: usize, mut give_back: impl FnMut(Chunk)) {
        debug_assert!(self.in_flight.send);
        self.blocked = bytes < self.queue.sending_bytes();
        self.send_ended();
        self.queue.sent(bytes, &mut give_back);
        if self.discards() {
            self.queue.clear(give_back);
        }
    }

    /// The send in flight was ended by a cancel or a signal.
    pub(crate) fn send_stopped(&mut self, mut give_back: impl FnMut(Chunk)) {
        self.send_ended();
        self.queue.sent(0, &mut give_back);
        if self.discards() {
            self.queue.clear(give_back);
        }
    }

    /// The send in flight failed for good.
    pub(crate) fn send_failed(&mut self, give_back: impl FnMut(Chunk)) {
        self.state = State::Aborting;
        self.send_stopped(give_back);
    }

    fn send_ended(&mut self) {
        self.in_flight.send = false;
        self.cancel_asked = false;
    }

    /// Gives the connection up: what is queued is dropped, as soon as the kernel does not read from it.
    pub(crate) fn abort(&mut self, give_back: impl FnMut(Chunk)) {
        if matches!(self.state, State::Open | State::Finishing | State::Ending | State::Lingering) {
            self.state = State::Aborting;
            self.queue.clear(give_back);
        }
    }

    /// The server drains: no more is to be received, and the connection to be ended with a FIN behind what is queued. The
    /// worker aborts it once the peer has acknowledged all, or does not within a while.
    pub(crate) fn end_stream(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending;
        }
    }

    /// True from the FIN of [`Connection::end_stream`] on, until the peer closes.
    pub(crate) fn is_lingering(&self) -> bool {
        self.state == State::Lingering
    }

    /// The FIN was sent, or could not be.
    pub(crate) fn shutdown_ended(&mut self) {
        self.in_flight.shutdown = false;
    }

    /// As [`SendQueue::relocate`].
    pub(crate) fn relocate_queue(&mut self, moved: impl FnMut(&mut Chunk)) {
        self.queue.relocate(moved);
    }

    /// The socket is to be looked at through the ring; false if a look is in flight already or the connection is about to
    /// close.
    pub(crate) fn look_started(&mut self) -> bool {
        let closes = matches!(self.state, State::Free | State::Aborting | State::Closing);
        let may = !self.in_flight.look && !self.in_flight.shutdown && !closes;
        self.in_flight.look |= may;
        may
    }

    /// The socket was looked at.
    pub(crate) fn look_ended(&mut self) {
        self.in_flight.look = false;
    }

    /// The cancel was answered. The requests that it hit complete on their own. `escaped`: it hit none; what does not end
    /// on its own is cancelled again.
    pub(crate) fn cancel_ended(&mut self, escaped: bool) {
        self.in_flight.cancel = false;
        self.cancel_asked &= !escaped;
    }

    /// The slot's descriptor is closed.
    pub(crate) fn closed(&mut self) {
        debug_assert!(!self.in_flight.any() && self.queue.is_empty());
        *self = Self { listed: self.listed, ..Self::free() };
    }

    /// There are free buffers again.
    pub(crate) fn fed(&mut self) {
        self.starved = false;
    }

    /// True if a receive is wanted but waits for a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// What to ask the kernel for now; it is taken as asked. To be called until it gives `None`.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        match self.state {
            State::Free | State::Closing => None,
            State::Open => self.send_step().or_else(|| self.receive_step()),
            State::Finishing => self.send_step().or_else(|| self.finish_step()),
            State::Ending => self.send_step().or_else(|| self.ending_step()),
            State::Lingering => self.shutdown_step().or_else(|| self.receive_step()),
            State::Aborting => self.close_step(),
        }
    }

    /// The worker calls [`Connection::send_started`] for this step; until then it is offered again.
    fn send_step(&self) -> Option<Step> {
        if self.in_flight.send || self.queue.is_empty() {
            return None;
        }
        Some(if self.blocked { Step::SendWaiting } else { Step::SendNow })
    }

    fn receive_step(&mut self) -> Option<Step> {
        let paused = self.blocked && self.queue.bytes() >= PAUSE_AT;
        match (self.in_flight.receive, paused) {
            (true, true) => self.cancel_step(Step::CancelReceive),
            (false, false) if !self.starved => {
                self.in_flight.receive = true;
                Some(Step::Receive)
            }
            _ => None,
        }
    }

    fn finish_step(&mut self) -> Option<Step> {
        if self.queue.is_empty() { self.close_step() } else { None }
    }

    fn ending_step(&mut self) -> Option<Step> {
        if self.in_flight.receive {
            return self.cancel_step(Step::CancelReceive);
        }
        if !self.queue.is_empty() || self.in_flight.send {
            return None;
        }
        self.state = State::Lingering;
        self.shutdown_step().or_else(|| self.receive_step())
    }

    fn shutdown_step(&mut self) -> Option<Step> {
        if std::mem::replace(&mut self.shutdown_asked, true) {
            return None;
        }
        self.in_flight.shutdown = true;
        Some(Step::Shutdown)
    }

    fn close_step(&mut self) -> Option<Step> {
        if self.in_flight.receive {
            return self.cancel_step(Step::CancelReceive);
        }
        if self.in_flight.send {
            return self.cancel_step(Step::CancelSend);
        }
        if self.in_flight.any() {
            return None;
        }
        self.state = State::Closing;
        Some(Step::Close)
    }

    fn cancel_step(&mut self, step: Step) -> Option<Step> {
        if self.in_flight.cancel || self.cancel_asked {
            return None;
        }
        self.in_flight.cancel = true;
        self.cancel_asked = true;
        Some(step)
    }
}

#[cfg(test)]
mod tests;
