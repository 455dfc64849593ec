//! The command line.

mod args;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use crate::chaos::{self, Behaviour, ChaosReport};
use crate::echo::{self, EchoOptions, Transport};
use crate::report::Report;
use crate::{Error, connect, open_files, replay};
pub use args::number;
use args::{AcceptArgs, ChaosArgs, ConnectArgs, EchoArgs, ExchangeArgs, RunArgs, UdpArgs};

/// The client: echo over TCP and UDP, connection rate, the article's workloads, misbehaviour. Pinned threads,
/// every byte verified.
///
/// Each connection has a byte stream of its own, so that a lost, repeated, changed or foreign byte is seen.
/// Times are in microseconds: p50, p90, p99, p99.9, max. "client CPU" is what an operation has cost here; a
/// run whose busiest thread had no rest is said to be CLIENT-BOUND: the server may be faster. On a terminal a
/// line on standard error says how far the run is. The client uses io_uring (Linux 6.1 or later).
///
/// Exit code: 0 if every connection was made and every byte came back right, 1 if not or if the run could not
/// take place, 2 on a usage error.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Exchange messages on open connections and check every byte.
    ///
    /// Closed loop: a connection starts its next message when one came back. The time of a message is from
    /// its start to its last byte. Open loop (--rate): messages start at times that were fixed before, and
    /// the time of a message is from when it should have started, so that a server that stalls does not hide
    /// its stall (coordinated omission); the raw time, from when it was started, is reported too.
    Echo(EchoArgs),
    /// Open connections and close them, as many per second as it goes.
    ///
    /// The time of a connection is from its opening to its close. A server that accepts and closes may be
    /// faster: a connection that it has closed or reset was made, and counts.
    Connect(ConnectArgs),
    /// Exchange datagrams (UDP) and check every byte.
    ///
    /// As echo, with a socket for each "connection" and a datagram for each message. A datagram that is not
    /// back within --timeout is lost, and its bytes are.
    Udp(UdpArgs),
    /// The two workloads of the classic article on SO_REUSEPORT and locality.
    #[command(subcommand)]
    ReplayArticle(Article),
    /// Misbehave in all ways at once, beside well-behaved connections that must not notice.
    ///
    /// Whoever has a right to bytes gets them checked: the well-behaved, slow readers, byte-at-a-time
    /// writers, half-closers and, at the end, the idle ones.
    Chaos(ChaosArgs),
}

#[derive(Debug, Subcommand)]
enum Article {
    /// Processes that each connect and reset a million times, one connection at a time.
    Accept(AcceptArgs),
    /// 1000 clients that each exchange 10 messages of 512 KiB; those that failed are counted.
    Exchange(ExchangeArgs),
}

/// Prints why a command line was not read, or the help that it asks for; gives the exit code.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    // Fails only if the terminal is gone.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Reads the command line (with the program's name first), runs, prints, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.mode.execute() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(failure)) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Mode {
    /// Runs and prints; what went wrong on connections, if anything did.
    fn execute(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Echo(args) => {
                let options = args.messages.options(Transport::Tcp, args.size, args.patience.timeout)?;
                let common = &args.messages.common;
                report(&common.run, &common.shown(run_echo(&options)?))
            }
            Self::Udp(args) => {
                let options = args.messages.options(Transport::Udp, args.size, args.timeout)?;
                let common = &args.messages.common;
                report(&common.run, &common.shown(run_echo(&options)?))
            }
            Self::Connect(args) => {
                let options = args.options()?;
                let threads = options.cores.len();
                open_files::allow(u64::from(options.parallel) * threads as u64, threads)?;
                report(&args.common.run, &args.common.shown(connect::run(&options)?))
            }
            Self::ReplayArticle(Article::Accept(args)) => {
                report(&args.run, &replay::accept(&args.options()?)?)
            }
            Self::ReplayArticle(Article::Exchange(args)) => {
                let (cores, progress) = (args.run.cores()?, progress());
                let options = replay::exchange_options(args.run.connect);
                let options = EchoOptions { cores, progress, timeout: args.patience.timeout, ..options };
                let mode = "replay-article exchange".to_owned();
                report(&args.run, &Report { mode, histogram_ns: Vec::new(), ..run_echo(&options)? })
            }
            Self::Chaos(args) => {
                let (connections, behaviours) =
                    (u64::from(args.connections), Behaviour::value_variants().len());
                open_files::allow((connections + 10) * behaviours as u64, behaviours)?;
                report(&args.run, &chaos::run(&args.options()?)?)
            }
        }
    }
}

fn run_echo(options: &EchoOptions) -> Result<Report, Error> {
    open_files::allow(options.connections.into(), options.cores.len())?;
    echo::run(options)
}

/// A line that says how far a run is, where somebody may be looking.
fn progress() -> bool {
    io::stderr().is_terminal()
}

/// What a mode gives.
trait Results: serde::Serialize {
    fn print(&self, out: &mut impl Write) -> io::Result<()>;
    fn failure(&self) -> Option<String>;
}

impl Results for Report {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.print(out)
    }

    fn failure(&self) -> Option<String> {
        self.failure()
    }
}

impl Results for ChaosReport {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.print(out)
    }

    fn failure(&self) -> Option<String> {
        self.failure()
    }
}

/// Prints the results; gives what went wrong on connections.
fn report(run: &RunArgs, results: &impl Results) -> anyhow::Result<Option<String>> {
    print(results, run.json).context("write the report to standard output")?;
    Ok(results.failure())
}

fn print(results: &impl Results, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, results)?;
        writeln!(out)?;
    } else {
        results.print(&mut out)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    /// The text, however wide the terminal is.
    fn unwrapped(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_the_ranges() {
        use clap::CommandFactory;
        let mut command = Cli::command();
        let mut help =
            |mode| unwrapped(&command.find_subcommand_mut(mode).unwrap().render_long_help().to_string());
        let (echo, connect) = (help("echo"), help("connect"));
        for range in [limits::CONNECTIONS, limits::SIZE, limits::DEPTH, limits::RATE] {
            assert!(echo.contains(&format!(", {} to {}", range.start(), range.end())), "{range:?}: {echo}");
        }
        let parallel = limits::PARALLEL;
        assert!(connect.contains(&format!(", {} to {}", parallel.start(), parallel.end())), "{connect}");
    }

    #[test]
    fn numbers_out_of_range_are_usage_errors() {
        for (mode, option, value) in [
            ("echo", "--connections", "0"),
            ("echo", "--connections", "65536"),
            ("echo", "--size", "1048577"),
            ("echo", "--depth", "0"),
            ("echo", "--count", "0"),
            ("echo", "--rate", "0"),
            ("echo", "--duration", "0s"),
            ("echo", "--duration", "25h"),
            ("echo", "--timeout", "584000000000y"),
            ("connect", "--parallel", "4097"),
            ("connect", "--cores", "5-2"),
            ("connect", "--cores", ""),
        ] {
            let args = ["load", mode, "--connect", "127.0.0.1:1", option, value];
            let error = Cli::try_parse_from(args).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
