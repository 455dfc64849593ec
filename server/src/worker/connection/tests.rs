//! A model of the kernel and the peer that checks every byte.

use proptest::prelude::*;

use super::*;
use crate::worker::buffers::Pages;
use crate::worker::kernel::MOST_PIECES;
use crate::worker::memory::Span;
use crate::worker::send_queue::SpillFull;
use crate::worker::spill::{SPILL_PIECE, Spill};

const BUFFER_SIZE: usize = 64 * 1024;

/// As if a buffer were smaller: what is less is little.
const LITTLE: usize = 1000;

/// What may happen next; the numbers choose among what is possible.
#[derive(Debug, Clone, Copy)]
enum Event {
    Bytes {
        length: usize,
        /// The receive goes on.
        more: bool,
        /// They fill a buffer, and more waits.
        fills: bool,
    },
    /// Bytes wait that are to be spliced, of which the socket takes back so many.
    Spliced {
        length: usize,
        percent: usize,
    },
    /// There is a plain descriptor, or none to be had.
    Installed {
        refused: bool,
    },
    ReceiveEnds(ReceiveEnd),
    SendTakes {
        percent: usize,
    },
    SendFails,
    CancelAnswered {
        escaped: bool,
    },
    Fed,
    /// The worker copies what it may out of the pool.
    Spared,
    EndStream,
    ShutdownEnds,
    Abort,
}

fn bytes(most: usize) -> impl Strategy<Value = Event> {
    let bytes = (1..most, any::<bool>(), any::<bool>());
    bytes.prop_map(|(length, more, fills)| Event::Bytes { length, more, fills })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let end = prop_oneof![
        6 => Just(ReceiveEnd::Stopped),
        4 => Just(ReceiveEnd::NoBuffers),
        1 => Just(ReceiveEnd::Eof),
        1 => Just(ReceiveEnd::Failed),
    ];
    let event = prop_oneof![
        18 => bytes(300),
        2 => bytes(BUFFER_SIZE),
        10 => (0..3 * SPILL_PIECE, 0..=200usize)
            .prop_map(|(length, percent)| Event::Spliced { length, percent: percent.min(100) }),
        8 => prop::bool::weighted(0.2).prop_map(|refused| Event::Installed { refused }),
        6 => end.prop_map(Event::ReceiveEnds),
        20 => (0..=100usize).prop_map(|percent| Event::SendTakes { percent }),
        20 => Just(Event::SendTakes { percent: 100 }),
        1 => Just(Event::SendFails),
        8 => any::<bool>().prop_map(|escaped| Event::CancelAnswered { escaped }),
        8 => Just(Event::Fed),
        4 => Just(Event::Spared),
        2 => Just(Event::EndStream),
        8 => Just(Event::ShutdownEnds),
        1 => Just(Event::Abort),
    ];
    prop::collection::vec(event, 1..200)
}

/// A kernel that holds a connection's requests, and a peer that checks every byte.
struct Model {
    connection: Connection,
    receive: Option<Way>,
    install: bool,
    /// What the send in flight reads from, and its bytes when it started.
    send: Option<(Vec<Span>, Vec<u8>)>,
    cancel: bool,
    shutdown: bool,
    closed: bool,
    /// Bytes received so far, which are 0, 1, … 250, 0, …
    received: usize,
    /// Bytes sent so far.
    sent: usize,
    memory: Memory,
    /// The kernel's head in the ring of buffers.
    head: u16,
    broken: bool,
}

impl Model {
    fn new() -> Self {
        Self::with(Descriptor::Plain(0), 64)
    }

    /// With a spill of so many pieces.
    fn with(descriptor: Descriptor, spill: u64) -> Self {
        let mut connection = Connection::free();
        connection.open(descriptor);
        let size = u32::try_from(BUFFER_SIZE).unwrap();
        let spill = Spill::map(spill * SPILL_PIECE as u64).unwrap();
        Self {
            connection,
            receive: None,
            install: false,
            send: None,
            cancel: false,
            shutdown: false,
            closed: false,
            received: 0,
            sent: 0,
            memory: Memory::map(16, size, Pages::Small, false, spill).unwrap(),
            head: 0,
            broken: false,
        }
    }

