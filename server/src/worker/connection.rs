//! One connection: what is queued for its peer, what the kernel holds, what to ask for next. Pure.
//!
//! The worker tells a [`Connection`] what completed; [`Connection::next_step`] says what to ask the kernel for.
//! The rules that this file keeps:
//!
//! * bytes go back in the order in which they came, each once: one send in flight, the queue advances only by what
//!   the kernel says it took;
//! * a buffer that the kernel reads from stays where it is until that send has completed;
//! * a peer that does not read stops being read from: at most [`PAUSE_AT`] bytes plus what one armed receive may still
//!   bring ([`super::operations::RECEIVE_CREDIT`] where the kernel has it) are queued;
//! * requests end before the descriptor is closed, and the slot is free only when nothing is in flight.

use std::collections::VecDeque;

use super::token::BufferId;

/// While the peer's window is closed, no new receive is armed once this many bytes are queued for it.
pub(crate) const PAUSE_AT: usize = 64 * 1024;

/// Where queued bytes lie.
#[derive(Debug)]
pub(crate) enum Storage {
    /// In a buffer of the worker's pool, to be given back.
    Pool(BufferId),
    /// In memory of its own: copied, because the peer reads too slowly for its bytes to stay in the pool.
    Heap(Box<[u8]>),
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
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Requests of a connection that the kernel holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InFlight {
    receive: bool,
    send: bool,
    cancel: bool,
    sample: bool,
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
    /// No more bytes are wanted: the peer has sent its FIN, or the server drains. What is queued is sent, then closed.
    Finishing,
    /// Reset, or out of time: nothing more is sent.
    Aborting,
    /// The close is in flight.
    Closing,
}

/// How a receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveEnd {
    /// The peer has sent its FIN. Sending to it still works.
    Eof,
    /// The buffer pool was empty. Not an error: the receive is armed again when buffers have come back.
    NoBuffers,
    /// Ended by a cancel, used up, or cut short by a full completion queue: to be armed again when wanted.
    Stopped,
    /// The connection is broken.
    Failed,
}

/// What a connection asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Arm a multishot receive.
    Receive,
    /// Send what is queued; fail rather than wait when the socket is full.
    SendNow,
    /// Send what is queued, all of it, waiting for the peer. The bytes may be moved out of the pool before.
    SendWaiting,
    /// End the receive.
    CancelReceive,
    /// End all requests.
    CancelAll,
    /// Close the descriptor.
    Close,
}

/// The state of one slot of the connection table.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    in_flight: InFlight,
    /// The last send found the socket full.
    blocked: bool,
    /// The last receive found the pool empty.
    starved: bool,
    /// Bytes came since [`Connection::take_heard`] was last called.
    heard: bool,
    /// A cancel was asked for, and what it was to end has not ended yet.
    cancel_asked: bool,
    /// Waits in the worker's list of connections to look at. Kept by the worker.
    pub(crate) listed: bool,
    /// Number of receives that brought bytes.
    receives: u32,
    /// Number of the request that the send in flight is.
    send_request: u64,
    /// Chunks at the front of the queue that the send in flight reads from.
    sending_chunks: usize,
    /// Bytes of those chunks.
    sending_bytes: usize,
    queue: VecDeque<Chunk>,
    queued_bytes: usize,
}

