//! When to accept, and how many at a time. Pure.
//!
//! One trigger of a multishot accept takes the whole accept queue, and with direct descriptors a connection
//! that finds no free one is accepted and closed at once (ENFILE): lost. So multishot is armed only while the
//! free slots exceed what the accept queue can hold; nearer the limit no more accepts of one connection each
//! are in flight than slots are free, and at the limit connections wait in the accept queue.

use std::time::Duration;

/// How long accepting rests after the system ran out of descriptors or memory. Connections wait in the accept
/// queue.
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);

/// Most accepts of one connection each in flight.
const MOST_SINGLES: usize = 64;

/// What to ask the kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptStep {
    /// Arm a multishot accept.
    Multishot,
    /// Accept one connection.
    Single,
    /// End all accepts.
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

/// The accepts of one listener.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// A multishot accept is in flight.
    multishot: bool,
    /// Accepts of one connection in flight.
    singles: usize,
    /// A cancel is in flight.
    cancelling: bool,
    resting: bool,
    stopped: bool,
    /// The most connections that one trigger of a multishot accept may bring.
    burst: usize,
    /// The listener is other workers' too, and multishot would take all of its connections: the kernel wakes
    /// the one that waits longest, and a multishot accept waits for ever.
    shared: bool,
}

impl Acceptor {
    /// For a listener whose accept queue holds `backlog` connections, `shared` with other workers or not.
    pub(crate) fn new(backlog: usize, shared: bool) -> Self {
        // The kernel lets a queue of length `backlog` hold one more (`sk_acceptq_is_full`), and more may come
        // while it is being emptied.
        let burst = backlog.saturating_add(backlog / 8).saturating_add(16);
        Self {
            multishot: false,
            singles: 0,
            cancelling: false,
            resting: false,
            stopped: false,
            burst,
            shared,
        }
    }

    /// What to do with `free` free slots, of which accepts of one connection may take `share`; taken as done.
    /// To be called before each `io_uring_enter` until it gives `None`.
    pub(crate) fn next_step(&mut self, free: usize, share: usize) -> Option<AcceptStep> {
        // The margin keeps it from changing to and fro.
        let ample =
            !self.shared && free >= self.burst.saturating_add(self.burst / 2).saturating_add(MOST_SINGLES);
        let scarce = free < self.burst.saturating_add(self.singles);
        if self.cancelling {
            None
        } else if self.stopped && self.is_armed() || self.multishot && scarce || self.singles > share {
            self.cancelling = true;
            Some(AcceptStep::Cancel)
        } else if self.stopped || self.resting || self.multishot {
            None
        } else if ample {
            self.multishot = true;
            Some(AcceptStep::Multishot)
        } else if self.singles < share.min(MOST_SINGLES) {
            self.singles += 1;
            Some(AcceptStep::Single)
        } else {
            None
        }
    }

    /// How many connections what is armed may bring before the next step.
    pub(crate) fn reserved(&self) -> usize {
        if self.multishot { self.burst } else { self.singles }
    }

    /// True if it might accept more if more slots were free.
    pub(crate) fn is_sparing(&self) -> bool {
        !self.multishot
    }

    fn is_armed(&self) -> bool {
        self.multishot || self.singles > 0
    }

    /// A multishot accept completed; `more` says that it stays armed. Gives true if accepting is to rest from
    /// now on.
    pub(crate) fn multishot_completed(&mut self, accepted: Accepted, more: bool) -> bool {
        self.multishot = more;
        !more && self.rests(accepted)
    }

    /// An accept of one connection completed. Gives true if accepting is to rest from now on.
    pub(crate) fn single_completed(&mut self, accepted: Accepted) -> bool {
        self.singles -= 1;
        self.rests(accepted)
    }

    fn rests(&mut self, accepted: Accepted) -> bool {
        accepted == Accepted::Exhausted && !std::mem::replace(&mut self.resting, true)
    }

    /// The cancel was answered. What it did not hit and is still to end is cancelled again.
    pub(crate) fn cancelled(&mut self) {
        self.cancelling = false;
    }

    /// The rest after running out of descriptors or memory is over.
    pub(crate) fn rested(&mut self) {
        self.resting = false;
    }

    /// No more accepts are wanted.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// True once it was stopped and no request on the listener is in flight.
    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped && !self.is_armed() && !self.cancelling
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(acceptor: &mut Acceptor, free: usize) -> Vec<AcceptStep> {
        std::iter::from_fn(|| acceptor.next_step(free, free)).collect()
    }

    #[test]
    fn near_the_limit_it_accepts_no_more_than_fit_and_at_the_limit_not_at_all() {
        let mut acceptor = Acceptor::new(8, false);
        assert_eq!(steps(&mut acceptor, 200), [AcceptStep::Multishot]);
        acceptor.multishot_completed(Accepted::Connection(0), true);
        assert_eq!(steps(&mut acceptor, 199), [], "stays armed");
        assert_eq!(steps(&mut acceptor, 10), [AcceptStep::Cancel]);
        acceptor.multishot_completed(Accepted::Nothing, false);
        assert_eq!(steps(&mut acceptor, 2), [], "until the cancel is answered");
        acceptor.cancelled();
        assert_eq!(steps(&mut acceptor, 2), [AcceptStep::Single; 2]);
        acceptor.single_completed(Accepted::Connection(1));
        assert_eq!(steps(&mut acceptor, 1), []);
        acceptor.single_completed(Accepted::Connection(2));
        assert_eq!(steps(&mut acceptor, 0), []);
        assert_eq!(steps(&mut acceptor, 1), [AcceptStep::Single]);
    }