    fn ask(&mut self, most: usize) {
        while let Some(step) = self.connection.next_step(self.memory.spill_is_tight()) {
            assert!(!self.closed, "{step:?} after the close");
            match step {
                Step::Receive => assert_eq!(self.receive.replace(Way::Pool), None, "armed twice"),
                Step::Watch => {
                    assert_eq!(self.receive.replace(Way::Pipe), None, "armed twice");
                    assert!(self.connection.queue.is_empty() && self.send.is_none(), "bytes are queued");
                }
                Step::Install(_) => assert!(!std::mem::replace(&mut self.install, true), "asked for twice"),
                Step::SendNow => self.start_send(most),
                Step::SendWaiting => {
                    let copied = self.connection.spare_buffers(&mut self.memory);
                    self.copied(copied);
                    if copied.is_ok() {
                        self.start_send(most);
                        self.connection.send_waits();
                    }
                }
                Step::CancelReceive | Step::CancelSend => {
                    assert!(!std::mem::replace(&mut self.cancel, true), "cancelled twice");
                    let there = if step == Step::CancelReceive {
                        self.receive.is_some()
                    } else {
                        self.send.is_some()
                    };
                    assert!(there, "nothing to cancel");
                }
                Step::Shutdown => {
                    assert_eq!(self.sent, self.received, "the FIN before the last byte");
                    assert!(!std::mem::replace(&mut self.shutdown, true), "shut down twice");
                }
                Step::CountUnsent | Step::ResetOnClose => self.connection.look_ended(),
                Step::Close => {
                    assert!(
                        self.receive.is_none() && self.send.is_none() && !self.cancel && !self.shutdown,
                        "closed with requests in flight"
                    );
                    assert!(!self.install, "closed while a second descriptor is made");
                    assert!(self.broken || self.sent == self.received, "closed with bytes unsent");
                    self.closed = true;
                }
            }
        }
    }

    fn start_send(&mut self, most: usize) {
        assert!(self.send.is_none(), "two sends in flight");
        let spans: Vec<Span> = self.connection.queue().spans(most, &self.memory).collect();
        let bytes = self.bytes(&spans);
        assert!(!bytes.is_empty());
        self.connection.send_started(spans.len(), 0, &self.memory);
        self.send = Some((spans, bytes));
    }

    fn bytes(&self, spans: &[Span]) -> Vec<u8> {
        spans.iter().flat_map(|&span| self.memory.bytes(span)).copied().collect()
    }

    fn bytes_came(&mut self, length: usize) {
        self.memory.publish();
        let bytes: Vec<u8> = (self.received..self.received + length).map(pattern).collect();
        let Some(buffer) = self.memory.receive(self.head, &bytes) else { return };
        self.head = self.head.wrapping_add(1);
        self.received += length;
        let piece = self.memory.take(buffer, u32::try_from(length).unwrap()).unwrap();
        self.connection.heard(0);
        let copied = self.connection.echo(piece, &mut self.memory);
        self.copied(copied);
    }

    fn copied(&mut self, copied: Result<u64, SpillFull>) {
        if copied.is_err() {
            assert!(self.memory.pool().few_left() && self.connection.blocked, "it reads");
            self.broken = true;
            self.connection.give_up(&mut self.memory);
        }
    }

    fn spliced(&mut self, length: usize, percent: usize) {
        self.receive = None;
        self.connection.receive_ended(ReceiveEnd::Stopped);
        self.connection.bytes_wait();
        if self.memory.spill_room() < 3 * SPILL_PIECE {
            return self.connection.stops_splicing();
        }
        if self.connection.take_turn().is_none() {
            return;
        }
        assert_eq!(self.sent, self.received, "bytes overtake others");
        if length == 0 {
            return self.connection.stops_splicing();
        }
        self.connection.heard(0);
        self.connection.spliced(length < LITTLE);
        self.received += length;
        self.sent += length * percent / 100;
        let mut at = self.sent;
        while at < self.received {
            let count = (self.received - at).min(SPILL_PIECE);
            let piece = self.memory.spill(|bytes| {
                bytes.iter_mut().zip(at..at + count).for_each(|(byte, position)| *byte = pattern(position));
                count
            });
            self.connection.left_over(piece, &mut self.memory);
            at += count;
        }
    }

