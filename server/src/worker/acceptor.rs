//! When to accept, and how many at a time. Pure.
//!
//! One trigger of a multishot accept takes the whole accept queue, and with direct descriptors a connection that finds no
//! free one is accepted and closed at once (ENFILE): lost. So multishot is armed only while the free slots exceed what
//! the accept queue can hold; nearer the limit connections are accepted one by one, and at the limit they wait in the
//! accept queue.

use std::time::Duration;

/// How long accepting rests after the system ran out of descriptors or memory. Connections wait in the accept queue.
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Multishot,
    Single,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Armed(Kind),
    /// A cancel was asked for; the accept has not ended yet.
    Cancelling(Kind),
    /// To be armed again after [`BACKOFF`].
    Resting,
}

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Stopped,
    /// Until the accept queue is empty.
    Empty,
    /// No longer.
    Now,
}

/// What to ask the kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptStep {
    /// Arm a multishot accept.
    Multishot,
    /// Accept one connection.
    Single,
    /// End the armed accept.
    Cancel,
}

/// What an accept's completion means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// A connection, with this descriptor.
    Connection(u32),
    /// The peer was gone again, or the accept was cancelled: nothing to do.
    Nothing,
    /// Out of descriptors or memory, or an error that may pass.
    Exhausted,
}

/// The accept of one listener.
#[derive(Debug)]
pub(crate) struct Acceptor {
    state: State,
    until: Until,
    /// The most connections that one trigger of a multishot accept may bring.
    burst: usize,
}

impl Acceptor {
    /// For a listener whose accept queue holds `backlog` connections.
    pub(crate) fn new(backlog: usize) -> Self {
        // The kernel lets a queue of length `backlog` hold one more (`sk_acceptq_is_full`), and more may come while it
        // is being emptied.
        let burst = backlog.saturating_add(backlog / 8).saturating_add(16);
        Self { state: State::Idle, until: Until::Stopped, burst }
    }

    /// What to do with `free` free slots; taken as done. To be called once before each `io_uring_enter`.
    pub(crate) fn next_step(&mut self, free: usize) -> Option<AcceptStep> {
        match self.state {
            State::Idle if self.until == Until::Now || free == 0 => None,
            // The margin keeps it from changing to and fro.
            State::Idle
                if self.until == Until::Stopped && free >= self.burst.saturating_add(self.burst / 2) =>
            {
                self.state = State::Armed(Kind::Multishot);
                Some(AcceptStep::Multishot)
            }
            State::Idle => {
                self.state = State::Armed(Kind::Single);
                Some(AcceptStep::Single)
            }
            State::Armed(kind)
                if self.until != Until::Stopped || kind == Kind::Multishot && free < self.burst =>
            {
                // An accept that is armed and waits shows that the queue is empty.
                if self.until == Until::Empty {
                    self.until = Until::Now;
                }
                self.state = State::Cancelling(kind);
                Some(AcceptStep::Cancel)
            }
            _ => None,
        }
    }

    /// A completion came; `more` says that the accept stays armed.
    pub(crate) fn completed(&mut self, accepted: Accepted, more: bool) {
        if more {
            return;
        }
        self.state = if accepted == Accepted::Exhausted { State::Resting } else { State::Idle };
    }

    /// The cancel did not find the accept, or not in a state to be cancelled (ENOENT, EALREADY). If it does not end on
    /// its own it is cancelled again.
    pub(crate) fn cancel_failed(&mut self) {
        if let State::Cancelling(kind) = self.state {
            self.state = State::Armed(kind);
        }
    }

    /// The rest after running out of descriptors or memory is over.
    pub(crate) fn rested(&mut self) {
        if self.state == State::Resting {
            self.state = State::Idle;
        }
    }

    /// No more connections are wanted but those that wait already.
    pub(crate) fn stop(&mut self) {
        if self.until == Until::Stopped {
            self.until = Until::Empty;
        }
    }

    /// No more connections are wanted at all.
    pub(crate) fn stop_now(&mut self) {
        self.until = Until::Now;
    }