    #[test]
    fn a_shared_listener_is_accepted_from_one_by_one() {
        let mut acceptor = Acceptor::new(8, true);
        assert_eq!(steps(&mut acceptor, 1000), [AcceptStep::Single; MOST_SINGLES]);
    }

    #[test]
    fn it_rests_once_when_the_system_is_out_of_descriptors() {
        let mut acceptor = Acceptor::new(8, false);
        assert_eq!(steps(&mut acceptor, 3), [AcceptStep::Single; 3]);
        assert!(acceptor.single_completed(Accepted::Exhausted));
        assert!(!acceptor.single_completed(Accepted::Exhausted));
        assert!(!acceptor.single_completed(Accepted::Exhausted));
        assert_eq!(steps(&mut acceptor, 3), []);
        acceptor.rested();
        assert_eq!(steps(&mut acceptor, 200), [AcceptStep::Multishot]);
    }

    #[test]
    fn a_multishot_cut_short_by_a_full_completion_queue_is_armed_again() {
        let mut acceptor = Acceptor::new(8, false);
        acceptor.next_step(200, 200);
        acceptor.multishot_completed(Accepted::Connection(5), false);
        assert_eq!(steps(&mut acceptor, 199), [AcceptStep::Multishot]);
    }

    #[test]
    fn a_cancel_that_missed_is_asked_again() {
        let mut acceptor = Acceptor::new(8, false);
        acceptor.next_step(200, 200);
        acceptor.stop();
        assert_eq!(steps(&mut acceptor, 200), [AcceptStep::Cancel]);
        acceptor.cancelled();
        assert_eq!(steps(&mut acceptor, 200), [AcceptStep::Cancel]);
        acceptor.multishot_completed(Accepted::Nothing, false);
        acceptor.cancelled();
        assert!(acceptor.has_stopped());
    }

    /// A listener of the kernel.
    struct Listener {
        acceptor: Acceptor,
        multishot: bool,
        singles: usize,
        queued: usize,
        open: usize,
        slots: usize,
    }

    impl Listener {
        /// The worker asks and enters the kernel. `runs`: the kernel comes to the accepts that are armed; on
        /// a busy worker it may not.
        fn turn(&mut self, runs: bool) -> Result<(), TestCaseError> {
            while let Some(step) = self.acceptor.next_step(self.slots - self.open, self.slots - self.open) {
                match step {
                    AcceptStep::Multishot => {
                        prop_assert!(!std::mem::replace(&mut self.multishot, true), "armed twice");
                    }
                    AcceptStep::Single => self.singles += 1,
                    AcceptStep::Cancel => {
                        if std::mem::take(&mut self.multishot) {
                            self.acceptor.multishot_completed(Accepted::Nothing, false);
                        }
                        (0..std::mem::take(&mut self.singles)).for_each(|_| {
                            self.acceptor.single_completed(Accepted::Nothing);
                        });
                        self.acceptor.cancelled();
                    }
                }
            }
            if runs {
                self.accept();
            }
            prop_assert!(self.open <= self.slots, "a connection found no free slot");
            Ok(())
        }

        fn accept(&mut self) {
            let singles = self.singles.min(self.queued);
            self.singles -= singles;
            (0..singles).for_each(|_| {
                self.acceptor.single_completed(Accepted::Connection(0));
            });
            let all = if self.multishot { self.queued } else { singles };
            self.queued -= all;
            self.open += all;
        }
    }

    proptest! {
        /// A listener with a queue of `backlog`, `slots` slots, arrivals and departures in any order: no
        /// connection ever finds no free slot, none waits while there is one, and stopping ends every accept.
        #[test]
        fn no_connection_is_lost(
            backlog in 1..40usize,
            slots in 1..300usize,
            events in prop::collection::vec((0..60usize, 0..60usize, any::<bool>()), 1..100),
        ) {
            let acceptor = Acceptor::new(backlog, false);
            let mut listener =
                Listener { acceptor, multishot: false, singles: 0, queued: 0, open: 0, slots };
            for (arrivals, departures, runs) in events {
                listener.queued = (listener.queued + arrivals).min(backlog + 1);
                listener.open -= departures.min(listener.open);
                listener.turn(runs)?;
            }
            for _ in 0..slots + 4 {
                listener.turn(true)?;
            }
            let (queued, open) = (listener.queued, listener.open);
            prop_assert!(queued == 0 || open == slots, "{queued} wait with {open} of {slots} slots used");
            listener.acceptor.stop();
            listener.turn(false)?;
            prop_assert!(listener.acceptor.has_stopped());
        }
    }
}
