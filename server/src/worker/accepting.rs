//! How a worker comes by connections: from its listeners, or handed over by the worker that accepts for all.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;

use super::acceptor::{AcceptStep, Accepted, Acceptor, BACKOFF};
use super::kernel::{Completion, Kernel, Listener, Request, Sample};
use super::token::{Descriptor, Token};
use super::{Settings, Worker, WorkerError};
use crate::config::{AcceptModel, Mode, Overload};
use crate::stats;

/// Connections beyond the limit that may be under way to be reset, with `--overload reset`.
const REFUSALS: u32 = 64;

/// How many connections a worker with this many listeners may have beyond its limit for a while.
pub(crate) fn reserve(overload: Overload, listeners: usize) -> u32 {
    let refusals = if overload == Overload::Reset { REFUSALS } else { 0 };
    refusals + u32::try_from(listeners.saturating_sub(1)).expect("few listeners")
}

/// How many turns of the loop a count of the listeners' drops is good for: it is one system call for each.
const DROPS_EVERY: u32 = 64;

/// How many are taken from the accept queue in one turn of the loop by a draining worker.
const MOST_AT_ONCE: usize = 1024;

/// One listening socket of the worker.
pub(super) struct Listening {
    index: u32,
    socket: OwnedFd,
    /// What the kernel has dropped there, as far as it is counted.
    drops: u32,
    pub(super) acceptor: Acceptor,
}

impl Listening {
    pub(super) fn new(index: u32, socket: OwnedFd, settings: &Settings) -> Self {
        let shared = settings.config.accept == AcceptModel::Shared;
        Self { index, socket, drops: 0, acceptor: Acceptor::new(settings.backlog, shared) }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    fn listener(&self) -> Listener {
        Listener { index: self.index, descriptor: self.socket.as_raw_fd() }
    }
}

impl<K: Kernel> Worker<'_, K> {
    /// Arms and ends accepts as slots are free.
    pub(super) fn ask_to_accept(&mut self) {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(DROPS_EVERY) && self.drain.is_none() {
            self.count_drops();
        }
        let free = self.free_slots();
        // Each listener gets its part of the last slots, one at least, or one to which nobody comes would
        // keep them from the others' clients. So there may be as many connections beyond the limit as there
        // are other listeners.
        let others = self.listeners.len().saturating_sub(1);
        let share = free.div_ceil(others + 1);
        let mut reserved: usize = self.listeners.iter().map(|listening| listening.acceptor.reserved()).sum();
        for listening in &mut self.listeners {
            reserved -= listening.acceptor.reserved();
            let left = free.saturating_sub(reserved);
            let singles = share.min((free + others).saturating_sub(reserved));
            while self.kernel.room() > 0
                && let Some(step) = listening.acceptor.next_step(left, singles)
            {
                let listener = listening.listener();
                self.kernel.ask(match step {
                    AcceptStep::Multishot => Request::AcceptMultishot(listener),
                    AcceptStep::Single => Request::AcceptOne(listener),
                    AcceptStep::Cancel => Request::CancelAccepts(listener),
                });
            }
            reserved += listening.acceptor.reserved();
        }
        if let Some((crew, _)) = &self.settings.crew
            && self.wants_more()
        {
            crew.await_room();
            self.hurry |= self.free_slots() > free;
        }
        let full = free == 0 && !self.listeners.is_empty();
        if full && !self.full {
            self.counters.queue_waits.add(1);
        }
        self.full = full;
        self.hurry |= self.kernel.room() == 0;
        self.empty_accept_queues();
    }

    /// Counts what the kernel has dropped at the listeners since the last time.
    pub(super) fn count_drops(&mut self) {
        if !self.settings.counts_drops {
            return;
        }
        for listening in &mut self.listeners {
            if let Some(drops) = self.kernel.drops(listening.socket.as_fd()) {
                let new = drops.wrapping_sub(std::mem::replace(&mut listening.drops, drops));
                self.counters.listen_drops.add(new.into());
            }
        }
    }

    /// Tells the worker that accepts for all of room that there is, if it waits for some.
    pub(super) fn tell_of_room(&mut self) {
        let Some((crew, own)) = &self.settings.crew else { return };
        if self.kernel.room() == 0 {
            self.hurry = true;
        } else if let Some(ring) = crew.has_room(*own) {
            self.kernel.ask(Request::TellOfRoom(ring));
        }
    }

    /// True if something is to be done as soon as a connection is closed.
    pub(super) fn awaits_closes(&self) -> bool {
        self.drain.is_some() || self.wants_more()
    }

    /// True if more could be accepted at a time if more slots were free.
    fn wants_more(&self) -> bool {
        self.listeners.iter().any(|listening| listening.acceptor.wants_more())
    }

    /// How many connections may be accepted.
    fn free_slots(&self) -> usize {
        let free = match &self.settings.crew {
            Some((crew, _)) => crew.room().saturating_sub(self.to_hand_over.len()),
            None => self.connections.free_count(),
        };
        let refusals = if self.refuses() { REFUSALS as usize } else { 0 };
        let beyond = self.connections.open_count().saturating_sub(self.settings.max_connections as usize);
        free + refusals.saturating_sub(beyond)
    }

    fn refuses(&self) -> bool {
        self.settings.config.overload == Overload::Reset
    }