    fn send_took(&mut self, percent: usize) {
        let Some((spans, bytes)) = self.send.take() else { return };
        assert_eq!(self.bytes(&spans), bytes, "bytes changed while the kernel read them");
        let taken = bytes.len() * percent / 100;
        for byte in &bytes[..taken] {
            assert_eq!(*byte, pattern(self.sent), "byte {} is not the one that came", self.sent);
            self.sent += 1;
        }
        self.connection.sent(taken as u64, 0, &mut self.memory);
    }

    fn spare(&mut self) {
        if self.send.is_none() {
            let copied = self.connection.spare_buffers(&mut self.memory);
            self.copied(copied);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Bytes { length, more, fills } if self.receive == Some(Way::Pool) => {
                if !more {
                    self.receive = None;
                    self.connection.receive_ended(ReceiveEnd::Stopped);
                }
                if !self.connection.discards() {
                    self.bytes_came(length);
                }
                if fills {
                    self.connection.begins_to_splice();
                }
            }
            Event::Spliced { length, percent } if self.receive == Some(Way::Pipe) => {
                self.spliced(length, percent);
            }
            Event::Installed { refused } if self.install => {
                self.install = false;
                self.connection.alias_answered(NonZeroU32::new(7).filter(|_| !refused));
            }
            Event::ReceiveEnds(end) if self.receive == Some(Way::Pool) => {
                self.receive = None;
                self.connection.receive_ended(end);
                if end == ReceiveEnd::Failed {
                    self.broken = true;
                    self.connection.abort(&mut self.memory);
                }
            }
            Event::SendTakes { percent } => self.send_took(percent),
            Event::SendFails if self.send.take().is_some() => {
                self.broken = true;
                self.connection.send_failed(&mut self.memory);
            }
            Event::CancelAnswered { escaped } if self.cancel => {
                self.cancel = false;
                self.connection.cancel_ended(escaped);
            }
            Event::Fed => self.connection.feed(),
            Event::Spared => self.spare(),
            Event::EndStream => self.connection.end_stream(),
            Event::ShutdownEnds if self.shutdown => {
                self.shutdown = false;
                self.connection.shutdown_ended();
            }
            Event::Abort => {
                self.broken = true;
                self.connection.abort(&mut self.memory);
            }
            _ => {}
        }
    }
}

fn pattern(position: usize) -> u8 {
    u8::try_from(position % 251).unwrap()
}

proptest! {
    /// Whatever happens in whatever order: every byte goes back once and in order, at most one send and one
    /// receive are in flight, the queue is bounded, nothing is closed too early, and in the end everything is
    /// given back.
    #[test]
    fn every_order_of_events_is_survived(
        events in events(), most in 1..=MOST_PIECES, direct: bool, spill in 0..40u64,
    ) {
        let descriptor = if direct { Descriptor::Direct(0) } else { Descriptor::Plain(0) };
        let mut model = Model::with(descriptor, spill);
        model.ask(most);
        for event in events {
            model.happen(event);
            model.ask(most);
            let full = model.connection.queue.bytes() >= PAUSE_AT || model.memory.spill_is_tight();
            let goes_on = model.receive.is_some() && !model.cancel && !model.connection.cancel_asked;
            prop_assert!(!(full && model.connection.is_behind() && goes_on), "{:?}", model.connection);
        }
        // Time passes: the peer closes, all requests end, the connection must come to its end.
        for _ in 0..1000 {
            for event in [
                Event::Fed,
                Event::Installed { refused: false },
                Event::Spliced { length: 0, percent: 0 },
                Event::SendTakes { percent: 100 },
                Event::CancelAnswered { escaped: true },
                Event::ShutdownEnds,
                Event::ReceiveEnds(ReceiveEnd::Eof),
            ] {
                model.happen(event);
                model.ask(most);
            }
        }
        prop_assert!(model.closed, "{:?}", model.connection);
        prop_assert_eq!((model.memory.pool().held(), model.memory.spill_bytes()), (0, 0), "memory lost");
        prop_assert!(model.broken || model.sent == model.received);
    }
}

