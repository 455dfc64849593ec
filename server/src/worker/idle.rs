//! `--idle-timeout`: a coarse clock by which connections are found on which nothing came or went. Pure.
//!
//! A connection notes the tick of its last bytes. A tick is an eighth of the timeout; one that is more than
//! eight ticks old is idle: for the timeout at least, and an eighth longer at most.
//!
//! What goes to a peer goes mostly unseen by the worker, from the socket's buffer and from a send that waits.
//! So at each tick the bytes are counted that the peer has not acknowledged
//! ([`super::kernel::Request::LookForUnsent`]), until there are none: as long as their number changes, bytes
//! go. A peer that takes none of them is noticed an eighth of the timeout later.

use std::time::{Duration, Instant};

/// Ticks of a timeout.
const TICKS: u32 = 8;

/// The clock.
#[derive(Debug)]
pub(super) struct Idle {
    period: Duration,
    next: Instant,
    tick: u32,
}

impl Idle {
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        let period = (timeout / TICKS).max(Duration::from_micros(100));
        Self { period, next: now + period, tick: 0 }
    }

    /// The present tick.
    pub(super) fn tick(&self) -> u32 {
        self.tick
    }

    /// When the next tick comes.
    pub(super) fn next_tick(&self) -> Instant {
        self.next
    }

    /// True if a tick has come.
    pub(super) fn ticks(&mut self, now: Instant) -> bool {
        let comes = now >= self.next;
        if comes {
            self.tick = self.tick.wrapping_add(1);
            self.next = now + self.period;
        }
        comes
    }

    /// True for a connection whose last bytes came or went at tick `active`, if it has been idle for the
    /// timeout.
    pub(super) fn is_over(&self, active: u32) -> bool {
        self.tick.wrapping_sub(active) > TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_after_the_timeout_and_at_most_an_eighth_later() {
        let timeout = Duration::from_secs(8);
        let start = Instant::now();
        for offset in [0, 1, 500, 999] {
            let mut idle = Idle::new(timeout, start);
            let mut closed = None;
            // Bytes come `offset` ms after the third tick.
            let active = start + Duration::from_millis(3000 + offset);
            let mut noted = 0;
            for milliseconds in 0..20_000 {
                let now = start + Duration::from_millis(milliseconds);
                idle.ticks(now);
                if now == active {
                    noted = idle.tick();
                }
                if now > active && idle.is_over(noted) && closed.is_none() {
                    closed = Some(now - active);
                }
            }
            let closed = closed.unwrap();
            assert!(closed >= timeout && closed <= timeout * 9 / 8, "{offset}: {closed:?}");
        }
    }
}
