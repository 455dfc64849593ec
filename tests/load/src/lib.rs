//! `load`: the client. Pinned threads, verified echo over TCP and UDP, connection rate, misbehaviour.
//!
//! The modules in the order in which a run passes through them:
//!
//! * [`cli`] reads the command line into options;
//! * [`echo`] (TCP and UDP), [`connect`], [`replay`] and [`chaos`] hold the options of the modes and their
//!   `run`, which can also be called in-process: `load::echo::run(&EchoOptions::new(address))`;
//! * [`backlog`] is for who can hold the server, as the runner of `peers` can;
//! * [`limits`] says what the options may be, [`sources`] where connections come from;
//! * [`open_files`] raises the limit of open files and checks that the connections are within it;
//! * `threads` starts one thread per core, pinned there, and `progress` the line that says how far they are;
//! * `echo_client` and `connect_client` are the loop of one thread: a `ring` (io_uring) with its receive
//!   `buffers`, and `socket`s; `patience` says when to give up;
//! * `flow` is what a connection sends and how it checks what comes back: a `stream`, or `datagrams`;
//!   `messages` knows which of them are under way, [`arrivals`] when those of an open loop start;
//! * [`pattern`] says which byte stands at which offset of which connection, and compares what came back;
//! * [`counts`] says what is counted, [`stats`] of a thread, `latency` holds percentiles; [`report`] adds the
//!   threads up and prints text or JSON.

pub mod arrivals;
pub mod backlog;
mod buffers;
pub mod chaos;
pub mod cli;
pub mod connect;
mod connect_client;
pub mod counts;
mod datagrams;
pub mod echo;
mod echo_client;
mod flow;
mod latency;
pub mod limits;
mod messages;
pub mod open_files;
mod patience;
pub mod pattern;
mod progress;
pub mod replay;
pub mod report;
mod ring;
mod socket;
pub mod sources;
pub mod stats;
mod stream;
mod threads;

use std::io;
use std::time::Duration;

pub use threads::cpu_time;
use tune::cpu_set::Cpu;
use tune::errno::describe;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No new message (or connection) is started once this much time has passed.
    Duration(Duration),
    /// [`echo`]: this many messages on each connection. [`connect`]: this many connections in all.
    Count(u64),
}

/// A moment of a run at which nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// All connections are open ([`echo`]) and the clock starts when the observer returns.
    Start,
    /// The last operation has ended; the connections are still open ([`echo`]).
    End,
}

/// Told of each [`Moment`] on the first thread of the run while the others wait, so that it can read the
/// counters of the server: what it sees between the two is the operations alone, not the opening and closing
/// of their connections.
pub type Observer<'a> = dyn Fn(Moment) + Sync + 'a;

/// Why a run could not take place. What goes wrong on single connections is not an error of the run: it is
/// counted in its report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value with which no run is possible.
    #[error("{option} {value}: {reason}")]
    Option {
        /// The option as on the command line.
        option: &'static str,
        /// Its value.
        value: String,
        /// What to give instead.
        reason: String,
    },
    /// A thread could not be pinned.
    #[error(
        "pin a thread to CPU {cpu}: {}; give --cores CPUs that exist and that this process may use",
        describe(error)
    )]
    Pin {
        /// The CPU.
        cpu: Cpu,
        /// What `sched_setaffinity(2)` said.
        error: io::Error,
    },
    /// More connections than the process may have open files.
    #[error(
        "{connections} connections at once: the hard limit of open files is {limit}; give at most {most}, or \
         raise the limit as root (ulimit -n in the shell that starts this, LimitNOFILE= of a service)"
    )]
    OpenFiles {
        /// Connections that were asked for.
        connections: u64,
        /// The hard RLIMIT_NOFILE.
        limit: u64,
        /// Connections that are possible with it.
        most: u64,
    },
    /// io_uring does not work here.
    #[error(
        "{operation}: {}; load needs io_uring of Linux 6.1 or later: see /proc/sys/kernel/io_uring_disabled, \
         and the seccomp profile of a container",
        describe(error)
    )]
    Ring {
        /// The call.
        operation: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// A process of the article's workload could not be run, or gave no report.
    #[error("{operation}: {error}")]
    Process {
        /// What was done with it.
        operation: String,
        /// What went wrong.
        error: io::Error,
    },
    /// A system call of the machinery failed (not one on a connection).
    #[error("{operation}: {}", describe(error))]
    System {
        /// The call and its object.
        operation: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// Another thread failed first; its error is the one that is reported.
    #[error("cancelled because another thread failed")]
    Cancelled,
    /// A thread panicked: a bug.
    #[error("the thread on CPU {0} panicked")]
    Panicked(Cpu),
}

impl Error {
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { operation, error: errno.into() }
    }
}
