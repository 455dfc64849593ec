//! One worker: a pinned thread, its ring, its listener, its connections.
//!
//! [`Worker::run`] is the loop: ask for what the connections want, enter the kernel once, take the completions.
//! [`completions`] is what a completion does; [`connection`] decides what a connection wants; [`operations`] asks for it.
//! [`drain`] is how it ends.

mod acceptor;
pub(crate) mod buffers;
mod completions;
mod connection;
mod connections;
mod drain;
mod features;
mod operations;
pub(crate) mod ring;
mod send_queue;
mod token;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use tune::cpu_set::Cpu;
use tune::errno::describe;

use crate::control::Control;
use crate::stats::LiveCounters;
use acceptor::{AcceptStep, Acceptor};
use buffers::Buffers;
pub(crate) use buffers::MAX_BUFFERS;
use connection::Step;
use connections::Connections;
use drain::Drain;
pub(crate) use features::Features;
pub use ring::SetupError;
use ring::{Completion, Ring};
use send_queue::{Chunk, Storage};
pub(crate) use token::MAX_SLOTS;
use token::{ConnectionId, Descriptor, Slot, Token};

/// What a worker is given.
pub(crate) struct Settings {
    /// The CPU that the worker's thread is pinned to.
    pub(crate) cpu: Cpu,
    /// What the kernel can do.
    pub(crate) features: Features,
    /// Most connections open at a time.
    pub(crate) max_connections: u32,
    /// Length of the listener's accept queue.
    pub(crate) backlog: usize,
    /// Buffers in the pool; a power of two.
    pub(crate) buffers: u16,
    /// Bytes in a buffer.
    pub(crate) buffer_size: u32,
    /// How long open connections may go on after the server was told to stop.
    pub(crate) drain_timeout: Duration,
}

/// Why a worker ended early. The process reports it and exits non-zero.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The ring could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A system call of the set-up failed.
    #[error("{0}: {error}", error = describe(.1))]
    Start(&'static str, io::Error),
    /// The ring itself failed.
    #[error("io_uring_enter: {error}", error = describe(.0))]
    Enter(io::Error),
    /// The listener can't accept any more.
    #[error("accept: {error}: the listening socket is gone", error = describe(.0))]
    Accept(io::Error),
    /// The kernel answered what it can't answer; going on could mix connections up.
    #[error("unexpected completion: {0}")]
    Unexpected(String),
}

/// A send that completes without a completion: it succeeded if its request was taken and no completion came.
struct SilentSend {
    id: ConnectionId,
    request: u64,
}

/// A worker's state, used by its own thread only.
pub(crate) struct Worker<'r> {
    ring: Ring<'r>,
    cpu: Cpu,
    buffers: &'r mut Buffers,
    connections: Connections,
    acceptor: Acceptor,
    /// When a rest of the acceptor ends.
    rest_until: Option<Instant>,
    /// Closed as soon as accepting has stopped.
    listener: Option<OwnedFd>,
    control: &'r Control,
    wake: &'r OwnedFd,
    /// Slots of connections to be asked for their next steps.
    listed: Vec<Slot>,
    /// Connections that wait for a buffer, longest first.
    starved: VecDeque<ConnectionId>,
    silent_sends: VecDeque<SilentSend>,
    /// Do not sleep in the next enter: something is to be done right after it.
    hurry: bool,
    drain: Option<Drain>,
    drain_timeout: Duration,
    counters: &'r LiveCounters,
}

