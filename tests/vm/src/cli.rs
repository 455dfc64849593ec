//! The command line, on the host and in the guest.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::{guest, machine};

/// The users' commands in virtual machines with many CPUs, a multi-queue NIC and real interrupts.
///
/// Each machine boots, the groups of checks run in it one after the other, and each check is one line with
/// what was found. Needs root, for the network of the machines, and the programs and the kernel that it names
/// where they are missing; it then says SKIPPED.
///
/// Exit code: 0 if every check held or the run was skipped, 1 if not, 2 on a usage error.
#[derive(Debug, Parser)]
#[command(name = "vm-test", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What is asked of the host's part.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this machine; several with commas.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub(crate) machine: Vec<machine::Name>,
    /// Only this group of checks; several with commas.
    #[arg(long, value_name = "GROUP", value_enum, value_delimiter = ',')]
    pub(crate) group: Vec<Group>,
    /// The shortest honest run, for CI: 48 CPUs once, without the groups that take long.
    #[arg(long)]
    pub(crate) quick: bool,
    /// An unpacked kernel package, instead of the one that tests/vm/setup.sh fetched.
    #[arg(long, value_name = "DIR")]
    pub(crate) kernel: Option<PathBuf>,
    /// How often the group "killed" kills `tune apply`.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    pub(crate) kills: u32,
    /// Show the guest's console on stderr.
    #[arg(long)]
    pub(crate) console: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// What runs in the guest.
    #[command(hide = true)]
    Guest(Asked),
    /// The client of the group "others".
    #[command(hide = true)]
    HttpClient {
        /// The server.
        server: SocketAddr,
        /// Connections.
        connections: usize,
        /// Requests on each.
        requests: usize,
    },
}

/// What is asked of the guest's part.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asked {
    /// The groups of checks.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) group: Vec<Group>,
    /// See [`Options::kills`].
    #[arg(long)]
    pub(crate) kills: u32,
}

/// Checks that belong together. Each begins and ends with a guest that nobody has tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Hash against CPU: before, apply, after, restore, with irqbalance running all the time.
    Steering,
    /// Fewer queues than CPUs, 8 for 48 or 2 for 8: RPS in groups.
    FewQueues,
    /// Apply and restore without irqbalance: every file byte for byte.
    Restore,
    /// ethtool -L, -G, link down and up: found and repaired.
    Drift,
    /// A CPU goes offline under load and comes back.
    Offline,
    /// kill -9 of apply at random moments.
    Killed,
    /// nginx and haproxy on the tuned NIC; only if asked for.
    Others,
}

impl Group {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Reads the command line (with the program's name first), runs, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return load::cli::usage(&error),
    };
    let held = match &cli.role {
        Some(Role::Guest(asked)) => guest::run(asked),
        Some(Role::HttpClient { server, connections, requests }) => {
            guest::http::run(*server, *connections, *requests).map(|()| true)
        }
        None => machine::run(&cli.options),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
