//! What `watch` is told to do, what it says, and why it ends. Pure.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::Error;
use crate::errno::describe;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two polls.
    pub interval: Duration,
    /// Apply the profile again where it drifted; the state directory for that.
    pub repair: Option<PathBuf>,
}

/// What `watch` has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first look is done.
    Started {
        /// The interfaces.
        interfaces: Vec<String>,
        /// How many settings are watched.
        settings: usize,
    },
    /// A setting is not as wanted.
    Drift {
        /// The kernel path.
        path: String,
        /// What it holds; null if it is gone.
        found: Option<String>,
        /// What it shall hold.
        wanted: String,
        /// What may have changed it, as far as it is known; empty where nothing but a write explains it.
        causes: Vec<String>,
    },
    /// Something became of an interface.
    Link {
        /// Its name.
        interface: String,
        /// `up`, `down` or `deleted`.
        state: &'static str,
    },
    /// The profile was applied again.
    Repaired {
        /// How many settings were written.
        changes: usize,
    },
    /// It could not be.
    RepairFailed {
        /// Why.
        message: String,
    },
    /// It cannot be told whether the host is as wanted: an interface is gone, a CPU is offline.
    Unknown {
        /// Why.
        message: String,
    },
    /// Everything is as wanted again.
    AsWanted,
    /// `tune restore` has put back what was applied, which a repair would undo: the watch ends.
    Restored,
    /// A signal ended it.
    Stopped,
}

/// Why the watch ended before a signal.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The profile cannot be had on this host from the beginning.
    #[error(transparent)]
    Host(#[from] Box<Error>),
    /// The kernel cannot be listened to.
    #[error("{operation}: {}", describe(error))]
    System {
        /// What was tried.
        operation: &'static str,
        /// The errno.
        error: io::Error,
    },
    /// What was to be said could not be.
    #[error("write to stdout: {}", describe(.0))]
    Output(io::Error),
}

/// For `map_err`: a system call of this operation failed.
pub(super) fn failed<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> WatchError {
    move |error| WatchError::System { operation, error: error.into() }
}