/// Runs a worker on the calling thread, which is already pinned. `ready` is called when all is set up and returns when
/// the listener listens, false if the server gives up.
///
/// # Errors
/// If the set-up fails or the ring or the listener break. What a peer does is never an error.
pub(crate) fn run(
    settings: &Settings,
    listener: OwnedFd,
    control: &Control,
    wake: &OwnedFd,
    counters: &LiveCounters,
    ready: impl FnOnce() -> bool,
) -> Result<(), WorkerError> {
    // The pool first, so that it is dropped after the ring.
    let mut buffers = Buffers::map(settings.buffers, settings.buffer_size)
        .map_err(|error| WorkerError::Start("map the buffer pool", error))?;
    let mut uring = ring::create()?;
    let ring = Ring::new(&mut uring, settings.features, settings.max_connections)?;
    buffers
        .register(ring.submitter())
        .map_err(|error| WorkerError::Start("register the buffer pool", error))?;
    if !ready() {
        return Ok(());
    }
    Worker {
        ring,
        cpu: settings.cpu,
        buffers: &mut buffers,
        connections: Connections::new(settings.max_connections),
        acceptor: Acceptor::new(settings.backlog),
        rest_until: None,
        listener: Some(listener),
        control,
        wake,
        listed: Vec::new(),
        starved: VecDeque::new(),
        silent_sends: VecDeque::new(),
        hurry: false,
        drain: None,
        drain_timeout: settings.drain_timeout,
        counters,
    }
    .run()
}

impl Worker<'_> {
    fn run(mut self) -> Result<(), WorkerError> {
        self.ring.poll_wake(self.wake.as_raw_fd());
        while !self.is_done() {
            self.ask();
            self.buffers.publish();
            let sweeps = self.sweep_is_due();
            let (want, timeout) = if sweeps { drain::CATCH_UP } else { self.how_long() };
            self.ring.enter(want, timeout).map_err(WorkerError::Enter)?;
            let caught_up = self.ring.has_caught_up();
            self.take_completions()?;
            self.confirm_silent_sends();
            if !self.is_cut_off() {
                self.counters.open.set(self.connections.open_count() as u64);
            }
            self.end_rest();
            if sweeps {
                self.sweep(caught_up);
            }
        }
        Ok(())
    }

    /// Queues the requests that the listener and the listed connections want.
    fn ask(&mut self) {
        self.hurry = self.ring.has_overflowed() || self.ring.has_unsubmitted();
        self.ask_to_accept();
        self.feed_starved();
        self.hurry |= !self.starved.is_empty();
        let mut listed = std::mem::take(&mut self.listed);
        for slot in listed.drain(..) {
            if let Some(id) = self.connections.unlisted(slot) {
                self.ask_for(id);
            }
        }
        self.listed = listed;
        // Buffers of silent sends come back only after the enter; with few left, receives would fail for want of one.
        self.hurry |= !self.silent_sends.is_empty() && self.buffers.held() > self.buffers.count() / 2;
    }

    fn ask_to_accept(&mut self) {
        if let Some(listener) = self.listener.as_ref().map(OwnedFd::as_raw_fd) {
            while let Some(step) = self.acceptor.next_step(self.connections.free_count()) {
                match step {
                    AcceptStep::Multishot => self.ring.accept_multishot(listener),
                    AcceptStep::Single => self.ring.accept_one(listener),
                    AcceptStep::Cancel => self.ring.cancel_accepts(listener),
                }
            }
            self.empty_accept_queue();
        }
    }

    /// Lets as many starved connections receive again as there are free buffers, before those who have had theirs arm their
    /// next receive: else a few that stream would take every buffer again and again.
    fn feed_starved(&mut self) {
        let free = self.buffers.count() - self.buffers.held();
        for _ in 0..free.min(self.starved.len()) {
            let Some(id) = self.starved.pop_front() else { break };
            if let Some(connection) = self.connections.get(id) {
                connection.fed();
                self.ask_for(id);
            }
        }
    }

    /// Queues what one connection wants.
    fn ask_for(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let descriptor = connection.descriptor();
        while let Some(step) = connection.next_step() {
            match step {
                Step::Receive => self.ring.receive(id, descriptor),
                Step::SendNow => {
                    self.ring.send(id, connection, self.buffers, false);
                    self.silent_sends.push_back(SilentSend { id, request: self.ring.queued() });
                    self.hurry |= connection.awaits_send();
                }
                Step::SendWaiting => {
                    connection.relocate_queue(|chunk| {
                        self.counters.bytes_copied.add(spare_the_pool(chunk, self.buffers));
                    });
                    self.ring.send(id, connection, self.buffers, true);
                }
                Step::CancelReceive => self.ring.cancel(id, Token::Receive(id)),
                Step::CancelSend => self.ring.cancel(id, Token::Send(id)),
                Step::Shutdown => self.ring.shutdown(id, descriptor),
                Step::Close => self.ring.close(id, descriptor),
            }
        }
    }

    /// Notes that a connection is to be asked for its next steps.
    fn list(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id)
            && !std::mem::replace(&mut connection.listed, true)
        {
            self.listed.push(id.slot);
        }
    }

    /// For how many completions the next enter waits, and how long at most.
    fn how_long(&self) -> (u32, Option<Duration>) {
        let drain = self.drain.as_ref().map(Drain::next_sweep);
        let until = [self.rest_until, drain].into_iter().flatten().min();
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        (u32::from(!self.hurry), timeout)
    }

    /// Lets the acceptor go on when its rest is over.
    fn end_rest(&mut self) {
        if self.rest_until.is_some_and(|until| until <= Instant::now()) {
            self.rest_until = None;
            self.acceptor.rested();
        }
    }

    /// Submits what is still queued, closes among it, and gives what was accepted and nobody knows of yet.
    fn last_turn(&mut self) -> Vec<Descriptor> {
        let mut left = u64::MAX;
        while self.ring.has_unsubmitted() && self.ring.queued() - self.ring.consumed() < left {
            left = self.ring.queued() - self.ring.consumed();
            if self.ring.enter(0, None).is_err() {
                break;
            }
        }
        self.ring.sync_completions();
        let completions = std::iter::from_fn(|| self.ring.next());
        let accepted = completions.filter_map(|completion| match completion {
            Completion { token: Some(Token::Accept | Token::AcceptOne), result: Ok(number), .. } => {
                Some(number)
            }
            _ => None,
        });
        let numbers: Vec<u32> = accepted.collect();
        numbers.into_iter().map(|number| self.ring.accepted(number)).collect()
    }
}

