//! What a worker does after the server was told to stop: it accepts those who wait already, serves every
//! connection until it has gone quiet or the time is up, ends it with a FIN, and closes it when the peer has
//! everything.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Worker;
use super::connection::Connection;
use super::connections::note;
use super::kernel::Kernel;
use super::ring::COMPLETIONS;
use super::token::ConnectionId;
use crate::control::Phase;

/// How often a draining worker looks for connections that have gone quiet. A connection gets a FIN once it
/// has been quiet for one to two of these.
const SWEEP: Duration = Duration::from_millis(50);

/// How long the connections that the drain timeout ends may take to get what is queued for them.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

impl<K: Kernel> Worker<'_, K> {
    /// The main thread has called: stop accepting, let the connections come to their end; the second time, at
    /// once.
    pub(super) fn start_to_drain(&mut self) {
        let now = self.kernel.now();
        if self.drain.is_none() {
            // What is dropped from now on was not to be taken.
            self.count_drops();
            for listening in &mut self.listeners {
                // What waits in the accept queue is still accepted; a queue of length 0 keeps most of those
                // who come now out of it, and they are refused when the listener is closed.
                self.kernel.stop_queueing(listening.socket().as_fd());
                listening.acceptor.stop();
            }
            self.connections.iter_mut().for_each(|(_, connection)| _ = connection.take_heard());
        }
        let timeout = self.settings.config.drain_timeout;
        let deadline = now + timeout;
        let first = now + SWEEP.min(timeout);
        let drain = self.drain.get_or_insert(Drain { deadline, next_sweep: first, cut_off: None });
        if self.control.phase() == Phase::Stop {
            drain.next_sweep = now;
        }
    }

    /// True if a sweep is due after the next enter, which is to [catch up](CATCH_UP).
    pub(super) fn sweep_is_due(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.next_sweep <= self.kernel.now())
    }

    /// Ends the connections that have gone quiet and closes those that the peer has everything of. When the
    /// time is up all are ended; after a second signal all are cut off.
    ///
    /// Who is quiet is known only if the enter before has `caught_up`: else it is tried again in the next
    /// turn.
    pub(super) fn sweep(&mut self, caught_up: bool) {
        let Some(drain) = &mut self.drain else { return };
        let now = self.kernel.now();
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
        for (id, connection) in self.connections.iter_mut() {
            if stop {
                self.counters.cut_off.add(u64::from(is_cut_off(connection)));
                connection.abort(self.memory);
            } else if connection.is_lingering() {
                connection.count_unsent();
            } else if late || !connection.take_heard() && connection.is_quiet() {
                connection.end_stream();
            } else {
                continue;
            }
            note(&mut self.listed, id.slot, connection);
        }
    }

    /// The bytes were counted that a peer has not acknowledged: a sign of life. Closes a lingering connection
    /// if its peer's kernel has acknowledged all, the FIN too.
    pub(super) fn take_unsent(&mut self, id: ConnectionId, unsent: Result<u32, Errno>) {
        let tick = self.tick();
        let Some(connection) = self.connections.get(id) else { return };
        connection.look_ended();
        let unsent = unsent.unwrap_or(0);
        connection.unsent_counted(unsent, tick);
        if connection.is_lingering() && unsent == 0 {
            connection.abort(self.memory);
        }
    }

    /// True once the drain timeout has passed or a second signal came: what was busy then has been counted.
    pub(super) fn is_cut_off(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.cut_off.is_some())
    }

    /// Counts the connections that the worker leaves.
    pub(super) fn count_cut_off(&mut self) {
        let left = self.connections.iter_mut().filter(|(_, connection)| is_cut_off(connection)).count();
        self.counters.cut_off.add(left as u64);
    }

    pub(super) fn is_done(&self) -> bool {
        let Some(drain) = &self.drain else { return false };
        let crew_is_over = self.settings.crew.as_ref().is_none_or(|(crew, own)| crew.is_over_for(*own));
        let nothing_comes = self.listeners.is_empty() && self.to_hand_over.is_empty() && crew_is_over;
        let cut_off = drain.cut_off.is_some_and(|since| self.kernel.now() - since >= LAST_WORDS);
        self.connections.open_count() == 0 && nothing_comes || cut_off
    }
}

/// True for a connection that, if it ends now, does so before its peer has acknowledged everything.
fn is_cut_off(connection: &Connection) -> bool {
    connection.is_served() || connection.is_lingering()
}
