//! One connection: what is queued for its peer, what the kernel holds, what to ask for next. Pure.
//!
//! The worker tells a [`Connection`] what completed; [`Connection::next_step`] says what to ask the kernel
//! for. The rules that this file keeps:
//!
//! * bytes go back in the order in which they came, each once: one send in flight, the queue advances only by
//!   what the kernel says it took;
//! * a buffer that the kernel reads from stays where it is until that send has completed;
//! * a peer that does not read stops being read from: at most [`PAUSE_AT`] bytes plus what one armed receive
//!   may still bring ([`super::operations::RECEIVE_CREDIT`] where the kernel has it) are queued, in few
//!   pieces however small the peer's writes are; and of [`PAUSE_AT`] none while the spill is tight;
//! * bytes are spliced only while nothing is queued, and no receive is armed;
//! * requests end before the descriptor is closed, and the slot is free only when nothing but the close may
//!   be in flight.

mod next_step;
mod sending;
mod splicing;
mod state;
mod step;

use std::num::NonZeroU32;

use rustix::io::Errno;

use super::memory::Memory;
use super::send_queue::SendQueue;
use super::token::Descriptor;
pub(crate) use state::Way;
use state::{InFlight, State};
pub(crate) use step::{ReceiveEnd, Step};

/// While the peer's window is closed, no new receive is armed once this many bytes are queued for it, or any
/// while [the spill is tight](super::spill::Spill::is_tight).
pub(crate) const PAUSE_AT: u64 = 64 * 1024;

