//! How long a thread goes on when nothing happens. Pure.

use std::time::{Duration, Instant};

/// Into so many looks the timeout is divided.
const LOOKS: u32 = 8;

/// The time in which nothing has happened, as far as it was looked for. A process that was stopped (SIGSTOP,
/// a debugger, a hypervisor that did not run it) has not looked: however long that was, it counts as one
/// look.
#[derive(Debug)]
pub(crate) struct Patience {
    look: Duration,
    left: u32,
    next: Instant,
}

impl Patience {
    pub(crate) fn new(timeout: Duration, now: Instant) -> Self {
        let look = timeout / LOOKS;
        Self { look, left: LOOKS, next: now + look }
    }

    /// Something has happened.
    pub(crate) fn renew(&mut self, now: Instant) {
        self.left = LOOKS;
        self.next = now + self.look;
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Nothing has happened until `now`. True if that was for the whole timeout.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        if now >= self.next {
            self.left = self.left.saturating_sub(1);
            self.next = now + self.look;
        }
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_after_the_timeout_and_a_stop_is_one_look() {
        let (start, ms) = (Instant::now(), Duration::from_millis(1));
        let mut patience = Patience::new(80 * ms, start);
        let mut now = start;
        for _ in 0..7 {
            assert!(!patience.is_over(now));
            now = patience.next();
            assert!(!patience.is_over(now));
        }
        assert_eq!(now, start + 70 * ms);
        patience.renew(now);
        now += 100_000 * ms;
        assert!(!patience.is_over(now), "stopped");
        for _ in 0..6 {
            now = patience.next();
            assert!(!patience.is_over(now));
        }
        assert!(patience.is_over(patience.next()));
    }
}
