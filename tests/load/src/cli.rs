//! The command line.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use tune::cpu_set::{Cpu, CpuSet, CpuSetError};

use crate::arrivals::Spacing;
use crate::chaos::{self, Behaviour, ChaosOptions, ChaosReport};
use crate::connect::{self, Close, ConnectOptions};
use crate::echo::{self, EchoOptions, Transport};
use crate::replay::{self, AcceptOptions};
use crate::report::Report;
use crate::sources::Sources;
use crate::threads::allowed_cpus;
use crate::{Error, Limit, limits, open_files};

/// The client: echo over TCP and UDP, connection rate, the article's workloads, misbehaviour. Pinned threads, every byte
/// verified.
///
/// Each connection has a byte stream of its own, so that a lost, repeated, changed or foreign byte is seen. Times are in
/// microseconds: p50, p90, p99, p99.9, max. "client CPU" is what an operation has cost here; a run whose busiest thread had no
/// rest is said to be CLIENT-BOUND: the server may be faster. On a terminal a line on standard error says how far the run is.
/// The client uses io_uring (Linux 6.1 or later).
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
    /// its last byte. Open loop (--rate): messages start at times that were fixed before, and the time of a message is from when
    /// it should have started, so that a server that stalls does not hide its stall (coordinated omission); the raw time, from
    /// when it was started, is reported too.
    Echo(EchoArgs),
    /// Open connections and close them, as many per second as it goes.
    ///
    /// The time of a connection is from its opening to its close. A server that accepts and closes may be faster: a connection that
    /// it has closed or reset was made, and counts.
    Connect(ConnectArgs),
    /// Exchange datagrams (UDP) and check every byte.
    ///
    /// As echo, with a socket for each "connection" and a datagram for each message. A datagram that is not back within --timeout is
    /// lost, and its bytes are.
    Udp(UdpArgs),
    /// The two workloads of the classic article on SO_REUSEPORT and locality.
    #[command(subcommand)]
    ReplayArticle(Article),
    /// Misbehave in all ways at once, beside well-behaved connections that must not notice.
    ///
    /// Whoever has a right to bytes gets them checked: the well-behaved, slow readers, byte-at-a-time writers, half-closers and,
    /// at the end, the idle ones.
    Chaos(ChaosArgs),
}