    /// True once it was stopped and no accept is armed.
    pub(crate) fn has_stopped(&self) -> bool {
        self.until == Until::Now && matches!(self.state, State::Idle | State::Resting)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_the_limit_it_accepts_one_by_one_and_at_the_limit_not_at_all() {
        let mut acceptor = Acceptor::new(8);
        assert_eq!(acceptor.next_step(100), Some(AcceptStep::Multishot));
        acceptor.completed(Accepted::Connection(0), true);
        assert_eq!(acceptor.next_step(99), None, "stays armed");
        assert_eq!(acceptor.next_step(10), Some(AcceptStep::Cancel));
        assert_eq!(acceptor.next_step(10), None, "until the cancel has taken effect");
        acceptor.completed(Accepted::Nothing, false);
        assert_eq!(acceptor.next_step(10), Some(AcceptStep::Single));
        acceptor.completed(Accepted::Connection(1), false);
        assert_eq!(acceptor.next_step(0), None);
        assert_eq!(acceptor.next_step(1), Some(AcceptStep::Single));
    }

    #[test]
    fn it_rests_when_the_system_is_out_of_descriptors() {
        let mut acceptor = Acceptor::new(8);
        acceptor.next_step(100);
        acceptor.completed(Accepted::Exhausted, false);
        assert_eq!(acceptor.next_step(100), None);
        acceptor.rested();
        assert_eq!(acceptor.next_step(100), Some(AcceptStep::Multishot));
    }

    #[test]
    fn a_multishot_cut_short_by_a_full_completion_queue_is_armed_again() {
        let mut acceptor = Acceptor::new(8);
        acceptor.next_step(100);
        acceptor.completed(Accepted::Connection(5), false);
        assert_eq!(acceptor.next_step(99), Some(AcceptStep::Multishot));
    }

    #[test]
    fn a_cancel_that_missed_is_asked_again() {
        let mut acceptor = Acceptor::new(8);
        acceptor.next_step(100);
        acceptor.stop();
        assert_eq!(acceptor.next_step(100), Some(AcceptStep::Cancel));
        acceptor.cancel_failed();
        assert_eq!(acceptor.next_step(100), Some(AcceptStep::Cancel));
        acceptor.completed(Accepted::Nothing, false);
        acceptor.cancel_failed();
        assert!(acceptor.has_stopped());
    }

    /// A listener of the kernel.
    struct Listener {
        acceptor: Acceptor,
        armed: Option<AcceptStep>,
        queued: usize,
        open: usize,
        slots: usize,
    }

    impl Listener {
        /// The worker asks and enters the kernel, where connections that wait are accepted as far as was asked.
        fn turn(&mut self) -> Result<(), TestCaseError> {
            match self.acceptor.next_step(self.slots - self.open) {
                Some(AcceptStep::Cancel) => {
                    prop_assert!(self.armed.take().is_some(), "nothing to cancel");
                    self.acceptor.completed(Accepted::Nothing, false);
                }
                Some(step) => prop_assert!(self.armed.replace(step).is_none(), "armed twice"),
                None => {}
            }
            match self.armed {
                Some(AcceptStep::Multishot) => {
                    self.open += self.queued;
                    self.queued = 0;
                }
                Some(AcceptStep::Single) if self.queued > 0 => {
                    self.queued -= 1;
                    self.open += 1;
                    self.armed = None;
                    self.acceptor.completed(Accepted::Connection(0), false);
                }
                _ => {}
            }
            prop_assert!(self.open <= self.slots, "a connection found no free slot");
            Ok(())
        }
    }

    proptest! {
        /// A listener with a queue of `backlog`, `slots` slots, arrivals and departures in any order: no connection ever
        /// finds no free slot, none waits while there is one, and stopping leaves none behind.
        #[test]
        fn no_connection_is_lost(
            backlog in 1..40usize,
            slots in 1..200usize,
            events in prop::collection::vec((0..60usize, 0..60usize, 1..5usize), 1..100),
        ) {
            let acceptor = Acceptor::new(backlog);
            let mut listener = Listener { acceptor, armed: None, queued: 0, open: 0, slots };
            for (arrivals, departures, turns) in events {
                listener.queued = (listener.queued + arrivals).min(backlog + 1);
                listener.open -= departures.min(listener.open);
                for _ in 0..turns {
                    listener.turn()?;
                }
            }
            for _ in 0..slots + 4 {
                listener.turn()?;
            }
            let (queued, open) = (listener.queued, listener.open);
            prop_assert!(queued == 0 || open == slots, "{queued} wait with {open} of {slots} slots used");
            listener.acceptor.stop();
            for _ in 0..2 * (backlog + 3) {
                listener.open = 0;
                listener.turn()?;
            }
            prop_assert!(listener.acceptor.has_stopped());
            prop_assert_eq!(listener.queued, 0, "left in the accept queue");
        }
    }
}
