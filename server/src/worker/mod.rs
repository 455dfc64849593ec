//! One worker: a pinned thread, its ring, its listeners, its connections.
//!
//! [`Worker::run`] is the loop: ask for what the connections want, enter the kernel once, take the
//! completions. [`asking`] is the first, [`completions`] the last; [`connection`] decides what a connection
//! wants; behind [`kernel`] is the [`ring`], or, in tests, a simulation of it. [`drain`] is how it comes to
//! an end, [`ending`] what it does last.

mod accepting;
mod acceptor;
mod asking;
pub(crate) mod buffers;
mod completions;
mod connection;
mod connections;
mod crew;
pub(crate) mod descriptors;
mod drain;
mod ending;
pub(crate) mod enter;
mod error;
mod features;
mod idle;
mod kernel;
mod memory;
mod operations;
mod pipe;
pub(crate) mod ring;
mod send_queue;
#[cfg(test)]
mod simulation;
mod spill;
mod splicing;
mod token;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tune::cpu_set::Cpu;

use crate::config::{Config, Mode};
use crate::control::Control;
use crate::stats::LiveCounters;
use accepting::Listening;
pub(crate) use accepting::reserve;
pub(crate) use buffers::MAX_BUFFERS;
use buffers::Pages;
use connections::{Connections, list, note};
pub(crate) use crew::Crew;
use drain::Drain;
pub use error::WorkerError;
pub use features::Features;
pub(crate) use features::{Capability, capabilities, try_rings};
use idle::Idle;
use kernel::Kernel;
use memory::Memory;
use ring::Ring;
pub use ring::SetupError;
use spill::Spill;
pub(crate) use spill::{LEAST_SPILL, SPILL_PIECE};
pub(crate) use token::MAX_SLOTS;
use token::{ConnectionId, Slot};

/// What a worker is given.
pub(crate) struct Settings {
    /// The CPU that the worker's thread is pinned to.
    pub(crate) cpu: Cpu,
    /// What the kernel can do.
    pub(crate) features: Features,
    /// Most connections open at a time.
    pub(crate) max_connections: u32,
    /// Length of each listener's accept queue.
    pub(crate) backlog: usize,
    /// Bytes of the spill.
    pub(crate) spill: u64,
    /// Below which number a connection may have a second, plain descriptor.
    pub(crate) aliases_below: u32,
    /// What the server is to do.
    pub(crate) config: Arc<Config>,
    /// The listeners' drops are this worker's to count: no other worker has them.
    pub(crate) counts_drops: bool,
    /// With [`crate::config::AcceptModel::Single`]: all workers, and which of them this is.
    pub(crate) crew: Option<(Arc<Crew>, usize)>,
}

/// A send in flight that completes without a completion: it succeeded if its request was taken and no
/// completion came.
#[derive(Clone, Copy)]
struct SilentSend {
    id: ConnectionId,
    request: u64,
}

/// A worker's state, used by its own thread only.
pub(crate) struct Worker<'r, K: Kernel> {
    kernel: K,
    settings: &'r Settings,
    mode: Mode,
    /// Large messages are spliced.
    splices: bool,
    memory: &'r mut Memory,
    connections: Connections,
    /// Closed as soon as accepting has stopped.
    listeners: Vec<Listening>,
    /// When a rest of the acceptors ends.
    rest_until: Option<Instant>,
    /// Connections at the limit are waited for: the limit was reached and
    /// [counted](LiveCounters::queue_waits).
    full: bool,
    /// Turns of the loop, to count the listeners' drops now and then.
    turns: u32,
    /// Plain descriptors that are to be handed to other workers, and whose turn it is.
    to_hand_over: VecDeque<u32>,
    turn: usize,
    control: &'r Control,
    wake: &'r OwnedFd,
    /// The eventfd is to be polled again.
    poll_wake: bool,
    /// Slots of connections to be asked for their next steps.
    listed: Vec<Slot>,
    /// Connections that were just accepted and are yet to be received from, longest first.
    newcomers: VecDeque<ConnectionId>,
    /// Connections that wait for a buffer, longest first.
    starved: VecDeque<ConnectionId>,
    /// Connections of which bytes wait that are to be spliced, longest first.
    to_splice: VecDeque<ConnectionId>,
    /// In the order of their requests; one of each connection at most.
    silent_sends: Vec<SilentSend>,
    /// The spill was tight when a connection was asked, and those that were not read from because of it have
    /// not been asked since.
    was_tight: bool,
    /// Do not sleep in the next enter: something is to be done right after it.
    hurry: bool,
    idle: Option<Idle>,
    drain: Option<Drain>,
    counters: &'r LiveCounters,
}

/// Runs a worker on the calling thread, which is already pinned. `ready` is called when all is set up and
/// returns when the listeners listen, false if the server gives up.
///
/// # Errors
/// If the set-up fails or the ring or a listener break. What a peer does is never an error.
pub(crate) fn run(
    settings: &Settings,
    listeners: Vec<OwnedFd>,
    control: &Control,
    wake: &OwnedFd,
    counters: &LiveCounters,
    ready: impl FnOnce() -> bool,
) -> Result<(), WorkerError> {
    let config = &settings.config;
    // The buffers first, so that they are dropped after the ring.
    let pages = Pages::of(config);
    let source = config.mode == Mode::SinkSource;
    let spill = Spill::map(settings.spill).map_err(|error| WorkerError::NoSpill(settings.spill, error))?;
    let mut memory = Memory::map(config.buffers, config.buffer_size, pages, source, spill)?;
    let mut uring = ring::create()?;
    let reserve = reserve(config.overload, listeners.len());
    let ring_number = uring.as_raw_fd();
    let ring = Ring::new(&mut uring, settings.features, settings.max_connections + reserve)?;
    ring::busy_poll(ring.submitter(), config.busy_poll)?;
    memory
        .pool()
        .register(ring.submitter())
        .map_err(|error| WorkerError::Start("register the buffers", error, ""))?;
    if let Some((crew, member)) = &settings.crew {
        crew.set_ring(*member, ring_number);
    }
    // Its tables too: where there is no memory for them, no client has come yet.
    let worker = Worker::new(settings, ring, &mut memory, listeners, control, wake, counters)?;
    if ready() { worker.run() } else { Ok(()) }
}

