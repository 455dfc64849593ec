//! The options of each command, and what they come to.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedI64ValueParser;
use clap::{Args, value_parser};
use tune::cpu_set::{Cpu, CpuSet, CpuSetError};

use super::progress;
use crate::arrivals::Spacing;
use crate::chaos::{Behaviour, ChaosOptions};
use crate::connect::{Close, ConnectOptions};
use crate::echo::{EchoOptions, Transport};
use crate::replay::{self, AcceptOptions};
use crate::report::Report;
use crate::sources::Sources;
use crate::threads::allowed_cpus;
use crate::{Error, Limit, limits};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The server.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) connect: SocketAddr,
    /// CPUs to which the threads are pinned, one thread each, such as 0-3,8 [default: every CPU allowed].
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cores: Option<Cores>,
    /// Print the report as one JSON object, with "schema": 1.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// How long to go on, 1ms to 24h, such as 500ms or 5s [default: 1s].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Do not sleep: ask for events until there are some, so that the client's waking up is in no time.
    #[arg(long)]
    spin: bool,
    /// Addresses and prefixes from which to connect, in turn, such as 10.0.0.1,10.0.0.2 or 127.0.0.0/8: each
    /// has its own ports [default: what the kernel chooses; connect --close fin: all of 127.0.0.0/8 if the
    /// server is in it].
    #[arg(long, value_name = "LIST")]
    sources: Option<Sources>,
    /// With --json, all times too, so that those of several runs can be added up: "histogram_ns", pairs of
    /// nanoseconds and how many operations took so long, with three significant digits.
    #[arg(long, requires = "json")]
    histogram: bool,
}

#[derive(Debug, Args)]
pub(super) struct PatienceArgs {
    /// Give up when nothing has happened for this long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct EchoArgs {
    #[command(flatten)]
    pub(super) messages: MessageArgs,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number(limits::SIZE))]
    pub(super) size: u32,
    #[command(flatten)]
    pub(super) patience: PatienceArgs,
}

#[derive(Debug, Args)]
pub(super) struct UdpArgs {
    #[command(flatten)]
    pub(super) messages: MessageArgs,
    /// Bytes of a datagram, 8 to 65507.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number(limits::DATAGRAM))]
    pub(super) size: u32,
    /// How long a datagram is waited for, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s")]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct MessageArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections in all, 1 to 65535, dealt out evenly to the threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(limits::CONNECTIONS))]
    pub(super) connections: u32,
    /// Messages under way at once on each connection, 1 to 65536.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(limits::DEPTH))]
    depth: u32,
    /// Open loop: start this many messages per second in all, 1 to 100000000, in turn on the connections. One
    /// whose connection has --depth messages under way starts late; one that still waits at the end could not
    /// be started, and is counted as such, and in the percentiles with the time that it has waited.
    #[arg(long, value_name = "PER_SECOND", value_parser = number(limits::RATE), conflicts_with = "count")]
    rate: Option<u32>,
    /// Open loop: how the starts are spread in time.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Spacing::Uniform, requires = "rate")]
    arrivals: Spacing,
    /// End after this many messages on each connection, instead of after --duration.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Exchange one message of 64 bytes before closing.
    #[arg(long)]
    echo: bool,
    /// How to close.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Close::Reset)]
    close: Close,
    /// End after this many connections in all, instead of after --duration.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Connections under way at once on each thread, 1 to 4096.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(limits::PARALLEL))]
    parallel: u32,
    #[command(flatten)]
    pub(super) patience: PatienceArgs,
}

#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Processes, 1 to 4096, pinned to --cores in turn [default: one for each of them].
    #[arg(long, value_name = "N", value_parser = number(limits::PROCESSES))]
    processes: Option<u32>,
    /// Connections of each process.
    #[arg(long, value_name = "N", default_value_t = replay::ACCEPT, value_parser = value_parser!(u64).range(1..))]
    count: u64,
    #[command(flatten)]
    pub(super) patience: PatienceArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExchangeArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(flatten)]
    pub(super) patience: PatienceArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// What to do; several times, or with commas [default: everything].
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    behaviour: Vec<Behaviour>,
    /// Connections of each behaviour, 1 to 4096.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = number(limits::PARALLEL))]
    pub(super) connections: u32,
    /// How long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s")]
    duration: Duration,
    /// How long a connection may take to open, and its bytes to come back at the end, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub(super) timeout: Duration,
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

impl RunArgs {
    pub(super) fn cores(&self) -> Result<Vec<Cpu>, Error> {
        self.cores.clone().map_or_else(allowed_cpus, |Cores(cpus)| Ok(cpus))
    }
}

impl CommonArgs {
    /// As much of the report as is asked for.
    pub(super) fn shown(&self, report: Report) -> Report {
        let histogram_ns = if self.histogram { report.histogram_ns } else { Vec::new() };
        Report { histogram_ns, ..report }
    }

    fn limit(&self, count: Option<u64>) -> Limit {
        match count {
            Some(count) => Limit::Count(count),
            None => Limit::Duration(self.duration.unwrap_or(Duration::from_secs(1))),
        }
    }
}

impl MessageArgs {
    pub(super) fn options(
        &self,
        transport: Transport,
        size: u32,
        timeout: Duration,
    ) -> Result<EchoOptions, Error> {
        Ok(EchoOptions {
            address: self.common.run.connect,
            transport,
            connections: self.connections,
            size,
            depth: self.depth,
            rate: self.rate,
            arrivals: self.arrivals,
            sources: self.common.sources.clone(),
            spin: self.common.spin,
            limit: self.common.limit(self.count),
            close_each: false,
            cores: self.common.run.cores()?,
            timeout,
            progress: progress(),
        })
    }
}

impl ConnectArgs {
    pub(super) fn options(&self) -> Result<ConnectOptions, Error> {
        Ok(ConnectOptions {
            address: self.common.run.connect,
            echo: self.echo,
            close: self.close,
            sources: self.common.sources.clone(),
            spin: self.common.spin,
            limit: self.common.limit(self.count),
            cores: self.common.run.cores()?,
            parallel: self.parallel,
            timeout: self.patience.timeout,
            progress: progress(),
        })
    }
}

impl AcceptArgs {
    pub(super) fn options(&self) -> anyhow::Result<AcceptOptions> {
        let cores = self.run.cores()?;
        let each = u32::try_from(cores.len()).unwrap_or(u32::MAX);
        Ok(AcceptOptions {
            address: self.run.connect,
            processes: self.processes.unwrap_or(each),
            count: self.count,
            cores,
            timeout: self.patience.timeout,
            program: vec![std::env::current_exe().context("find this program")?.into()],
        })
    }
}

impl ChaosArgs {
    pub(super) fn options(&self) -> Result<ChaosOptions, Error> {
        Ok(ChaosOptions {
            address: self.run.connect,
            behaviours: self.behaviour.clone(),
            connections: self.connections,
            duration: self.duration,
            cores: self.run.cores()?,
            timeout: self.timeout,
            progress: progress(),
        })
    }
}
