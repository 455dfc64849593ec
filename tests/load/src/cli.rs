//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tune::cpu_set::{Cpu, CpuSet};

use crate::connect::{self, ConnectOptions};
use crate::echo::{self, EchoOptions};
use crate::report::Report;
use crate::threads::raise_open_file_limit;
use crate::{Error, Limit};

/// TCP client: verified echo and connection rate from pinned threads.
///
/// Exit code: 0 if every connection was made and every byte came back right, 1 if not, 2 on a usage error.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Exchange messages on open connections (closed loop) and check every byte.
    Echo(EchoArgs),
    /// Open connections and close them by RST, as many per second as it goes.
    Connect(ConnectArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The server.
    #[arg(long, value_name = "ADDR:PORT")]
    connect: SocketAddr,
    /// How long to go on, such as 500ms or 5s [default: 1s].
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// CPUs to which the threads are pinned, one thread each, such as 0-3,8 [default: every CPU allowed].
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Give up when nothing has happened for this long.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct EchoArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Connections in all, dealt out evenly to the threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: u32,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,
    /// Messages under way at once on each connection.
    #[arg(long, value_name = "D", default_value_t = 1)]
    depth: u32,
    /// End after this many messages on each connection.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Debug, Args)]
struct ConnectArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Exchange one message of 64 bytes before closing.
    #[arg(long)]
    echo: bool,
    /// End after this many connections in all.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Connections under way at once on each thread.
    #[arg(long, value_name = "N", default_value_t = 16)]
    parallel: u32,
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
    raise_open_file_limit()?;
    let (report, json) = match mode {
        Mode::Echo(args) => (echo::run(&args.options()?)?, args.common.json),
        Mode::Connect(args) => (connect::run(&args.options()?)?, args.common.json),
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
        Ok(self.cores.as_deref().map(CpuSet::parse_ordered).transpose()?.unwrap_or_default())
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

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