impl<'r, K: Kernel> Worker<'r, K> {
    fn new(
        settings: &'r Settings,
        kernel: K,
        memory: &'r mut Memory,
        listeners: Vec<OwnedFd>,
        control: &'r Control,
        wake: &'r OwnedFd,
        counters: &'r LiveCounters,
    ) -> Result<Self, WorkerError> {
        let beyond = reserve(settings.config.overload, listeners.len());
        let most = (settings.max_connections + beyond) as usize;
        let idle = settings.config.idle_timeout.map(|timeout| Idle::new(timeout, kernel.now()));
        // Untouched memory costs nothing, and the lists never grow.
        let handed = settings.crew.as_ref().map_or(0, |(crew, _)| crew.room() + beyond as usize);
        let splices = kernel.most_spliced() > 0;
        Ok(Self {
            kernel,
            settings,
            mode: settings.config.mode,
            splices,
            memory,
            connections: Connections::new(settings.max_connections, beyond)?,
            listeners: (0..).zip(listeners).map(|(i, fd)| Listening::new(i, fd, settings)).collect(),
            rest_until: None,
            full: false,
            turns: 0,
            to_hand_over: list(handed)?.into(),
            turn: 0,
            control,
            wake,
            poll_wake: true,
            listed: list(most)?,
            newcomers: list(2 * most)?.into(),
            starved: list(2 * most)?.into(),
            to_splice: list(if splices { 2 * most } else { 0 })?.into(),
            silent_sends: list(most)?,
            was_tight: false,
            hurry: false,
            idle,
            drain: None,
            counters,
        })
    }

    fn run(mut self) -> Result<(), WorkerError> {
        while !self.is_done() {
            self.turn()?;
        }
        Ok(())
    }

    /// Asks, enters the kernel once, and takes what has completed.
    fn turn(&mut self) -> Result<(), WorkerError> {
        self.ask();
        // What has become of connections and bytes meanwhile is to be known before the worker sleeps.
        self.count();
        self.tell_of_room();
        let sweeps = self.sweep_is_due();
        let (want, timeout) = if sweeps { drain::CATCH_UP } else { self.how_long() };
        self.enter(want, timeout).map_err(WorkerError::Enter)?;
        let caught_up = self.kernel.has_caught_up();
        self.take_completions()?;
        self.confirm_silent_sends();
        self.look_at_the_clock();
        if sweeps {
            self.sweep(caught_up);
        }
        self.count();
        Ok(())
    }

    /// Says how many connections there are, and bytes of peers that do not read.
    fn count(&self) {
        self.counters.spill_bytes.set(self.memory.spill_bytes() as u64);
        if !self.is_cut_off() {
            self.counters.open.set(self.connections.open_count() as u64);
        }
    }

    /// Enters the kernel; with `--spin-us` looks for completions for a while before it sleeps.
    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let spin = self.settings.config.spin.min(timeout.unwrap_or(Duration::MAX));
        if want == 0 || spin.is_zero() {
            return self.kernel.enter(self.memory, want, timeout);
        }
        let begun = self.kernel.now();
        let mut spun = Duration::ZERO;
        while spun < spin {
            self.kernel.enter(self.memory, 0, None)?;
            if self.kernel.sync_completions() > 0 {
                return Ok(());
            }
            spun = self.kernel.now() - begun;
        }
        self.kernel.enter(self.memory, want, timeout.map(|timeout| timeout.saturating_sub(spun)))
    }

    /// Notes that a connection is to be asked for its next steps.
    fn list(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id) {
            note(&mut self.listed, id.slot, connection);
        }
    }

    /// For how many completions the next enter waits, and how long at most.
    fn how_long(&self) -> (u32, Option<Duration>) {
        let drain = self.drain.as_ref().map(Drain::next_sweep);
        let idle = self.idle.as_ref().map(Idle::next_tick);
        let until = [self.rest_until, drain, idle].into_iter().flatten().min();
        let timeout = until.map(|until| until.saturating_duration_since(self.kernel.now()));
        (u32::from(!self.hurry), timeout)
    }

    /// Ends a rest of the acceptors that is over, and connections on which nothing came or went.
    fn look_at_the_clock(&mut self) {
        if self.rest_until.is_none() && self.idle.is_none() {
            return;
        }
        let now = self.kernel.now();
        if self.rest_until.is_some_and(|until| until <= now) {
            self.rest_until = None;
            self.listeners.iter_mut().for_each(|listening| listening.acceptor.rested());
        }
        let Some(idle) = &mut self.idle else { return };
        if !idle.ticks(now) {
            return;
        }
        for (id, connection) in self.connections.iter_mut() {
            if !connection.is_served() {
                continue;
            } else if idle.is_over(connection.active()) {
                self.counters.idle_closed.add(1);
                connection.abort(self.memory);
            } else if connection.may_be_read() {
                connection.count_unsent();
            } else {
                continue;
            }
            note(&mut self.listed, id.slot, connection);
        }
    }

    /// The present tick of the clock by which connections are idle.
    fn tick(&self) -> u32 {
        self.idle.as_ref().map_or(0, Idle::tick)
    }
}