impl Drop for Worker<'_> {
    /// Ends what uses memory of the connections, and closes what the worker leaves open: because it failed, or because of
    /// peers that do not read.
    fn drop(&mut self) {
        self.last_turn().into_iter().for_each(operations::close_now);
        for (id, connection) in self.connections.iter_mut() {
            if connection.is_sending() {
                self.ring.cancel_now(Token::Send(id));
            }
            // The number of one that is being closed may be somebody else's by now.
            if !connection.is_closing() {
                operations::close_now(connection.descriptor());
            }
        }
    }
}

/// Gives the buffer of a chunk that is no longer needed back to the pool.
fn release(buffers: &mut Buffers, chunk: Chunk) {
    let Chunk { storage, .. } = chunk;
    if let Storage::Pool(id) = storage {
        buffers.give_back(id);
    }
}

/// Whether `length` bytes for a peer that does not read are to be copied out of their buffer: so that such peers can't keep
/// the pool from those that read, and that no peer can hold a buffer for a few bytes.
fn is_to_be_copied(length: usize, buffers: &Buffers) -> bool {
    length < buffers.size() / 2 || buffers.held() > buffers.count() / 2
}

/// Copies a chunk out of the pool [if need be](is_to_be_copied). Returns the number of bytes copied.
fn spare_the_pool(chunk: &mut Chunk, buffers: &mut Buffers) -> u64 {
    let Storage::Pool(id) = chunk.storage else { return 0 };
    if !is_to_be_copied(chunk.end - chunk.start, buffers) {
        return 0;
    }
    let bytes = buffers.bytes(id, chunk.start, chunk.end).to_vec();
    let copied = bytes.len();
    *chunk = Chunk { storage: Storage::Heap(bytes), start: 0, end: copied };
    buffers.give_back(id);
    copied as u64
}
