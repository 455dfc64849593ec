//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use lab::interrupt;

use crate::article::cli::{self as article, ArticleArgs};
use crate::bench::cli::{self as bench, BenchArgs};
use crate::peer::bare::{self, BareArgs};
use crate::peer::blocking::{self, BlockingArgs};
use crate::peer::epoll::{self, EpollArgs};
use crate::peer::{PeerArgs, proxy};
#[cfg(feature = "all-peers")]
use crate::peer::{
    RuntimeArgs,
    compio::{self, CompioArgs},
    glommio, monoio,
    tokio::{self, TokioArgs},
};

/// What a user would pick instead of `server`, and the runner that measures `server` against it.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Echo server with one epoll, one listener (SO_REUSEPORT) and one pinned thread per core.
    ///
    /// When connections are accepted, one line "epoll: listening on ADDR:PORT, …" goes to stderr. Runs until
    /// a signal ends it.
    Epoll(EpollArgs),
    /// Echo or accept-and-close server with one process per core and blocking calls, one connection at a
    /// time.
    Blocking(BlockingArgs),
    /// What is left to gain: next to nothing but the kernel's work, by plain system calls or (--ring) by
    /// io_uring.
    ///
    /// By plain system calls it echoes once, to who has sent something before he is accepted, and closes when
    /// nobody has come for 1 ms: `peers bench --only backlog-400 --a bare=bare --b epoll=epoll`. With --ring
    /// it echoes messages that a socket takes whole, and fails when one does not: `peers bench --peers
    /// bare-ring,epoll-edge`.
    Bare(BareArgs),
    /// Echo server on tokio: one current_thread runtime and one listener per core, or one multi-thread
    /// runtime.
    #[cfg(feature = "all-peers")]
    Tokio(TokioArgs),
    /// Echo server on monoio: one runtime and one listener per core.
    #[cfg(feature = "all-peers")]
    Monoio(RuntimeArgs),
    /// Echo server on compio: one runtime and one listener per core.
    #[cfg(feature = "all-peers")]
    Compio(CompioArgs),
    /// Echo server on glommio: one executor and one listener per core.
    #[cfg(feature = "all-peers")]
    Glommio(RuntimeArgs),
    /// nginx with its stream module, where it is installed: accepts and closes, whatever --mode says.
    Nginx(PeerArgs),
    /// haproxy, where it is installed: accepts and closes, whatever --mode says.
    Haproxy(PeerArgs),
    /// Measure `server` against its peers, or any two commands against each other.
    Bench(Box<BenchArgs>),
    /// Reproduce the classic article's table: shared listener, listener per core, and by CPU.
    ///
    /// Exit code: as that of bench.
    Article(ArticleArgs),
}

/// The names of the peers.
pub(crate) fn peers() -> impl Iterator<Item = String> {
    let subcommands = <Cli as CommandFactory>::command();
    let names: Vec<_> = subcommands.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().filter(|name| !["bench", "article"].contains(&&**name))
}

/// Reads the command line (with the program's name first), runs, prints, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return load::cli::usage(&error),
    };
    let result = match &cli.command {
        Command::Bench(args) => bench::run(args),
        Command::Article(args) => article::run(args),
        peer => run_peer(peer).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| interrupt::failure("peers", &error))
}

/// Runs a peer until a signal ends the process.
fn run_peer(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Epoll(args) => epoll::run(args),
        Command::Blocking(args) => blocking::run(args),
        Command::Bare(args) => bare::run(args),
        #[cfg(feature = "all-peers")]
        Command::Tokio(args) => tokio::run(args),
        #[cfg(feature = "all-peers")]
        Command::Monoio(args) => monoio::run(args),
        #[cfg(feature = "all-peers")]
        Command::Compio(args) => compio::run(args),
        #[cfg(feature = "all-peers")]
        Command::Glommio(args) => glommio::run(args),
        Command::Nginx(args) => proxy::run_nginx(args),
        Command::Haproxy(args) => proxy::run_haproxy(args),
        Command::Bench(_) | Command::Article(_) => unreachable!("the caller runs it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_refused() {
        for args in [
            &["epoll", "--cores", ""][..],
            &["epoll", "--trigger", "both"],
            &["epoll", "--buffer-size", "63"],
            &["epoll", "--backlog", "0"],
            &["bench", "--rounds", "0"],
            &["bench", "--only", "nothing"],
            &["bench", "--a", "server"],
            &["bench", "--a", "x=server"],
            &["bench", "--a", "x=server", "--b", "y=server", "--server-args", "--buffers 64"],
        ] {
            let error = Cli::try_parse_from([&["peers"], args].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}: {error}");
        }
    }
}
