//! What a connection asks the kernel for, from its state and from what the kernel holds of it. Pure.

use super::state::{State, Way};
use super::{Connection, PAUSE_AT, Step};
use crate::worker::token::Descriptor;

impl Connection {
    /// What to ask the kernel for now; it is taken as asked. To be called until it gives `None`. `tight`:
    /// more than half of the spill is used.
    pub(crate) fn next_step(&mut self, tight: bool) -> Option<Step> {
        match self.state {
            State::Free | State::Closed => None,
            State::Open => {
                self.send_step().or_else(|| self.receive_step(tight)).or_else(|| self.count_step())
            }
            State::Finishing => self.send_step().or_else(|| self.finish_step()),
            State::Ending => self.send_step().or_else(|| self.ending_step(tight)),
            State::Lingering => {
                self.shutdown_step().or_else(|| self.receive_step(tight)).or_else(|| self.count_step())
            }
            State::Aborting => self.close_step(),
        }
    }

    /// The worker calls [`Connection::send_started`] for this step; until then it is offered again.
    fn send_step(&self) -> Option<Step> {
        if self.in_flight.send || self.queue.is_empty() {
            return None;
        }
        Some(if self.blocked { Step::SendWaiting } else { Step::SendNow })
    }

    /// True if the peer does not read as fast as it writes, as far as is known: something is queued that the
    /// socket had no room for, or that the send in flight did not take.
    pub(super) fn is_behind(&self) -> bool {
        self.blocked || self.queue.has_more()
    }

    fn receive_step(&mut self, tight: bool) -> Option<Step> {
        let paused = match self.way {
            Way::Pool => self.is_behind() && (tight || self.queue.bytes() >= PAUSE_AT),
            Way::Pipe => self.ready || !self.queue.is_empty(),
        };
        // The end of the send, or its turn to splice, ends the pause.
        debug_assert!(!paused || self.in_flight.send || self.ready, "paused for ever: {self:?}");
        match self.in_flight.receive {
            Some(armed) if paused || armed != self.way => self.cancel_step(Step::CancelReceive),
            None if !paused && !self.starves => match (self.way, self.descriptor, self.alias) {
                (Way::Pipe, Descriptor::Direct(number), None) => {
                    self.look_started().then_some(Step::Install(number))
                }
                (way, ..) => {
                    self.in_flight.receive = Some(way);
                    Some(if way == Way::Pool { Step::Receive } else { Step::Watch })
                }
            },
            _ => None,
        }
    }

    fn finish_step(&mut self) -> Option<Step> {
        if self.queue.is_empty() { self.close_step() } else { self.count_step() }
    }

    fn ending_step(&mut self, tight: bool) -> Option<Step> {
        if self.in_flight.receive.is_some() {
            return self.cancel_step(Step::CancelReceive);
        }
        if !self.queue.is_empty() || self.in_flight.send {
            return self.count_step();
        }
        self.state = State::Lingering;
        self.shutdown_step().or_else(|| self.receive_step(tight))
    }

    fn shutdown_step(&mut self) -> Option<Step> {
        if std::mem::replace(&mut self.shutdown_asked, true) {
            return None;
        }
        self.in_flight.shutdown = true;
        Some(Step::Shutdown)
    }

    fn count_step(&mut self) -> Option<Step> {
        (std::mem::take(&mut self.count_wanted) && self.look_started()).then_some(Step::CountUnsent)
    }

    fn close_step(&mut self) -> Option<Step> {
        if self.in_flight.receive.is_some() {
            return self.cancel_step(Step::CancelReceive);
        }
        if self.in_flight.send && !self.in_flight.notification {
            return if self.send_waits { self.cancel_step(Step::CancelSend) } else { None };
        }
        if self.in_flight.any_on_descriptor() {
            return None;
        }
        if std::mem::take(&mut self.reset_wanted) {
            self.in_flight.look = true;
            return Some(Step::ResetOnClose);
        }
        self.state = State::Closed;
        Some(Step::Close)
    }

    fn cancel_step(&mut self, step: Step) -> Option<Step> {
        if self.in_flight.cancel || self.cancel_asked {
            return None;
        }
        self.in_flight.cancel = true;
        self.cancel_asked = true;
        Some(step)
    }
}