#[derive(Debug, Subcommand)]
enum Article {
    /// Processes that each connect and reset a million times, one connection at a time.
    Accept(AcceptArgs),
    /// 1000 clients that each exchange 10 messages of 512 KiB; those that failed are counted.
    Exchange(ExchangeArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The server.
    #[arg(long, value_name = "ADDR:PORT")]
    connect: SocketAddr,
    /// CPUs to which the threads are pinned, one thread each, such as 0-3,8 [default: every CPU allowed].
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cores: Option<Cores>,
    /// Print the report as one JSON object, with "schema": 1.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    run: RunArgs,
    /// How long to go on, 1ms to 24h, such as 500ms or 5s [default: 1s].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Do not sleep: ask for events until there are some, so that the client's waking up is in no time.
    #[arg(long)]
    spin: bool,
    /// Addresses and prefixes from which to connect, in turn, such as 10.0.0.1,10.0.0.2 or 127.0.0.0/8: each has its own ports
    /// [default: what the kernel chooses; connect --close fin: all of 127.0.0.0/8 if the server is in it].
    #[arg(long, value_name = "LIST")]
    sources: Option<Sources>,
}

#[derive(Debug, Args)]
struct EchoArgs {
    #[command(flatten)]
    messages: MessageArgs,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number(limits::SIZE))]
    size: u32,
    /// Give up when nothing has happened for this long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct UdpArgs {
    #[command(flatten)]
    messages: MessageArgs,
    /// Bytes of a datagram, 8 to 65507.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number(limits::DATAGRAM))]
    size: u32,
    /// How long a datagram is waited for, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s")]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct MessageArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Connections in all, 1 to 65535, dealt out evenly to the threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(limits::CONNECTIONS))]
    connections: u32,
    /// Messages under way at once on each connection, 1 to 65536.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(limits::DEPTH))]
    depth: u32,
    /// Open loop: start this many messages per second in all, 1 to 100000000, in turn on the connections. One whose connection has
    /// --depth messages under way starts late; one that still waits at the end could not be started, and is counted as such, and
    /// in the percentiles with the time that it has waited.
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
struct ConnectArgs {
    #[command(flatten)]
    common: CommonArgs,
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
    /// Give up when nothing has happened for this long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct AcceptArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Processes, 1 to 4096, pinned to --cores in turn [default: one for each of them].
    #[arg(long, value_name = "N", value_parser = number(limits::PROCESSES))]
    processes: Option<u32>,
    /// Connections of each process.
    #[arg(long, value_name = "N", default_value_t = replay::ACCEPT, value_parser = value_parser!(u64).range(1..))]
    count: u64,
    /// Give up when nothing has happened for this long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct ExchangeArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Give up when nothing has happened for this long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct ChaosArgs {
    #[command(flatten)]
    run: RunArgs,
    /// What to do; several times, or with commas [default: everything].
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    behaviour: Vec<Behaviour>,
    /// Connections of each behaviour, 1 to 4096.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = number(limits::PARALLEL))]
    connections: u32,
    /// How long, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s")]
    duration: Duration,
    /// How long a connection may take to open, and its bytes to come back at the end, 1ms to 24h.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
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
                let options = args.messages.options(Transport::Tcp, args.size, args.timeout)?;
                args.messages.common.run.report(&run_echo(&options)?)
            }
            Self::Udp(args) => {
                let options = args.messages.options(Transport::Udp, args.size, args.timeout)?;
                args.messages.common.run.report(&run_echo(&options)?)
            }
            Self::Connect(args) => {
                let options = args.options()?;
                let threads = options.cores.len();
                open_files::allow(u64::from(options.parallel) * threads as u64, threads)?;
                args.common.run.report(&connect::run(&options)?)
            }
            Self::ReplayArticle(Article::Accept(args)) => args.run.report(&replay::accept(&args.options()?)?),
            Self::ReplayArticle(Article::Exchange(args)) => {
                let (cores, progress) = (args.run.cores()?, progress());
                let options = replay::exchange_options(args.run.connect);
                let options = EchoOptions { cores, progress, timeout: args.timeout, ..options };
                args.run.report(&Report { mode: "replay-article exchange".to_owned(), ..run_echo(&options)? })
            }
            Self::Chaos(args) => {
                let (connections, behaviours) =
                    (u64::from(args.connections), Behaviour::value_variants().len());
                open_files::allow((connections + 10) * behaviours as u64, behaviours)?;
                args.run.report(&chaos::run(&args.options()?)?)
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

impl RunArgs {
    fn cores(&self) -> Result<Vec<Cpu>, Error> {
        self.cores.clone().map_or_else(allowed_cpus, |Cores(cpus)| Ok(cpus))
    }

    /// Prints the results; gives what went wrong on connections.
    fn report(&self, results: &impl Results) -> anyhow::Result<Option<String>> {
        print(results, self.json).context("write the report to standard output")?;
        Ok(results.failure())
    }
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

impl CommonArgs {
    fn limit(&self, count: Option<u64>) -> Limit {
        match count {
            Some(count) => Limit::Count(count),
            None => Limit::Duration(self.duration.unwrap_or(Duration::from_secs(1))),
        }
    }
}

impl MessageArgs {
    fn options(&self, transport: Transport, size: u32, timeout: Duration) -> Result<EchoOptions, Error> {
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
            cores: self.common.run.cores()?,
            timeout,
            progress: progress(),
        })
    }
}

impl ConnectArgs {
    fn options(&self) -> Result<ConnectOptions, Error> {
        Ok(ConnectOptions {
            address: self.common.run.connect,
            echo: self.echo,
            close: self.close,
            sources: self.common.sources.clone(),
            spin: self.common.spin,
            limit: self.common.limit(self.count),
            cores: self.common.run.cores()?,
            parallel: self.parallel,
            timeout: self.timeout,
            progress: progress(),
        })
    }
}

impl AcceptArgs {
    fn options(&self) -> anyhow::Result<AcceptOptions> {
        let cores = self.run.cores()?;
        let each = u32::try_from(cores.len()).unwrap_or(u32::MAX);
        Ok(AcceptOptions {
            address: self.run.connect,
            processes: self.processes.unwrap_or(each),
            count: self.count,
            cores,
            timeout: self.timeout,
            program: std::env::current_exe().context("find this program")?,
        })
    }
}

impl ChaosArgs {
    fn options(&self) -> Result<ChaosOptions, Error> {
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
