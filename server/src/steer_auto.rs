//! `--steer auto`: a thread that watches how many connections each worker accepts, and lets the hash choose
//! the listener from the moment that one worker gets far more than its share ([`crate::skew`]), or is full
//! with what it got. (Who waits in a full worker's accept queue then, waits on: the kernel moves nobody to
//! another listener's.)
//!
//! Only new SYNs are steered otherwise: a connection in the making stays with the listener that its SYN was
//! given to (`rsk_listener` in `tcp_v4_rcv()`), and a SYN cookie is good for every listener of the group.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tune::cpu_set::Cpu;

use crate::listener::Listeners;
use crate::skew::{self, Skew, TICK, Verdict, Watch};
use crate::stats::LiveCore;

/// The running watch. It holds the listeners: while it lives they stay open, so it has to be dropped before
/// the workers close theirs.
pub(crate) struct SteerAuto {
    /// Nothing is ever sent: the thread ends when this is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SteerAuto {
    /// Starts to watch these cores, which take `what`, connections or datagrams, from `listeners`. `tell`
    /// gets one line when the watch has decided.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(crate) fn start(
        listeners: Listeners,
        cores: Vec<LiveCore>,
        what: &'static str,
        tell: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let body = move || {
            if let Some(seen) = watch(&cores, what, &stopped) {
                tell(fall_back(&listeners, &seen));
            }
        };
        let thread = thread::Builder::new().name("steer-auto".to_owned()).spawn(body)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for SteerAuto {
    /// Returns when the watch's descriptors are closed.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked, its descriptors are closed all the same.
            let _ = thread.join();
        }
    }
}

/// Watches until there is a skew, and says what was seen; `None` if stopped before.
fn watch(cores: &[LiveCore], what: &str, stopped: &Receiver<()>) -> Option<String> {
    let count = |count: fn(&LiveCore) -> u64| cores.iter().map(count).collect::<Vec<u64>>();
    let totals = || count(|core| core.counters.accepted.get() + core.counters.datagrams_in.get());
    let places = count(|core| core.max_connections.into());
    let start = Instant::now();
    let mut watch = Watch::new(totals());
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if let Verdict::Skewed(skew) = watch.observe(start.elapsed(), &totals()) {
            return Some(took(cores[skew.worker].cpu, what, skew));
        }
        if let Some(skew) = skew::crowded(&count(|core| core.counters.open.get()), &places) {
            return Some(is_full(cores[skew.worker].cpu, skew));
        }
    }
    None
}

fn fall_back(listeners: &Listeners, seen: &str) -> String {
    match listeners.steer_by_hash() {
        Ok(()) => format!("steer auto: {seen}: steering by hash from now on"),
        Err(error) => format!("steer auto: {seen}, but the kernel does not steer by hash: {error}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn took(cpu: Cpu, what: &str, skew: Skew) -> String {
    let share = skew.accepted as f64 / skew.total as f64 * 100.0;
    let time = skew.time.as_secs_f64();
    format!("core {cpu} took {share:.1} % of {} {what} in {time:.1} s", skew.total)
}

fn is_full(cpu: Cpu, skew: Skew) -> String {
    format!("core {cpu} is full with {} of all {} connections", skew.accepted, skew.total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_message_has_the_evidence() {
        let skew = Skew { worker: 1, accepted: 5110, total: 5120, time: Duration::from_millis(1003) };
        assert_eq!(took(7, "datagrams", skew), "core 7 took 99.8 % of 5120 datagrams in 1.0 s");
    }
}