/// The state of one slot of the connection table.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    descriptor: Descriptor,
    in_flight: InFlight,
    /// The last send found the socket full.
    blocked: bool,
    /// How the next bytes are to come.
    way: Way,
    /// Bytes wait that are to be spliced.
    ready: bool,
    /// The last splice brought little.
    little: bool,
    /// The plain descriptor beside a direct one: `splice(2)` knows no other. 0 is never one: Rust's runtime
    /// opens those of stdin, stdout and stderr where they are closed.
    alias: Option<NonZeroU32>,
    /// There is none to be had.
    alias_refused: bool,
    /// It waits for a buffer: its last receive found none.
    starves: bool,
    /// Bytes came, or the connection was accepted, since [`Connection::take_heard`] was last called.
    heard: bool,
    /// The FIN of [`State::Lingering`] was asked for.
    shutdown_asked: bool,
    /// A cancel was asked for, and what it was to end has not ended yet.
    cancel_asked: bool,
    /// The close is to be a reset.
    reset_wanted: bool,
    /// The unsent bytes are to be counted.
    count_wanted: bool,
    /// What the last count gave; `None` if there was none since bytes last came or went to or from the
    /// worker.
    unsent: Option<u32>,
    /// Waits in the worker's list of connections to look at. Kept by the worker.
    pub(crate) listed: bool,
    /// The locality of its receives is sampled.
    pub(crate) sampled: bool,
    /// Number of receives that brought bytes.
    receives: u32,
    /// Bytes of a request that is not complete yet.
    unanswered: u32,
    /// When bytes last came or went, in ticks of the worker.
    active: u32,
    /// What a zero-copy send has done, until its notification.
    zero_copy: Result<u32, Errno>,
    /// The kernel had no memory for a zero-copy send: the next one copies.
    must_copy: bool,
    /// The send in flight waits for the peer; else it ends at once, and there is nothing to cancel.
    send_waits: bool,
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
            way: Way::Pool,
            ready: false,
            little: false,
            alias: None,
            alias_refused: false,
            starves: false,
            heard: false,
            shutdown_asked: false,
            cancel_asked: false,
            reset_wanted: false,
            count_wanted: false,
            unsent: None,
            listed: false,
            sampled: false,
            receives: 0,
            unanswered: 0,
            active: 0,
            zero_copy: Ok(0),
            must_copy: false,
            send_waits: false,
            send_request: 0,
            queue: SendQueue::default(),
        }
    }

    /// A connection with this descriptor was accepted; the slot is free.
    pub(crate) fn open(&mut self, descriptor: Descriptor) {
        debug_assert_eq!(self.state, State::Free);
        *self = Self { state: State::Open, descriptor, heard: true, listed: self.listed, ..Self::free() };
    }

    /// The connection was accepted, at this tick of the worker. `sampled`: the locality of its receives is
    /// sampled.
    pub(crate) fn accepted(&mut self, sampled: bool, tick: u32) {
        self.sampled = sampled;
        self.active = tick;
    }

    /// True while it is open, or sends what is queued.
    pub(crate) fn is_served(&self) -> bool {
        matches!(self.state, State::Open | State::Finishing | State::Ending)
    }

    /// How the kernel knows it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    pub(crate) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// True while a send is to be waited for.
    pub(crate) fn is_sending(&self) -> bool {
        self.in_flight.send
    }

    /// True while the descriptor is the connection's: its close was not asked for.
    pub(crate) fn has_descriptor(&self) -> bool {
        !matches!(self.state, State::Free | State::Closed)
    }

    /// True if nothing is queued or being sent, and an armed receive would have told if bytes waited in the
    /// socket: they may while it was paused or found no buffer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && !self.in_flight.send && self.in_flight.receive.is_some()
    }

    /// Whether bytes came since this was last asked.
    pub(crate) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// Bytes came at this tick. Returns how many receives have brought bytes, this one included.
    pub(crate) fn heard(&mut self, tick: u32) -> u32 {
        self.heard = true;
        self.was_active(tick);
        self.receives = self.receives.saturating_add(1);
        self.receives
    }

    /// How the receive or watch in flight is to bring bytes.
    pub(crate) fn receives_by(&self) -> Option<Way> {
        self.in_flight.receive
    }

    /// Each `request` bytes of what came, `length` bytes, are to be answered with `response` bytes.
    pub(crate) fn answer(&mut self, length: u32, request: u32, response: u32) {
        let unanswered = u64::from(self.unanswered) + u64::from(length);
        self.unanswered = u32::try_from(unanswered % u64::from(request)).expect("less than a request");
        self.queue.owe(unanswered / u64::from(request) * u64::from(response));
    }

    /// When bytes last came or went.
    pub(crate) fn active(&self) -> u32 {
        self.active
    }

    fn was_active(&mut self, tick: u32) {
        self.active = tick;
        self.unsent = None;
    }

    /// True if the peer may be taking bytes unknown to the worker: those that the kernel still has to send,
    /// of a send in flight or of one that is over.
    pub(crate) fn may_be_read(&self) -> bool {
        self.in_flight.send || self.unsent != Some(0)
    }

    /// The peer had not acknowledged so many bytes at this tick. If that is another number than at the last
    /// count, bytes have gone: acknowledged, or sent in the place of those. At the first count they may have
    /// gone since the worker sent.
    pub(crate) fn unsent_counted(&mut self, unsent: u32, tick: u32) {
        if self.unsent.unwrap_or(0) != unsent {
            self.active = tick;
        }
        self.unsent = Some(unsent);
    }

    /// True if bytes that come now are not to be queued: the connection is being given up.
    pub(crate) fn discards(&self) -> bool {
        !self.is_served()
    }

    /// The receive is no longer armed.
    pub(crate) fn receive_ended(&mut self, end: ReceiveEnd) {
        self.in_flight.receive = None;
        self.cancel_asked = false;
        match (end, self.state) {
            (ReceiveEnd::Eof, State::Open | State::Ending) => self.state = State::Finishing,
            (ReceiveEnd::Eof, State::Lingering) => self.state = State::Aborting,
            (ReceiveEnd::NoBuffers, State::Open | State::Lingering) => self.starves = self.way == Way::Pool,
            _ => {}
        }
    }

    /// What is queued.
    pub(crate) fn queue(&self) -> &SendQueue {
        &self.queue
    }

    /// Ends the connection: what is queued is dropped, as soon as the kernel does not read from it.
    pub(crate) fn abort(&mut self, memory: &mut Memory) {
        if matches!(self.state, State::Open | State::Finishing | State::Ending | State::Lingering) {
            self.state = State::Aborting;
            self.queue.clear(memory);
        }
    }

    /// As [`Connection::abort`], with a reset, so that the peer does not take what it gets for all.
    pub(crate) fn give_up(&mut self, memory: &mut Memory) {
        self.abort(memory);
        self.reset_wanted = true;
    }

    /// Closes a connection that was just accepted, with a reset unless the listener's options say so already.
    pub(crate) fn refuse(&mut self, options_reset: bool) {
        self.state = State::Aborting;
        self.reset_wanted = !options_reset;
    }

    /// The server drains: no more is to be received, and the connection to be ended with a FIN behind what is
    /// queued. The worker aborts it once the peer has acknowledged all, or does not within a while.
    pub(crate) fn end_stream(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending;
            self.stops_splicing();
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

    /// The bytes that the peer has not acknowledged are to be counted.
    pub(crate) fn count_unsent(&mut self) {
        self.count_wanted = true;
    }

    /// The socket is to be looked at through the ring; false if a look is in flight already or the connection
    /// is about to close.
    pub(crate) fn look_started(&mut self) -> bool {
        let closes = matches!(self.state, State::Free | State::Aborting | State::Closed);
        let may = !self.in_flight.look && !self.in_flight.shutdown && !closes;
        self.in_flight.look |= may;
        may
    }

    /// The socket was looked at.
    pub(crate) fn look_ended(&mut self) {
        self.in_flight.look = false;
    }

    /// The cancel was answered. The requests that it hit complete on their own. `escaped`: it hit none; what
    /// does not end on its own is cancelled again.
    pub(crate) fn cancel_ended(&mut self, escaped: bool) {
        self.in_flight.cancel = false;
        self.cancel_asked &= !escaped;
    }

    /// Frees the slot if the descriptor is closed and the kernel reads no more from what was sent; else
    /// [`Connection::notified`] follows.
    pub(crate) fn is_over(&mut self) -> bool {
        let over = self.state == State::Closed && !self.in_flight.notification;
        if over {
            debug_assert!(self.queue.is_empty());
            *self = Self { listed: self.listed, ..Self::free() };
        }
        over
    }

    /// There are free buffers again, and it is the connection's turn.
    pub(crate) fn feed(&mut self) {
        self.starves = false;
    }

    /// True if it waits for a buffer.
    pub(crate) fn starves(&self) -> bool {
        self.starves
    }
}

#[cfg(test)]
mod tests;
