//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, value_parser};
use tune::cpu_set::{Cpu, CpuSet, CpuSetError};

use crate::connect::{self, ConnectOptions};
use crate::echo::{self, EchoOptions};
use crate::report::Report;
use crate::threads::allowed_cpus;
use crate::{Error, Limit, limits, open_files};

/// TCP client: verified echo and connection rate from pinned threads.
///
/// Exit code: 0 if every connection was made and every byte came back right, 1 if not or if the run could not take
/// place, 2 on a usage error.
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
    /// Closed loop: a connection starts its next message when one came back. The time of a message is from its start to
    /// its last byte. Open loop (--rate): messages start at fixed times, and the time of a message is from when it should
    /// have started.
    Echo(EchoArgs),
    /// Open connections and close them by RST, as many per second as it goes.
    ///
    /// The time of a connection is from its opening to its close.
    Connect(ConnectArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The server.
    #[arg(long, value_name = "ADDR:PORT")]
    connect: SocketAddr,
    /// How long to go on, 1ms to 24h, such as 500ms or 5s [default: 1s].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    duration: Option<Duration>,
    /// CPUs to which the threads are pinned, one thread each, such as 0-3,8 [default: every CPU allowed].
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cores: Option<Cores>,
    /// Give up when nothing has happened for this long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
    /// Do not sleep: ask for events until there are some, so that the client's waking up is in no time.
    #[arg(long)]
    spin: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct EchoArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Connections in all, 1 to 65535, dealt out evenly to the threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(limits::CONNECTIONS))]
    connections: u32,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number(limits::SIZE))]
    size: u32,
    /// Messages under way at once on each connection, 1 to 65536.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(limits::DEPTH))]
    depth: u32,
    /// Open loop: start this many messages per second in all, 1 to 100000000, at equal distances in time and in turn on the
    /// connections. One whose connection has --depth messages under way starts late; it is not left out.
    #[arg(long, value_name = "PER_SECOND", value_parser = number(limits::RATE), conflicts_with = "count")]
    rate: Option<u32>,
    /// End after this many messages on each connection, instead of after --duration.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Debug, Args)]
struct ConnectArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Exchange one message of 64 bytes before closing.
    #[arg(long)]
    echo: bool,
    /// End after this many connections in all, instead of after --duration.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Connections under way at once on each thread, 1 to 4096.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(limits::PARALLEL))]
    parallel: u32,
}

/// A CPU list in the order in which it was written.
#[derive(Debug, Clone)]
struct Cores(Vec<Cpu>);

fn cpus(text: &str) -> Result<Cores, CpuSetError> {
    CpuSet::parse_ordered(text).map(Cores)
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    limits::TIME.contains(&time).then_some(time).ok_or_else(|| "it is not in 1ms to 24h".to_owned())
}

/// Reads a number in a range.
#[must_use]
pub fn number(range: RangeInclusive<u32>) -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(i64::from(*range.start())..=i64::from(*range.end()))
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
    match execute(&cli.mode) {
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

/// Runs and prints; what went wrong on connections, if anything did.
fn execute(mode: &Mode) -> anyhow::Result<Option<String>> {
    let (report, json) = match mode {
        Mode::Echo(args) => {
            let options = args.options()?;
            open_files::allow(options.connections.into(), options.cores.len())?;
            (echo::run(&options)?, args.common.json)
        }
        Mode::Connect(args) => {
            let options = args.options()?;
            let threads = options.cores.len();
            open_files::allow(u64::from(options.parallel) * threads as u64, threads)?;
            (connect::run(&options)?, args.common.json)
        }
    };
    print(&report, json).context("write the report to standard output")?;
    Ok(report.failure())
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    } else {
        report.print(&mut out)?;
    }
    out.flush()
}

impl CommonArgs {
    fn cores(&self) -> Result<Vec<Cpu>, Error> {
        self.cores.clone().map_or_else(allowed_cpus, |Cores(cpus)| Ok(cpus))
    }

    fn limit(&self, count: Option<u64>) -> Limit {
        match count {
            Some(count) => Limit::Count(count),
            None => Limit::Duration(self.duration.unwrap_or(Duration::from_secs(1))),
        }
    }
}

impl EchoArgs {
    fn options(&self) -> Result<EchoOptions, Error> {
        Ok(EchoOptions {
            address: self.common.connect,
            connections: self.connections,
            size: self.size,
            depth: self.depth,
            rate: self.rate,
            spin: self.common.spin,
            limit: self.common.limit(self.count),
            cores: self.common.cores()?,
            timeout: self.common.timeout,
        })
    }
}

impl ConnectArgs {
    fn options(&self) -> Result<ConnectOptions, Error> {
        Ok(ConnectOptions {
            address: self.common.connect,
            echo: self.echo,
            spin: self.common.spin,
            limit: self.common.limit(self.count),
            cores: self.common.cores()?,
            parallel: self.parallel,
            timeout: self.common.timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
