//! One worker: a pinned thread, its ring, its listener, its connections.
//!
//! [`Worker::run`] is the loop: ask for what the connections want, enter the kernel once, take the completions.
//! [`completions`] is what a completion does; [`connection`] decides what a connection wants; [`operations`] asks for it.

mod acceptor;
mod buffers;
mod completions;
mod connection;
mod connections;
mod features;
mod operations;
mod ring;
mod send_queue;
mod token;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use tune::cpu_set::Cpu;
use tune::errno::describe;

use crate::control::{Control, Phase};
use crate::stats::Counters;
use acceptor::{AcceptStep, Acceptor};
use buffers::Buffers;
pub(crate) use buffers::MAX_BUFFERS;
use connection::Step;
use connections::Connections;
pub(crate) use features::Features;
use ring::Ring;
pub use ring::SetupError;
use send_queue::{Chunk, Storage};
pub(crate) use token::MAX_SLOTS;
use token::{ConnectionId, Slot};

/// How often a draining worker looks for connections that have gone quiet. A connection gets a FIN once it has been quiet
/// for one to two of these, and is closed when its peer closes, at the latest one later.
const SWEEP: Duration = Duration::from_millis(50);

/// How long cut-off connections may take to close after the drain timeout.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// What remains to do after the server was told to stop.
struct Drain {
    deadline: Instant,
    next_sweep: Instant,
    /// When every connection left was given up, if it came to that.
    cut_off: Option<Instant>,
}

/// A worker's state, used by its own thread only.
pub(crate) struct Worker<'r> {
    cpu: Cpu,
    ring: Ring<'r>,
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
    counters: Counters,
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
    ready: impl FnOnce() -> bool,
) -> Result<Counters, WorkerError> {
    // In this order, so that the ring is dropped, and with it the kernel's use of the pool, before the pool.
    let mut buffers = Buffers::map(settings.buffers, settings.buffer_size)
        .map_err(|error| WorkerError::Start("map the buffer pool", error))?;
    let mut uring = ring::create()?;
    let ring = Ring::new(&mut uring, settings.features, settings.max_connections)?;
    buffers
        .register(ring.submitter())
        .map_err(|error| WorkerError::Start("register the buffer pool", error))?;
    if !ready() {
        return Ok(Counters::default());
    }
    Worker {
        cpu: settings.cpu,
        ring,
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
        counters: Counters::default(),
    }
    .run()
}

impl Worker<'_> {
    fn run(mut self) -> Result<Counters, WorkerError> {
        self.ring.poll_wake(self.wake.as_raw_fd());
        while !self.is_done() {
            self.ask();
            self.buffers.publish();
            self.ring.enter(!self.hurry, self.timeout()).map_err(WorkerError::Enter)?;
            self.take_completions()?;
            self.confirm_silent_sends();
            self.keep_time();
        }
        Ok(self.counters)
    }

    /// Queues the requests that the listener and the listed connections want.
    fn ask(&mut self) {
        self.ask_to_accept();
        self.feed_starved();
        self.hurry = !self.starved.is_empty() || self.ring.has_overflowed() || self.ring.has_unsubmitted();
        let mut listed = std::mem::take(&mut self.listed);
        for slot in listed.drain(..) {
            if let Some(id) = self.connections.id_of(slot) {
                self.ask_for(id);
            }
        }
        self.listed = listed;
        // Buffers of silent sends come back only after the enter; with few left, receives would fail for want of one.
        self.hurry |= !self.silent_sends.is_empty() && self.buffers.held() > self.buffers.count() / 2;
    }

    fn ask_to_accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let listener = listener.as_raw_fd();
        match self.acceptor.next_step(self.connections.free_count()) {
            Some(AcceptStep::Multishot) => self.ring.accept_multishot(listener),
            Some(AcceptStep::Single) => self.ring.accept_one(listener),
            Some(AcceptStep::Cancel) => self.ring.cancel_accept(),
            None => {}
        }
        if self.acceptor.has_stopped() {
            self.listener = None;
        }
    }

    /// Lets as many starved connections receive again as there are free buffers.
    fn feed_starved(&mut self) {
        let free = self.buffers.count() - self.buffers.held();
        for _ in 0..free.min(self.starved.len()) {
            let Some(id) = self.starved.pop_front() else { break };
            if let Some(connection) = self.connections.get(id) {
                connection.fed();
                self.list(id);
            }
        }
    }

    /// Queues what one connection wants.
    fn ask_for(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.listed = false;
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
                        self.counters.bytes_copied += spare_the_pool(chunk, self.buffers);
                    });
                    self.ring.send(id, connection, self.buffers, true);
                }
                Step::CancelReceive => self.ring.cancel_receive(id),
                Step::CancelAll => self.ring.cancel_all(id, descriptor),
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

    /// How long the next enter may sleep.
    fn timeout(&self) -> Option<Duration> {
        let drain = self.drain.as_ref().map(|drain| drain.next_sweep);
        let until = [self.rest_until, drain].into_iter().flatten().min()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Does what is due by the clock: ends a rest of the acceptor, ends quiet connections while draining.
    fn keep_time(&mut self) {
        if self.rest_until.is_some_and(|until| until <= Instant::now()) {
            self.rest_until = None;
            self.acceptor.rested();
        }
        let now = Instant::now();
        // With completions still in the kernel it is not known which connections are quiet.
        if self.drain.as_ref().is_some_and(|drain| drain.next_sweep <= now) && !self.ring.has_overflowed() {
            self.sweep(now);
        }
    }

    /// Ends the connections that have gone quiet; after the drain timeout those too that are busy, and cuts off those whose
    /// peers do not read; after a second signal cuts all off.
    fn sweep(&mut self, now: Instant) {
        let Some(drain) = &mut self.drain else { return };
        drain.next_sweep = now + SWEEP;
        let stop = self.control.phase() == Phase::Stop;
        if drain.cut_off.is_none() && (stop || now >= drain.deadline) {
            drain.cut_off = Some(now);
            self.acceptor.stop_now();
            self.counters.open = self.connections.open_count() as u64;
        }
        let late = drain.cut_off.is_some();
        for (id, connection) in self.connections.iter_mut() {
            let quiet = !connection.take_heard() && connection.is_quiet();
            if stop || connection.is_lingering() || late && connection.is_blocked() {
                connection.abort(|chunk| release(self.buffers, chunk));
            } else if quiet || late {
                connection.end_stream();
            } else {
                continue;
            }
            if !std::mem::replace(&mut connection.listed, true) {
                self.listed.push(id.slot);
            }
        }
    }

    /// The main thread has called: stop accepting, let the connections come to their end; the second time, at once.
    fn start_to_drain(&mut self) {
        let now = Instant::now();
        if let Some(listener) = &self.listener {
            // What waits in the accept queue is still accepted; this keeps new connections out of it. If it fails, they
            // are accepted as well.
            let _ = rustix::net::listen(listener, 0);
        }
        self.acceptor.stop();
        let deadline = now + self.drain_timeout;
        let drain = self.drain.get_or_insert(Drain { deadline, next_sweep: now + SWEEP, cut_off: None });
        if self.control.phase() == Phase::Stop || self.drain_timeout < SWEEP {
            drain.next_sweep = now;
        }
    }

    fn is_done(&self) -> bool {
        let Some(drain) = &self.drain else { return false };
        let closed = self.connections.open_count() == 0 && self.listener.is_none();
        closed || drain.cut_off.is_some_and(|since| since.elapsed() >= LAST_WORDS)
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
