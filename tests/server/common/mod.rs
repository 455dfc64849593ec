//! What the tests share: the server as a child process, a client that checks every byte, and /proc.

pub(crate) mod client;
pub(crate) mod cpus;
pub(crate) mod openmetrics;
pub(crate) mod pattern;
pub(crate) mod proc;
pub(crate) mod report;
pub(crate) mod sandbox;
pub(crate) mod server;
pub(crate) mod sockets;

use std::time::{Duration, Instant};

pub(crate) use client::Client;
pub(crate) use server::{Launch, Server};

/// How long anything may take that must happen. Long, because the machine may be busy with other work, and
/// longer than the kernel may wait before it sends again to a peer that did not read (`TCP_RTO_MAX`: 120 s):
/// a test that meets it has hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// How long the tests watch for something that must not happen.
pub(crate) const WATCH: Duration = Duration::from_millis(500);

/// How often a condition without an event of its own is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within [`DEADLINE`].
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(condition), "after {DEADLINE:?} still not: {what}");
}

/// Waits until `condition` holds; false if it does not within [`DEADLINE`]. Looks are counted: a machine that
/// stood still meanwhile, or was busy, has not looked.
fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let looks = DEADLINE.as_millis() / POLL.as_millis();
    (0..looks).any(|look| {
        if look > 0 {
            std::thread::sleep(POLL);
        }
        condition()
    })
}

/// Looks at `condition` again and again for [`WATCH`].
///
/// # Panics
/// As soon as it does not hold.
pub(crate) fn holds_for_a_while(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < WATCH {
        assert!(condition(), "after {:?} no longer: {what}", start.elapsed());
        std::thread::sleep(POLL);
    }
}

/// Says on stderr that the running test cannot prove anything here, and why.
pub(crate) fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED: {test}: {why}");
}
