//! SIGINT, SIGTERM and SIGHUP: the children are killed, so that whatever waits for one of them goes on, and
//! everything is given up on the way out. A second signal does not wait for that: it ends the process, and
//! the kernel gives up for it what it holds.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The error of everything that stopped because a signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped by signal {0}; nothing is left behind")]
pub struct Interrupted(pub i32);

/// Prints why a program has failed; gives its exit code: 128 + signal if one has stopped it, else 1.
#[must_use]
pub fn failure(program: &str, error: &anyhow::Error) -> ExitCode {
    let Some(interrupted @ Interrupted(signal)) = error.downcast_ref() else {
        eprintln!("{program}: {error:#}");
        return ExitCode::FAILURE;
    };
    eprintln!("{program}: {interrupted}");
    u8::try_from(128 + signal).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Knows whether a signal came, and which children to kill when one comes.
#[derive(Clone, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    signal: Option<i32>,
    children: Vec<Weak<OwnedFd>>,
}

impl Interrupt {
    /// Handles the signals from now on, on a thread of its own.
    pub fn install() -> io::Result<Self> {
        let interrupt = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handler = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                handler.interrupt(signal);
            }
        })?;
        Ok(interrupt)
    }

    /// Has `child` (a pidfd) killed when a signal comes, at once if one has come already.
    pub fn watch(&self, child: &Arc<OwnedFd>) {
        let mut state = self.lock();
        state.children.retain(|child| child.strong_count() > 0);
        state.children.push(Arc::downgrade(child));
        if state.signal.is_some() {
            state.kill_children();
        }
    }

    /// Fails if a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.lock().signal.map_or(Ok(()), |signal| Err(Interrupted(signal)))
    }

    fn interrupt(&self, signal: i32) {
        let mut state = self.lock();
        if let Some(first) = state.signal.replace(signal) {
            std::process::exit(128 + first);
        }
        state.kill_children();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn kill_children(&self) {
        for child in self.children.iter().filter_map(Weak::upgrade) {
            // ESRCH: it has ended by itself.
            let _ = pidfd_send_signal(&*child, Signal::KILL);
        }
    }
}
