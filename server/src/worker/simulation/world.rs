//! Everything outside the workers and their rings: time, listeners, sockets, peers, the process's
//! descriptors.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::choices::Choices;
use super::peer::{Action, Peer, pattern};
use super::promises::owed;
use super::socket::{Life, Socket};
use crate::config::{Config, Mode};
use crate::worker::memory::SOURCE_PERIOD;

/// Most peers that connect between two enters: fewer than the acceptor's margin.
const MOST_CONNECTS: usize = 8;

/// A peer and its connection.
pub(super) type PeerId = usize;

/// The accept queue of a listening socket.
#[derive(Debug)]
pub(super) struct AcceptQueue {
    pub(super) waiting: VecDeque<PeerId>,
    pub(super) backlog: usize,
    pub(super) closed: bool,
    /// The worker has found it empty and may have closed it; known after the turn.
    pub(super) about_to_close: bool,
}

/// What a worker sends to another's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mail {
    /// A connection's plain descriptor.
    Connection(u32),
    Room,
}

/// The world.
pub(super) struct World {
    pub(super) choices: Choices,
    pub(super) now: Instant,
    pub(super) config: Config,
    pub(super) listeners: Vec<AcceptQueue>,
    /// One for each peer.
    pub(super) sockets: Vec<Socket>,
    pub(super) peers: Vec<Peer>,
    /// The process's table of open files.
    pub(super) plain: Vec<Option<PeerId>>,
    /// What is on its way to each worker; `None` for one without a ring.
    pub(super) mailboxes: Vec<Option<VecDeque<Mail>>>,
    /// Whose eventfds were written to.
    pub(super) wakes: Vec<bool>,
    pub(super) draining: bool,
    /// The drain timeout has passed, or a second signal came, or a worker failed: what is left may be cut
    /// off.
    pub(super) cut_off: bool,
    /// Counts whatever happens.
    pub(super) events: u64,
    pub(super) refused: u64,
    /// Connections reset because the spill was full.
    pub(super) given_up: u64,
    pub(super) most_queued: u64,
    connects: usize,
}

impl World {
    pub(super) fn new(config: Config, stream: Vec<u32>, now: Instant, workers: usize) -> Self {
        Self {
            choices: Choices::new(stream),
            now,
            config,
            listeners: Vec::new(),
            sockets: Vec::new(),
            peers: Vec::new(),
            plain: Vec::new(),
            mailboxes: (0..workers).map(|_| Some(VecDeque::new())).collect(),
            wakes: vec![false; workers],
            draining: false,
            cut_off: false,
            events: 0,
            refused: 0,
            given_up: 0,
            most_queued: 0,
            connects: 0,
        }
    }

    /// Time passes until a worker enters its kernel.
    pub(super) fn pass(&mut self) {
        self.connects = 0;
        for peer in &mut self.peers {
            self.events += u64::from(peer.may_read_on());
        }
        let microseconds = if self.choices.one_in(16) { self.choices.up_to(80_000) } else { 1 };
        self.now += Duration::from_micros(microseconds as u64);
    }

    /// Some of what may happen does, or with kind choices all.
    pub(super) fn happen(&mut self) {
        if self.choices.is_over() {
            return self.happen_all();
        }
        for _ in 0..self.choices.below(6) {
            let peer = self.choices.below(self.peers.len());
            self.step(peer);
        }
    }

    /// Every peer does what it can.
    pub(super) fn happen_all(&mut self) {
        for peer in 0..self.peers.len() {
            while !self.peers[peer].done && self.step(peer) {}
        }
    }

    /// Something happens to this peer. False if it is done or waits.
    fn step(&mut self, peer: PeerId) -> bool {
        let before = self.events;
        if !self.peers[peer].done {
            match self.sockets[peer].life {
                Life::Unborn => self.connect(peer),
                _ => {
                    self.deliver(peer);
                    self.read(peer);
                    self.act(peer);
                }
            }
        }
        self.events > before
    }

    fn connect(&mut self, peer: PeerId) {
        let listener = &mut self.listeners[self.peers[peer].listener];
        if listener.closed {
            self.peers[peer].done = true;
            self.events += 1;
        } else if listener.waiting.len() <= listener.backlog
            && self.connects < MOST_CONNECTS
            && !listener.about_to_close
        {
            listener.waiting.push_back(peer);
            self.sockets[peer].life = Life::Queued;
            self.connects += 1;
            self.events += 1;
        }
    }

    /// Bytes, then the FIN, go to the peer's kernel, which acknowledges them.
    fn deliver(&mut self, id: PeerId) {
        let (socket, peer) = (&mut self.sockets[id], &mut self.peers[id]);
        let most = socket.outgoing.len().min(peer.receive_buffer - peer.inbox.len());
        if most > 0 {
            let count = self.choices.up_to(most);
            peer.inbox.extend(socket.outgoing.drain(..count));
            socket.acknowledged += count as u64;
            self.events += 1;
        }
        if socket.shut && socket.outgoing.is_empty() && !socket.fin_acknowledged {
            socket.fin_acknowledged = true;
            peer.fin = true;
            self.events += 1;
        }
    }

