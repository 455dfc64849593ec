//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lab::interrupt::Interrupted;

use crate::bench::cli::{self as bench, BenchArgs};
use crate::epoll::{self, EpollArgs};

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
    /// When connections are accepted, one line "epoll: listening on ADDR:PORT, …" goes to stderr. Runs until a signal ends
    /// it.
    Epoll(EpollArgs),
    /// Measure `server` against its peers, or any two commands against each other.
    Bench(Box<BenchArgs>),
}

/// Reads the command line (with the program's name first), runs, prints, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Fails only if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match &cli.command {
        Command::Epoll(args) => epoll::run(args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(args),
    };
    result.unwrap_or_else(|error| {
        let interrupted = error.downcast_ref::<Interrupted>().copied();
        match interrupted {
            Some(interrupted) => eprintln!("peers: {interrupted}"),
            None => eprintln!("peers: {error:#}"),
        }
        let code = interrupted.and_then(|Interrupted(signal)| u8::try_from(128 + signal).ok());
        code.map_or(ExitCode::FAILURE, ExitCode::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
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
