//! What a worker does after the server was told to stop: it answers what is in the sockets' queues, until
//! nothing comes for a sweep or the time is up.

use std::time::{Duration, Instant};

use super::Worker;
use crate::control::Phase;

/// How often a draining worker looks whether datagrams still come.
const SWEEP: Duration = Duration::from_millis(50);

/// What an enter waits for that is to run everything that is ready, and does not sleep: half of the
/// completion queue.
pub(super) const CATCH_UP: (u32, Option<Duration>) = (8 * 1024, Some(Duration::ZERO));

/// The state of a drain.
pub(super) struct Drain {
    deadline: Instant,
    /// When to look next.
    pub(super) next_sweep: Instant,
    /// Something came since the last sweep.
    pub(super) has_heard: bool,
    /// Nothing came for a sweep, or the time is up.
    pub(super) is_over: bool,
}

impl Worker<'_> {
    /// The main thread has called: answer what is here already; the second time, stop at once.
    pub(super) fn start_to_drain(&mut self) {
        let now = Instant::now();
        let deadline = now + self.drain_timeout;
        let next_sweep = now + SWEEP.min(self.drain_timeout);
        let drain =
            self.drain.get_or_insert(Drain { deadline, next_sweep, has_heard: false, is_over: false });
        drain.is_over |= self.control.phase() == Phase::Stop;
    }

    /// Ends the drain if nothing came since the last sweep, or if the time is up. Whether something came is
    /// known only if the enter before has `caught_up`: else it is tried again in the next turn.
    pub(super) fn sweep(&mut self, caught_up: bool) {
        let Some(drain) = &mut self.drain else { return };
        let now = Instant::now();
        let is_quiet = caught_up && !drain.has_heard && !self.sends.are_queued() && !self.sends.are_sending();
        drain.is_over |= is_quiet || now >= drain.deadline;
        if caught_up {
            drain.has_heard = false;
            drain.next_sweep = now + SWEEP;
        }
    }

    /// True when the drain is over and what was received is answered.
    pub(super) fn is_done(&self) -> bool {
        let is_over = self.drain.as_ref().is_some_and(|drain| drain.is_over);
        is_over && !self.sends.are_queued() && !self.sends.are_sending()
    }
}