fn assert_paused_until_it_reads(model: &mut Model) {
    assert!(model.cancel, "the receive is cancelled");
    model.happen(Event::ReceiveEnds(ReceiveEnd::Stopped));
    model.happen(Event::CancelAnswered { escaped: false });
    model.ask(8);
    assert_eq!(model.receive, None, "and not armed again");
    model.happen(Event::SendTakes { percent: 100 });
    model.ask(8);
    assert!(model.receive.is_some(), "until the peer reads");
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from_until_it_does() {
    let mut model = Model::new();
    model.ask(8);
    model.happen(Event::Bytes { length: BUFFER_SIZE, more: true, fills: false });
    model.ask(8);
    model.happen(Event::SendTakes { percent: 0 });
    model.ask(8);
    assert_paused_until_it_reads(&mut model);
}

/// With so many of three pieces of the spill used by others.
fn that_has_read_none_of_few_bytes(used: usize) -> Model {
    let mut model = Model::with(Descriptor::Plain(0), 3);
    (0..used).for_each(|_| _ = model.memory.spill_piece());
    model.ask(8);
    model.happen(Event::Bytes { length: 100, more: true, fills: false });
    model.ask(8);
    model.happen(Event::SendTakes { percent: 0 });
    model.ask(8);
    model
}

#[test]
fn while_the_spill_is_tight_a_peer_that_does_not_read_is_not_read_from_at_all() {
    assert!(!that_has_read_none_of_few_bytes(0).cancel);
    let mut model = that_has_read_none_of_few_bytes(2);
    assert_paused_until_it_reads(&mut model);
    assert!(model.memory.spill_is_tight());
}

#[test]
fn after_the_peers_fin_what_is_queued_is_sent_then_closed() {
    let mut model = Model::new();
    model.ask(8);
    model.happen(Event::Bytes { length: 100, more: true, fills: false });
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

#[test]
fn a_draining_server_sends_its_fin_once_and_drops_what_crosses_it() {
    let mut model = Model::new();
    model.ask(8);
    model.happen(Event::EndStream);
    model.ask(8);
    assert!(model.cancel && !model.shutdown, "first the receive ends");
    model.happen(Event::Bytes { length: 50, more: false, fills: false });
    model.happen(Event::CancelAnswered { escaped: true });
    model.ask(8);
    assert!(model.send.is_some() && !model.shutdown, "what came before that is answered");
    model.happen(Event::SendTakes { percent: 100 });
    model.ask(8);
    assert!(model.shutdown && model.receive.is_some(), "it still reads");
    model.happen(Event::Bytes { length: 100, more: true, fills: false });
    model.happen(Event::ShutdownEnds);
    model.ask(8);
    assert!(!model.closed && model.send.is_none());
    model.happen(Event::ReceiveEnds(ReceiveEnd::Eof));
    model.ask(8);
    assert!(model.closed);
}

/// What fills a buffer has come, and all that was queued is sent: the next bytes are spliced.
fn that_splices(descriptor: Descriptor) -> Model {
    let mut model = Model::with(descriptor, 64);
    model.ask(8);
    model.happen(Event::Bytes { length: 100, more: true, fills: true });
    model.ask(8);
    assert!(model.cancel, "the receive into the pool");
    model.happen(Event::ReceiveEnds(ReceiveEnd::Stopped));
    model.happen(Event::CancelAnswered { escaped: false });
    model.ask(8);
    assert_eq!(model.receive, None, "first what is queued");
    model.happen(Event::SendTakes { percent: 100 });
    model.ask(8);
    model
}

#[test]
fn large_messages_are_spliced_until_two_are_small() {
    let mut model = that_splices(Descriptor::Plain(3));
    for _ in 0..2 {
        assert_eq!((model.receive, model.connection.take_turn()), (Some(Way::Pipe), Some(3)));
        model.happen(Event::Spliced { length: 20 * LITTLE, percent: 100 });
        model.ask(8);
        assert_eq!(model.receive, Some(Way::Pipe), "the end of a message may be short");
        model.happen(Event::Spliced { length: 10, percent: 100 });
        model.ask(8);
    }
    model.happen(Event::Spliced { length: 10, percent: 100 });
    model.ask(8);
    assert_eq!(
        (model.receive, model.sent),
        (Some(Way::Pool), 100 + 40 * LITTLE + 30),
        "but not two in a row"
    );
}

#[test]
fn what_the_socket_does_not_take_is_sent_before_more_is_spliced() {
    let mut model = that_splices(Descriptor::Plain(0));
    model.happen(Event::Spliced { length: 2 * SPILL_PIECE, percent: 25 });
    assert_eq!(model.connection.next_step(false), Some(Step::SendWaiting));
    model.ask(1);
    assert_eq!((model.receive, model.memory.spill_bytes()), (None, 2 * SPILL_PIECE));
    model.happen(Event::SendTakes { percent: 100 });
    model.ask(1);
    assert_eq!(model.receive, None, "half of it is left");
    model.happen(Event::SendTakes { percent: 100 });
    model.ask(1);
    assert_eq!((model.receive, model.sent), (Some(Way::Pipe), 100 + 2 * SPILL_PIECE));
}

#[test]
fn a_direct_descriptor_gets_a_plain_one_first_and_gives_it_back() {
    let mut model = that_splices(Descriptor::Direct(5));
    assert!(model.install && model.receive.is_none());
    model.happen(Event::Installed { refused: false });
    model.ask(8);
    assert_eq!((model.receive, model.connection.take_turn()), (Some(Way::Pipe), Some(7)));
    model.happen(Event::Spliced { length: 0, percent: 0 });
    model.ask(8);
    assert_eq!(model.receive, Some(Way::Pool), "a receive tells what it was");
    assert_eq!((model.connection.take_alias(), model.connection.take_alias()), (Some(7), None));
}

#[test]
fn without_a_plain_descriptor_bytes_are_copied_ever_after() {
    let mut model = that_splices(Descriptor::Direct(5));
    model.happen(Event::Installed { refused: true });
    model.ask(8);
    model.happen(Event::Bytes { length: 100, more: true, fills: true });
    model.ask(8);
    assert!(model.receive == Some(Way::Pool) && !model.cancel && !model.install);
}

/// One who sends what fills buffers and does not read, until the spill is full and few buffers are left.
#[test]
fn a_peer_that_does_not_read_is_reset_when_nothing_has_room_for_its_bytes() {
    let mut model = Model::with(Descriptor::Plain(0), 1);
    model.ask(8);
    model.happen(Event::Bytes { length: 100, more: true, fills: false });
    model.ask(8);
    model.happen(Event::SendTakes { percent: 0 });
    while !model.broken {
        assert!(model.memory.pool().held() <= 8, "half of them");
        model.happen(Event::Bytes { length: BUFFER_SIZE, more: true, fills: false });
    }
    assert_eq!((model.memory.pool().held(), model.memory.spill_bytes()), (0, 0), "and has nothing any more");
    model.ask(8);
    model.happen(Event::ReceiveEnds(ReceiveEnd::Stopped));
    model.happen(Event::CancelAnswered { escaped: false });
    assert_eq!(model.connection.next_step(false), Some(Step::ResetOnClose));
    model.connection.look_ended();
    assert_eq!(model.connection.next_step(false), Some(Step::Close));
}