    pub(super) fn take_accept(&mut self, token: Token, completion: &Completion) -> Result<(), WorkerError> {
        let accepted = match completion.result {
            Ok(descriptor) => Accepted::Connection(descriptor),
            Err(Errno::CANCELED | Errno::AGAIN | Errno::INTR) => Accepted::Nothing,
            // What the peer or the network did to a connection still in the queue: accept(2), "Error
            // handling".
            Err(
                Errno::CONNABORTED
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH,
            ) => Accepted::Nothing,
            Err(errno @ (Errno::BADF | Errno::NOTSOCK | Errno::INVAL)) => {
                return Err(WorkerError::Accept(errno.into()));
            }
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM of a security module, and whatever else may pass.
            Err(_) => Accepted::Exhausted,
        };
        let rest = match token {
            Token::Accept(index) => {
                let acceptor = self.acceptor(index);
                acceptor.is_some_and(|acceptor| acceptor.multishot_completed(accepted, completion.more))
            }
            Token::AcceptOne(index) => {
                self.acceptor(index).is_some_and(|acceptor| acceptor.single_completed(accepted))
            }
            _ => false,
        };
        if rest {
            self.counters.accept_rests.add(1);
            self.rest_until = Some(self.kernel.now() + BACKOFF);
        }
        if let Accepted::Connection(number) = accepted {
            if self.settings.crew.is_some() && self.drain.is_none() {
                self.to_hand_over.push_back(number);
            } else {
                self.accepted(self.kernel.accepted(number));
            }
        }
        Ok(())
    }

    /// A listener's acceptor; `None` once it is closed.
    pub(super) fn acceptor(&mut self, index: u32) -> Option<&mut Acceptor> {
        let listening = self.listeners.iter_mut().find(|listening| listening.index == index);
        listening.map(|listening| &mut listening.acceptor)
    }

    /// There is a new connection.
    pub(super) fn accepted(&mut self, descriptor: Descriptor) {
        let refused = self.refuses() && self.connections.free_count() == 0;
        let id = self.connections.open(descriptor);
        if self.settings.crew.is_some() {
            // The next one is handed over by what this says.
            self.count();
        }
        let tick = self.tick();
        let Some(connection) = self.connections.get(id) else { return };
        if refused {
            self.counters.refused.add(1);
            connection.refuse(false);
            return self.list(id);
        }
        self.counters.accepted.add(1);
        connection.accepted(stats::samples_accept(self.counters.accepted.get()), tick);
        if connection.sampled {
            self.sample(id, Sample::Accept);
        }
        if self.mode != Mode::AcceptClose {
            self.connections.queue_up(&mut self.newcomers, id);
        } else if let Some(connection) = self.connections.get(id) {
            connection.refuse(true);
            self.list(id);
        }
    }

    /// Hands what was accepted to the workers in turn. A draining worker serves it itself.
    pub(super) fn hand_over(&mut self) {
        let Some((crew, own)) = &self.settings.crew else { return };
        while self.kernel.room() > 1
            && let Some(number) = self.to_hand_over.pop_front()
        {
            let member = if self.drain.is_some() { *own } else { crew.next(self.turn).unwrap_or(*own) };
            self.turn = member + 1;
            let ring = if member == *own { None } else { crew.hand_to(member) };
            match ring {
                Some(ring) => {
                    self.counters.handed_over.add(1);
                    let member = u32::try_from(member).expect("as many as cores");
                    self.kernel.ask(Request::HandOver { ring, number, member });
                }
                None => self.accepted(Descriptor::Plain(number)),
            }
        }
        self.hurry |= !self.to_hand_over.is_empty();
    }

    /// A worker that connections were handed to could not take this one.
    pub(super) fn came_back(&mut self, number: u32, member: u32) {
        if let Some((crew, _)) = &self.settings.crew {
            crew.came_back(member as usize);
            self.accepted(Descriptor::Plain(number));
        }
    }

    /// The worker that accepts has handed a connection to this one.
    pub(super) fn take_over(&mut self, number: u32) {
        self.accepted(Descriptor::Plain(number));
        self.counters.taken_over.add(1);
    }

    /// Of a draining worker: once no accept is in flight, of any listener, accepts what is left in the accept
    /// queues, as far as slots are free, and closes the listeners when they are empty, or when the time is
    /// up.
    fn empty_accept_queues(&mut self) {
        if self.drain.is_none() {
            return;
        }
        let late = self.is_cut_off();
        let mut listeners = std::mem::take(&mut self.listeners);
        let all_stopped = listeners.iter().all(|listening| listening.acceptor.has_stopped());
        listeners.retain(|listening| {
            let is_over = late && listening.acceptor.has_stopped();
            !(is_over || all_stopped && self.accept_those_who_wait(&listening.socket))
        });
        self.listeners = listeners;
        if self.listeners.is_empty()
            && self.to_hand_over.is_empty()
            && self.kernel.consumed() == self.kernel.queued()
            && let Some((crew, 0)) = &self.settings.crew
        {
            crew.close();
        }
    }

    /// False if some may be left.
    fn accept_those_who_wait(&mut self, listener: &OwnedFd) -> bool {
        if self.rest_until.is_some() {
            return false;
        }
        let free = if self.settings.crew.is_some() { MOST_AT_ONCE } else { self.connections.free_count() };
        for _ in 0..MOST_AT_ONCE.min(free) {
            match self.kernel.accept_now(listener.as_fd()) {
                Ok(descriptor) => self.accepted(descriptor),
                Err(Errno::AGAIN | Errno::BADF | Errno::NOTSOCK | Errno::INVAL) => return true,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    self.counters.accept_rests.add(1);
                    self.rest_until = Some(self.kernel.now() + BACKOFF);
                    return false;
                }
            }
        }
        self.hurry |= free > 0;
        false
    }
}
