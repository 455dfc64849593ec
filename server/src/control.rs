//! How the main thread talks to the workers: a phase that all read, and an eventfd for each to wake it up.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// What the workers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Accept and serve.
    Run,
    /// Stop accepting; let open connections come to their end within the drain timeout.
    Drain,
    /// Close everything now.
    Stop,
}

/// Shared by the main thread and all workers.
#[derive(Debug)]
pub(crate) struct Control {
    phase: AtomicU8,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self { phase: AtomicU8::new(Phase::Run as u8) }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Run,
            1 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    /// Goes on to this phase, unless a later one has begun, and wakes the workers.
    pub(crate) fn set(&self, phase: Phase, wakes: &[OwnedFd]) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        for wake in wakes {
            // The counter can't overflow: it is written once per signal. A worker that is gone needs no
            // waking.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }
}

/// An eventfd to wake one worker with.
pub(crate) fn wake() -> std::io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}
