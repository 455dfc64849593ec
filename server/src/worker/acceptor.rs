//! When to accept, and how many at a time. Pure.
//!
//! One trigger of a multishot accept takes the whole accept queue, and a connection that finds no free slot is accepted
//! and closed at once (ENFILE): lost. So multishot is armed only while the free slots exceed what the accept queue can
//! hold; nearer the limit connections are accepted one by one, and at the limit they wait in the accept queue.

use std::time::Duration;

use super::token::Slot;

/// How long accepting rests after the system ran out of descriptors or memory. Connections wait in the accept queue.
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Multishot,
    Single,
    /// A cancel was asked for; the accept has not ended yet.
    Cancelling,
    /// To be armed again after [`BACKOFF`].
    Resting,
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
    /// A connection, in this slot.
    Connection(Slot),
    /// The peer was gone again, or the accept was cancelled: nothing to do.
    Nothing,
    /// Out of descriptors or memory.
    Exhausted,
}

/// The accept of one listener.
#[derive(Debug)]
pub(crate) struct Acceptor {
    state: State,
    stopped: bool,
    /// The most connections that one trigger of a multishot accept may bring.
    burst: usize,
}

impl Acceptor {
    /// For a listener whose accept queue holds `backlog` connections.
    pub(crate) fn new(backlog: usize) -> Self {
        // The kernel lets a queue of length `backlog` hold one more (`sk_acceptq_is_full`), and more may come while it
        // is being emptied.
        Self { state: State::Idle, stopped: false, burst: backlog + backlog / 8 + 16 }
    }

    /// What to do with `free` free slots; taken as done.
    pub(crate) fn next_step(&mut self, free: usize) -> Option<AcceptStep> {
        let (state, step) = match self.state {
            State::Multishot if self.stopped || free < self.burst => (State::Cancelling, AcceptStep::Cancel),
            State::Single if self.stopped => (State::Cancelling, AcceptStep::Cancel),
            State::Idle if self.stopped || free == 0 => return None,
            // The margin keeps it from changing to and fro.
            State::Idle if free >= self.burst + self.burst / 2 => (State::Multishot, AcceptStep::Multishot),
            State::Idle => (State::Single, AcceptStep::Single),
            _ => return None,
        };
        self.state = state;
        Some(step)
    }

    /// A completion came; `more` says that the accept stays armed.
    pub(crate) fn completed(&mut self, accepted: Accepted, more: bool) {
        if more {
            return;
        }
        self.state = if accepted == Accepted::Exhausted { State::Resting } else { State::Idle };
    }

    /// The rest after running out of descriptors or memory is over.
    pub(crate) fn rested(&mut self) {
        if self.state == State::Resting {
            self.state = State::Idle;
        }
    }

    /// No more connections are wanted.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// True once it was stopped and no accept is armed.
    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped && matches!(self.state, State::Idle | State::Resting)
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
        assert_eq!(acceptor.state, State::Resting);
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

    proptest! {
        /// A listener with a queue of `backlog`, `slots` slots, arrivals and departures in any order: no connection
        /// ever finds no free slot, and none waits while there is one.
        #[test]
        fn no_connection_is_lost(
            backlog in 1..40usize,
            slots in 1..200usize,
            events in prop::collection::vec((0..60usize, 0..60usize), 1..100),
        ) {
            let mut acceptor = Acceptor::new(backlog);
            let (mut queued, mut open) = (0usize, 0usize);
            for (arrivals, departures) in events {
                queued = (queued + arrivals).min(backlog + 1);
                open -= departures.min(open);
                let mut cancelled = false;
                for _ in 0..slots + 2 {
                    match acceptor.next_step(slots - open) {
                        Some(AcceptStep::Cancel) => cancelled = true,
                        Some(_) => {}
                        None if !matches!(acceptor.state, State::Multishot | State::Single) || queued == 0 => break,
                        None => {}
                    }
                    if cancelled {
                        cancelled = false;
                        acceptor.completed(Accepted::Nothing, false);
                        continue;
                    }
                    match acceptor.state {
                        State::Multishot => {
                            open += queued;
                            queued = 0;
                        }
                        State::Single if queued > 0 => {
                            queued -= 1;
                            open += 1;
                            acceptor.completed(Accepted::Connection(0), false);
                        }
                        _ => {}
                    }
                    prop_assert!(open <= slots, "a connection found no free slot");
                }
                prop_assert!(queued == 0 || open == slots, "{queued} wait with {open} of {slots} slots used");
            }
            acceptor.stop();
            acceptor.next_step(slots - open);
            acceptor.completed(Accepted::Nothing, false);
            prop_assert!(acceptor.has_stopped());
        }
    }
}
