//! The peer `epoll`: an echo server with one epoll, one listener and one pinned thread per core.
//!
//! It does what `server` does with io_uring: echoes what comes, stops reading from who does not read, ends a
//! connection that the peer half-closed when everything has gone back, resets at once with `--mode
//! accept-close`. What can be spared is spared: options are inherited from the listener, not set per
//! connection; a connection is added to the epoll once and changed only when its peer does not read; a
//! message costs one `epoll_wait` (shared by all that are ready), one `recv` and one `send`.

mod connection;
mod worker;

use clap::{Args, ValueEnum, value_parser};

use self::worker::{Settings, Worker};
use super::{PeerArgs, per_core};

/// The epoll peer's options.
#[derive(Debug, Args)]
pub(crate) struct EpollArgs {
    #[command(flatten)]
    peer: PeerArgs,
    /// How epoll tells of what can be read.
    #[arg(long, value_enum, default_value = "edge")]
    trigger: Trigger,
    /// Bytes of each thread's receive buffer, 64 to 16777216.
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = value_parser!(u32).range(64..=1 << 24))]
    buffer_size: u32,
}

/// How epoll tells of what can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Trigger {
    /// As long as there is something; what is watched changes when a peer does not read.
    Level,
    /// When something new has come; what is watched never changes.
    Edge,
}

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &EpollArgs) -> anyhow::Result<()> {
    let settings =
        Settings { mode: args.peer.mode, trigger: args.trigger, buffer_size: args.buffer_size as usize };
    per_core("epoll", &args.peer, move |listener| Worker::new(listener, settings)?.run())
}