impl Connection {
    /// A slot without a connection.
    pub(crate) fn free() -> Self {
        Self {
            state: State::Free,
            in_flight: InFlight::default(),
            blocked: false,
            starved: false,
            heard: false,
            cancel_asked: false,
            listed: false,
            receives: 0,
            send_request: 0,
            sending_chunks: 0,
            sending_bytes: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    /// A connection was accepted into this free slot.
    pub(crate) fn open(&mut self) {
        debug_assert_eq!(self.state, State::Free);
        *self = Self { state: State::Open, listed: self.listed, ..Self::free() };
    }

    pub(crate) fn is_free(&self) -> bool {
        self.state == State::Free
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
        self.heard = true;
        self.queued_bytes += chunk.len();
        self.queue.push_back(chunk);
        self.receives = self.receives.saturating_add(1);
        self.receives
    }

    /// True if bytes that come now are not to be queued: the connection is being given up.
    pub(crate) fn discards(&self) -> bool {
        !matches!(self.state, State::Open | State::Finishing)
    }

    /// The receive is no longer armed.
    pub(crate) fn receive_ended(&mut self, end: ReceiveEnd) {
        self.in_flight.receive = false;
        self.cancel_asked = false;
        match (end, self.state) {
            (ReceiveEnd::Eof, State::Open) => self.state = State::Finishing,
            (ReceiveEnd::NoBuffers, State::Open) => self.starved = true,
            _ => {}
        }
    }

    /// What is queued, oldest first.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.queue.iter()
    }

    /// Number of chunks queued.
    pub(crate) fn queued_chunks(&self) -> usize {
        self.queue.len()
    }

    /// The first `chunks` chunks were given to the kernel to send, as its request number `request`.
    pub(crate) fn send_started(&mut self, chunks: usize, request: u64) {
        debug_assert!(!self.in_flight.send && chunks > 0 && chunks <= self.queue.len());
        self.in_flight.send = true;
        self.send_request = request;
        self.sending_chunks = chunks;
        self.sending_bytes = self.queue.iter().take(chunks).map(Chunk::len).sum();
    }

    /// Bytes of the send in flight, if it is the one with this request number.
    pub(crate) fn bytes_of_send(&self, request: u64) -> Option<usize> {
        (self.in_flight.send && self.send_request == request).then_some(self.sending_bytes)
    }

    /// True if something is to be done as soon as the send in flight has ended.
    pub(crate) fn awaits_send(&self) -> bool {
        self.in_flight.send && (self.state != State::Open || self.queue.len() > self.sending_chunks)
    }

    /// The send in flight completed; the kernel took `bytes` bytes, 0 if the socket was full. Chunks sent to their end
    /// go to `give_back`.
    pub(crate) fn sent(&mut self, bytes: usize, mut give_back: impl FnMut(Chunk)) {
        debug_assert!(self.in_flight.send && bytes <= self.sending_bytes);
        self.blocked = bytes < self.sending_bytes;
        self.send_ended();
        self.queued_bytes -= bytes;
        let mut left = bytes;
        while let Some(chunk) = self.queue.front_mut() {
            if chunk.len() > left {
                chunk.start += left;
                break;
            }
            left -= chunk.len();
            give_back(self.queue.pop_front().expect("front exists"));
        }
        if self.discards() {
            self.drop_queue(give_back);
        }
    }

    /// The send in flight failed for good.
    pub(crate) fn send_failed(&mut self, give_back: impl FnMut(Chunk)) {
        self.send_ended();
        self.state = State::Aborting;
        self.drop_queue(give_back);
    }

    fn send_ended(&mut self) {
        self.in_flight.send = false;
        self.cancel_asked = false;
        self.sending_chunks = 0;
        self.sending_bytes = 0;
    }

    /// Gives the connection up: what is queued is dropped, as soon as the kernel does not read from it.
    pub(crate) fn abort(&mut self, give_back: impl FnMut(Chunk)) {
        if matches!(self.state, State::Open | State::Finishing) {
            self.state = State::Aborting;
            self.drop_queue(give_back);
        }
    }

    /// No more bytes are wanted from the peer; what is queued is still sent.
    pub(crate) fn finish(&mut self) {
        if self.state == State::Open {
            self.state = State::Finishing;
        }
    }

    fn drop_queue(&mut self, give_back: impl FnMut(Chunk)) {
        self.queue.drain(self.sending_chunks..).for_each(give_back);
        self.queued_bytes = self.sending_bytes;
    }

    /// Puts every chunk that the kernel does not read from through `moved`, which may copy it out of the pool.
    pub(crate) fn move_queue(&mut self, moved: impl FnMut(&mut Chunk)) {
        self.queue.range_mut(self.sending_chunks..).for_each(moved);
    }

    /// `SO_INCOMING_CPU` is to be read; false if a read is in flight already or the connection is about to close.
    pub(crate) fn sample_started(&mut self) -> bool {
        let may = !self.in_flight.sample && matches!(self.state, State::Open | State::Finishing);
        self.in_flight.sample |= may;
        may
    }

    /// `SO_INCOMING_CPU` was read.
    pub(crate) fn sample_ended(&mut self) {
        self.in_flight.sample = false;
    }

    /// The cancel was answered. The requests that it hit complete on their own. `escaped`: one was running and may
    /// not have been hit (EALREADY); it is cancelled again if it does not end.
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
        let paused = self.blocked && self.queued_bytes >= PAUSE_AT;
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
        if self.in_flight.receive {
            self.cancel_step(Step::CancelReceive)
        } else if self.queue.is_empty() {
            self.close_step()
        } else {
            None
        }
    }