    fn read(&mut self, id: PeerId) {
        let peer = &mut self.peers[id];
        if !peer.reads {
            return;
        }
        let most = peer.inbox.len().min(peer.allowance);
        if most > 0 {
            let count = self.choices.up_to(most);
            peer.allowance -= count;
            for byte in peer.inbox.drain(..count) {
                let expected = match self.config.mode {
                    Mode::SinkSource => u8::try_from(peer.read % SOURCE_PERIOD as u64).expect("below 251"),
                    _ => pattern(id, peer.read),
                };
                assert_eq!(byte, expected, "peer {id}: byte {} is not the one owed", peer.read);
                peer.read += 1;
            }
            self.events += 1;
        }
        let over = peer.inbox.is_empty() && peer.fin;
        if over && !peer.reset {
            assert_eq!(peer.read, self.sockets[id].sent, "peer {id}: bytes lost before the FIN");
        }
        if over || peer.reset {
            peer.done = true;
            self.events += 1;
            // It closes, whatever its script says.
            self.sockets[id].fin |= !peer.has_finished;
            peer.has_finished = true;
        }
    }

    fn act(&mut self, id: PeerId) {
        let closed = self.sockets[id].life == Life::Closed;
        let peer = &mut self.peers[id];
        if peer.done || peer.reset {
            return;
        }
        let action = peer.script.front().copied();
        let ended = match action {
            Some(Action::Send(count) | Action::Trickle(count)) if count > 0 => {
                if closed {
                    return self.reset_by_server(id);
                }
                return self.send(id, count);
            }
            Some(Action::Await) => peer.read >= owed(&self.config, peer.sent),
            Some(Action::StopReading) => {
                peer.reads = false;
                true
            }
            Some(Action::Read) => {
                peer.reads = true;
                true
            }
            Some(Action::ReadSlowly(pace)) => {
                peer.pace = Some(pace as usize);
                peer.allowance = pace as usize;
                true
            }
            Some(Action::Reset) => {
                let forgets = self.choices.one_in(2);
                self.sockets[id].reset(forgets);
                peer.inbox.clear();
                peer.done = true;
                true
            }
            Some(Action::Stay) => false,
            Some(Action::HalfClose) | None if !peer.has_finished => {
                peer.has_finished = true;
                self.sockets[id].fin = true;
                true
            }
            None => {
                let starts = !peer.reads;
                peer.reads = true;
                starts
            }
            _ => true,
        };
        if ended {
            peer.script.pop_front();
            self.events += 1;
        }
    }

    fn send(&mut self, id: PeerId, count: u32) {
        let (socket, peer) = (&mut self.sockets[id], &mut self.peers[id]);
        let room = socket.receive_buffer - socket.incoming.len();
        let trickles = matches!(peer.script[0], Action::Trickle(_));
        if peer.has_finished || socket.reset {
            peer.script.pop_front();
        } else if room == 0 {
            return;
        } else {
            let most = room.min(count as usize);
            let length = if trickles { 1 } else { self.choices.up_to(most) };
            socket.incoming.extend((0..length as u64).map(|i| pattern(id, peer.sent + i)));
            peer.sent += length as u64;
            let left = count - u32::try_from(length).expect("at most `count`");
            peer.script[0] = if trickles { Action::Trickle(left) } else { Action::Send(left) };
        }
        self.events += 1;
    }

    /// The server resets the connection: what its peer has not acknowledged is lost.
    fn reset_by_server(&mut self, id: PeerId) {
        self.sockets[id].outgoing.clear();
        self.peers[id].reset = true;
        self.events += 1;
    }

    /// The server closes a listener: who waits in its queue is reset.
    pub(super) fn close_listener(&mut self, index: usize) {
        self.listeners[index].closed = true;
        let waiting = std::mem::take(&mut self.listeners[index].waiting);
        assert!(
            waiting.is_empty() || self.cut_off,
            "{waiting:?} wait in the queue of a listener that is closed"
        );
        for id in waiting {
            self.sockets[id].life = Life::Closed;
            self.reset_by_server(id);
        }
    }

    /// Notes how many bytes were received from a peer and not sent to it.
    pub(super) fn note_queued(&mut self) {
        let queued = self.sockets.iter().map(|socket| socket.received.saturating_sub(socket.sent));
        self.most_queued = queued.max().unwrap_or(0).max(self.most_queued);
    }

    /// The server closes the connection.
    pub(super) fn close(&mut self, id: PeerId) {
        self.check_close(id);
        let socket = &mut self.sockets[id];
        assert_eq!(socket.life, Life::Open, "peer {id}: closed twice");
        socket.life = Life::Closed;
        self.events += 1;
        if socket.reset_on_close || !socket.incoming.is_empty() || self.config.mode == Mode::AcceptClose {
            self.reset_by_server(id);
        } else if !socket.reset {
            socket.shut = true;
        } else {
            self.peers[id].reset = true;
        }
    }

    /// Lets one of those go on who hold the rest up. False if nobody does.
    pub(super) fn nudge(&mut self) -> bool {
        let count = self.peers.len();
        let first = self.choices.below(count);
        let Some(peer) = (0..count).map(|i| (first + i) % count).find(|&id| {
            let peer = &self.peers[id];
            !peer.done && (!peer.reads || peer.script.front() == Some(&Action::Stay))
        }) else {
            return false;
        };
        let peer = &mut self.peers[peer];
        if !std::mem::replace(&mut peer.reads, true) {
            return true;
        }
        peer.script.pop_front();
        true
    }
}
