//! The peer `bare`: what serving costs if next to nothing but the kernel's work is done.
//!
//! Nobody would use it. It shows what is left for a server to gain:
//!
//! * [`calls`]: by plain system calls, the floor of `backlog-CONNECTIONS`;
//! * [`ring`]: by io_uring, for messages up to 4 KiB.

mod calls;
mod ring;

use anyhow::ensure;
use clap::Args;

use super::{Mode, PeerArgs, per_core};

/// The options of `bare`.
#[derive(Debug, Args)]
pub(crate) struct BareArgs {
    #[command(flatten)]
    peer: PeerArgs,
    /// By io_uring: multishot accept and receive, sends and closes without a completion, no state of a
    /// connection. Linux 6.1 or later.
    #[arg(long)]
    ring: bool,
}

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &BareArgs) -> anyhow::Result<()> {
    ensure!(args.peer.mode == Mode::Echo, "--mode: bare can only echo");
    let serve = if args.ring { ring::serve } else { calls::serve };
    per_core("bare", &args.peer, move |listener| serve(&listener))
}
