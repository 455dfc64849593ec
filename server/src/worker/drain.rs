//! What a worker does after the server was told to stop: it accepts those who wait already, serves every connection until it
//! has gone quiet or the time is up, ends it with a FIN, and closes it when the peer has everything.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::acceptor::BACKOFF;
use super::ring::COMPLETIONS;
use super::token::{ConnectionId, Descriptor};
use super::{Worker, operations, release};
use crate::control::Phase;

/// How often a draining worker looks for connections that have gone quiet. A connection gets a FIN once it has been quiet
/// for one to two of these.
const SWEEP: Duration = Duration::from_millis(50);

/// How long the connections that the drain timeout ends may take to get what is queued for them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many are taken from the accept queue in one turn of the loop.
const MOST_AT_ONCE: usize = 1024;

/// What an enter waits for that is to run everything that is ready, and does not sleep.
pub(super) const CATCH_UP: (u32, Option<Duration>) = (COMPLETIONS / 2, Some(Duration::ZERO));

/// The state of a drain.
pub(super) struct Drain {
    deadline: Instant,
    next_sweep: Instant,
    /// When the time was up, if it is.
    cut_off: Option<Instant>,
}

impl Drain {
    /// When the worker has to look at it next.
    pub(super) fn next_sweep(&self) -> Instant {
        self.next_sweep
    }
}

impl Worker<'_> {
    /// The main thread has called: stop accepting, let the connections come to their end; the second time, at once.
    pub(super) fn start_to_drain(&mut self) {
        let now = Instant::now();
        if self.drain.is_none()
            && let Some(listener) = &self.listener
        {
            // What waits in the accept queue is still accepted; a queue of length 0 keeps most of those who come now out
            // of it, and they are refused when the listener is closed. If it fails, they are accepted as well.
            let _ = rustix::net::listen(listener, 0);
        }
        self.acceptor.stop();
        if self.drain.is_none() {
            self.connections.iter_mut().for_each(|(_, connection)| _ = connection.take_heard());
        }
        let deadline = now + self.drain_timeout;
        let first = now + SWEEP.min(self.drain_timeout);
        let drain = self.drain.get_or_insert(Drain { deadline, next_sweep: first, cut_off: None });
        if self.control.phase() == Phase::Stop {
            drain.next_sweep = now;
        }
    }

    /// True if a sweep is due after the next enter, which is to [catch up](CATCH_UP).
    pub(super) fn sweep_is_due(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.next_sweep <= Instant::now())
    }

    /// Once no accept is in flight, accepts what is left in the accept queue, as far as slots are free, and closes the
    /// listener when that is empty, or when the time is up.
    pub(super) fn empty_accept_queue(&mut self) {
        let Some(drain) = &self.drain else { return };
        if !self.acceptor.has_stopped() {
            return;
        }
        let Some(listener) = self.listener.take() else { return };
        if drain.cut_off.is_none() && !self.accept_those_who_wait(&listener) {
            self.listener = Some(listener);
        }
    }

    /// False if some may be left.
    fn accept_those_who_wait(&mut self, listener: &OwnedFd) -> bool {
        if self.rest_until.is_some() {
            return false;
        }
        for _ in 0..MOST_AT_ONCE.min(self.connections.free_count()) {
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(socket) => self.accepted(operations::plain(socket)),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::BADF | Errno::NOTSOCK | Errno::INVAL) => return true,
                Err(_) => {
                    self.counters.accept_rests.add(1);
                    self.rest_until = Some(Instant::now() + BACKOFF);
                    return false;
                }
            }
        }
        self.hurry |= self.connections.free_count() > 0;
        false
    }

    /// Ends the connections that have gone quiet and closes those that the peer has everything of. When the time is up all
    /// are ended; after a second signal all are cut off.
    ///
    /// Who is quiet is known only if the enter before has `caught_up`: else it is tried again in the next turn.
    pub(super) fn sweep(&mut self, caught_up: bool) {
        let Some(drain) = &mut self.drain else { return };
        let now = Instant::now();
        let stop = self.control.phase() == Phase::Stop;
        if drain.cut_off.is_none() && (stop || now >= drain.deadline) {
            drain.cut_off = Some(now);
            self.counters
                .open
                .set(self.connections.iter_mut().filter(|(_, c)| !c.is_lingering()).count() as u64);
        }
        let late = drain.cut_off.is_some();
        if !caught_up && !late {
            return;
        }
        drain.next_sweep = now + SWEEP;
        let mut lingering = Vec::new();
        for (id, connection) in self.connections.iter_mut() {
            if stop {
                connection.abort(|chunk| release(self.buffers, chunk));
            } else if connection.is_lingering() {
                lingering.push(id);
                continue;
            } else if late || !connection.take_heard() && connection.is_quiet() {
                connection.end_stream();
            } else {
                continue;
            }
            if !std::mem::replace(&mut connection.listed, true) {
                self.listed.push(id.slot);
            }
        }
        lingering.into_iter().for_each(|id| self.ask_for_unsent(id));
    }

    /// Asks how many bytes of a lingering connection its peer has not acknowledged.
    fn ask_for_unsent(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        if !connection.look_started() {
            return;
        }
        match connection.descriptor() {
            Descriptor::Plain(number) => self.take_unsent(id, operations::unsent_bytes(number)),
            Descriptor::Direct(number) => self.ring.look_for_unsent(id, number),
        }
    }

    /// Closes a lingering connection if its peer's kernel has acknowledged all, the FIN too.
    pub(super) fn take_unsent(&mut self, id: ConnectionId, unsent: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.look_ended();
        if connection.is_lingering() && unsent.unwrap_or(0) == 0 {
            connection.abort(|chunk| release(self.buffers, chunk));
        }
        self.list(id);
    }

    /// True once the drain timeout has passed or a second signal came: what was busy then has been counted.
    pub(super) fn is_cut_off(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.cut_off.is_some())
    }

    pub(super) fn is_done(&self) -> bool {
        let Some(drain) = &self.drain else { return false };
        let closed = self.connections.open_count() == 0 && self.listener.is_none();
        closed || drain.cut_off.is_some_and(|since| since.elapsed() >= LAST_WORDS)
    }
}