    fn close_step(&mut self) -> Option<Step> {
        if self.in_flight.receive || self.in_flight.send {
            return self.cancel_step(Step::CancelAll);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What may happen next; the numbers choose among what is possible.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Bytes { length: usize, more: bool },
        ReceiveEnds(ReceiveEnd),
        SendTakes { percent: usize },
        SendFails,
        CancelAnswered { escaped: bool },
        Fed,
        Finish,
        Abort,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let end = prop_oneof![
            6 => Just(ReceiveEnd::Stopped),
            4 => Just(ReceiveEnd::NoBuffers),
            1 => Just(ReceiveEnd::Eof),
            1 => Just(ReceiveEnd::Failed),
        ];
        let event = prop_oneof![
            18 => (1..300usize, any::<bool>()).prop_map(|(length, more)| Event::Bytes { length, more }),
            2 => (1..PAUSE_AT, any::<bool>()).prop_map(|(length, more)| Event::Bytes { length, more }),
            6 => end.prop_map(Event::ReceiveEnds),
            20 => (0..=100usize).prop_map(|percent| Event::SendTakes { percent }),
            20 => Just(Event::SendTakes { percent: 100 }),
            1 => Just(Event::SendFails),
            8 => any::<bool>().prop_map(|escaped| Event::CancelAnswered { escaped }),
            8 => Just(Event::Fed),
            1 => Just(Event::Finish),
            1 => Just(Event::Abort),
        ];
        prop::collection::vec(event, 1..200)
    }

    /// A kernel that holds a connection's requests, and a peer that checks every byte.
    struct Model {
        connection: Connection,
        receive: bool,
        send: Option<Vec<u8>>,
        cancel: bool,
        closed: bool,
        /// Bytes received so far, which are 0, 1, … 250, 0, …
        received: usize,
        /// Bytes sent so far.
        sent: usize,
        /// Buffers that the connection has and has not given back.
        buffers: usize,
        broken: bool,
    }

    impl Model {
        fn new() -> Self {
            let mut connection = Connection::free();
            connection.open();
            Self {
                connection,
                receive: false,
                send: None,
                cancel: false,
                closed: false,
                received: 0,
                sent: 0,
                buffers: 0,
                broken: false,
            }
        }

        fn ask(&mut self, most: usize) {
            while let Some(step) = self.connection.next_step() {
                assert!(!self.closed, "{step:?} after the close");
                match step {
                    Step::Receive => assert!(!std::mem::replace(&mut self.receive, true), "armed twice"),
                    Step::SendNow | Step::SendWaiting => self.start_send(most),
                    Step::CancelReceive | Step::CancelAll => {
                        assert!(!std::mem::replace(&mut self.cancel, true), "cancelled twice");
                        assert!(self.receive || self.send.is_some(), "nothing to cancel");
                    }
                    Step::Close => {
                        assert!(
                            !self.receive && self.send.is_none() && !self.cancel,
                            "closed with requests in flight"
                        );
                        assert!(self.broken || self.sent == self.received, "closed with bytes unsent");
                        self.closed = true;
                    }
                }
            }
        }

        fn start_send(&mut self, most: usize) {
            assert!(self.send.is_none(), "two sends in flight");
            let chunks = self.connection.queued_chunks().min(most);
            let bytes: Vec<u8> = self.connection.chunks().take(chunks).flat_map(bytes_of).collect();
            assert!(!bytes.is_empty());
            self.send = Some(bytes);
            self.connection.send_started(chunks, 0);
        }

        fn happen(&mut self, event: Event) {
            let buffers = &mut self.buffers;
            let give_back = |_: Chunk| *buffers -= 1;
            match event {
                Event::Bytes { length, more } if self.receive => {
                    self.receive = more;
                    if !more {
                        self.connection.receive_ended(ReceiveEnd::Stopped);
                    }
                    if self.connection.discards() {
                        return;
                    }
                    let bytes: Box<[u8]> = (self.received..self.received + length).map(pattern).collect();
                    self.received += length;
                    *buffers += 1;
                    self.connection.received(Chunk { storage: Storage::Heap(bytes), start: 0, end: length });
                }
                Event::ReceiveEnds(end) if self.receive => {
                    self.receive = false;
                    self.connection.receive_ended(end);
                    if end == ReceiveEnd::Failed {
                        self.broken = true;
                        self.connection.abort(give_back);
                    }
                }
                Event::SendTakes { percent } => {
                    let Some(bytes) = self.send.take() else { return };
                    let taken = bytes.len() * percent / 100;
                    for byte in &bytes[..taken] {
                        assert_eq!(*byte, pattern(self.sent), "byte {} is not the one that came", self.sent);
                        self.sent += 1;
                    }
                    self.connection.sent(taken, give_back);
                }
                Event::SendFails if self.send.take().is_some() => {
                    self.broken = true;
                    self.connection.send_failed(give_back);
                }
                Event::CancelAnswered { escaped } if self.cancel => {
                    self.cancel = false;
                    self.connection.cancel_ended(escaped);
                }
                Event::Fed => self.connection.fed(),
                Event::Finish => self.connection.finish(),
                Event::Abort => {
                    self.broken = true;
                    self.connection.abort(give_back);
                }
                _ => {}
            }
        }
    }

    fn pattern(position: usize) -> u8 {
        u8::try_from(position % 251).unwrap()
    }

    fn bytes_of(chunk: &Chunk) -> Vec<u8> {
        let Storage::Heap(bytes) = &chunk.storage else { panic!("the model uses no pool") };
        bytes[chunk.start..chunk.end].to_vec()
    }

    proptest! {
        /// Whatever happens in whatever order: every byte goes back once and in order, at most one send and one receive
        /// are in flight, the queue is bounded, nothing is closed too early, and in the end everything is given back.
        #[test]
        fn every_order_of_events_is_survived(events in events(), most in 1..8usize) {
            let mut model = Model::new();
            model.ask(most);
            for event in events {
                model.happen(event);
                model.ask(most);
                let blocked_and_full = model.connection.blocked && model.connection.queued_bytes >= PAUSE_AT;
                prop_assert!(!blocked_and_full || !model.receive || model.cancel || model.connection.cancel_asked);
            }
            // Time passes: the peer closes, all requests end, the connection must come to its end.
            for _ in 0..1000 {
                for event in [
                    Event::Fed,
                    Event::SendTakes { percent: 100 },
                    Event::CancelAnswered { escaped: true },
                    Event::ReceiveEnds(ReceiveEnd::Eof),
                ] {
                    model.happen(event);
                    model.ask(most);
                }
            }
            prop_assert!(model.closed, "{:?}", model.connection);
            prop_assert_eq!(model.buffers, 0, "buffers lost");
            prop_assert!(model.broken || model.sent == model.received);
        }
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_from_until_it_does() {
        let mut model = Model::new();
        model.ask(8);
        model.happen(Event::Bytes { length: PAUSE_AT + 1, more: true });
        model.ask(8);
        model.happen(Event::SendTakes { percent: 0 });
        model.ask(8);
        assert!(model.cancel, "the receive is cancelled");
        model.happen(Event::ReceiveEnds(ReceiveEnd::Stopped));
        model.happen(Event::CancelAnswered { escaped: false });
        model.ask(8);
        assert!(!model.receive, "and not armed again");
        model.happen(Event::SendTakes { percent: 100 });
        model.ask(8);
        assert!(model.receive, "until the peer reads");
    }

    #[test]
    fn after_the_peers_fin_what_is_queued_is_sent_then_closed() {
        let mut model = Model::new();
        model.ask(8);
        model.happen(Event::Bytes { length: 100, more: true });
        model.happen(Event::ReceiveEnds(ReceiveEnd::Eof));
        model.ask(8);
        assert!(!model.closed);
        model.happen(Event::SendTakes { percent: 50 });
        model.ask(8);
        assert!(!model.closed);
        model.happen(Event::SendTakes { percent: 100 });
        model.ask(8);
        assert!(model.closed);
    }
}
