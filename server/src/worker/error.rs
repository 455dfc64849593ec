//! Why a worker ends early.

use std::collections::TryReserveError;
use std::io;

use tune::errno::describe;

use super::ring::SetupError;

/// Why a worker ended early. The process reports it and exits non-zero.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The ring could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A system call of the set-up failed.
    #[error("{0}: {error}{hint}", error = describe(.1), hint = .2)]
    Start(&'static str, io::Error, &'static str),
    /// There is no memory for as many connections as there may be.
    #[error(
        "allocate the table of connections: {0}; give a lower --max-connections, or raise the limit of \
         memory (ulimit -v)"
    )]
    NoMemory(TryReserveError),
    /// There is no memory for the bytes of peers that do not read.
    #[error(
        "map {0} bytes for the spill: {error}; give a lower --spill, or raise the limit of memory \
         (ulimit -v; with vm.overcommit_memory=2 CommitLimit of /proc/meminfo)", error = describe(.1)
    )]
    NoSpill(u64, io::Error),
    /// The ring itself failed.
    #[error("io_uring_enter: {error}", error = describe(.0))]
    Enter(io::Error),
    /// The listener can't accept any more.
    #[error("accept: {error}: the listening socket is gone", error = describe(.0))]
    Accept(io::Error),
    /// The kernel answered what it can't answer; going on could mix connections up.
    #[error("unexpected completion: {0}")]
    Unexpected(String),
}

impl From<TryReserveError> for WorkerError {
    // Not as its source: it is in the text.
    fn from(error: TryReserveError) -> Self {
        Self::NoMemory(error)
    }
}
