//! Command line: parse, run, print, exit code.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Parser;
use tune::cpu_set::Cpu;
use tune::errno::describe;

use crate::config::{Config, Cores, Feature, Steer};
use crate::listener::Listeners;
use crate::report::Report;
use crate::worker::Features;
use crate::workers::{self, Notice};
use crate::{host, udp, worker_plan};

/// Accepts TCP connections and echoes what they send, on one io_uring for each pinned core.
///
/// Each core has its own listening socket on the same address (SO_REUSEPORT). With --steer cpu a connection is accepted
/// and served on the CPU that received its SYN; `tune` arranges for the NIC to deliver it there.
///
/// When connections are accepted, one line "server: listening on ADDR:PORT, …" goes to stderr. SIGINT or SIGTERM: accepts
/// what waits in the accept queues and no more, serves each open connection until it has been quiet for 50 to 100 ms, ends
/// it with a FIN, prints the report and exits with 0. When the drain timeout has passed, busy connections are ended too, and
/// a second later cut off. A second signal cuts all off at once.
#[derive(Debug, Parser)]
#[command(
    name = "server",
    version,
    about,
    after_help = "Exit status: 0 after a signal, 1 on an error, 2 on wrong usage."
)]
struct Arguments {
    /// Address to listen on; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7000")]
    listen: String,

    /// Echo datagrams (UDP) instead of accepting connections (TCP)
    #[arg(long)]
    udp: bool,

    /// Cores to run on: a list as in taskset -c, such as 0-47 or 3,0-1; the order counts. "all": every CPU that this process
    /// may run on
    #[arg(long, value_name = "LIST", default_value = "all")]
    cores: String,

    /// How a SYN finds its listener
    #[arg(long, value_enum, default_value = "cpu")]
    steer: Steer,

    /// Connections that may wait to be accepted, for each core; the kernel caps it at net.core.somaxconn
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..))]
    backlog: u16,

    /// Most connections open at a time, split evenly over the cores; more wait in the core's accept queue. Default: 65536
    /// for each core, or what the limit of open files allows
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,

    /// Receive buffers of each core, a power of two up to 32768. Default: 256; with --udp 64
    #[arg(long, value_name = "N")]
    buffers: Option<u32>,

    /// Size of a receive buffer in bytes, 64 to 1048576. Default: 16384; with --udp 65527, the longest datagram
    #[arg(long, value_name = "BYTES")]
    buffer_size: Option<u32>,

    /// Do without a feature of the kernel, as on an older one. Which there are is tried out at the start
    #[arg(long, value_name = "FEATURE", value_enum, value_delimiter = ',')]
    without: Vec<Feature>,

    /// How long busy connections may go on after the first signal, such as 5s or 500ms; at most a day
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,

    /// Print the report as one JSON object on stdout instead of a table on stderr
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn config(&self) -> Result<Config> {
        let default = Config::default();
        let (buffers, buffer_size) = if self.udp {
            (udp::DEFAULT_BUFFERS, udp::DEFAULT_BUFFER_SIZE)
        } else {
            (default.buffers, default.buffer_size)
        };
        Ok(Config {
            udp: self.udp,
            listen: vec![Config::parse_listen(&self.listen)?],
            cores: Config::parse_cores(&self.cores)?,
            steer: self.steer,
            backlog: self.backlog,
            max_connections: self.max_connections,
            buffers: Config::check_buffers(self.buffers.unwrap_or(buffers.into()))?,
            buffer_size: Config::check_buffer_size(self.buffer_size.unwrap_or(buffer_size))?,
            without: self.without.clone(),
            drain_timeout: Config::check_drain_timeout(self.drain_timeout)?,
            ..default
        })
    }
}

/// Runs the program with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match serve(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn say(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "server: {error:#}");
}

/// False if a worker has failed.
fn serve(arguments: &Arguments) -> Result<bool> {
    let config = arguments.config()?;
    let cores = match &config.cores {
        Cores::All => None,
        Cores::List(cores) => Some(cores.as_slice()),
    };
    let offer = host::offer()?;
    let features = Features::detect()?.without(&config.without);
    let plan = worker_plan::plan(cores, config.max_connections, features.direct_descriptors, &offer)?;
    let cpus: Vec<Cpu> = plan.iter().map(|worker| worker.cpu).collect();
    let bind = if config.udp { Listeners::bind_udp } else { Listeners::bind };
    let listeners = bind(config.listen[0], &cpus, config.steer)?;
    let address = listeners.address();
    let notify = |notice| match notice {
        Notice::Listening => {
            let cores: tune::cpu_set::CpuSet = cpus.iter().copied().collect();
            let steer = config.steer.name();
            let _ =
                writeln!(std::io::stderr(), "server: listening on {address}, cores {cores}, steer {steer}");
        }
        Notice::Failed(error) => say(&error),
    };
    let outcome = workers::run(&config, features, &plan, listeners, notify)?;
    if let Some(report) = outcome.report {
        print(&report, arguments.json)?;
    }
    Ok(!outcome.failed)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let (written, to) = if json {
        (report.write_json(&mut std::io::stdout().lock()), "stdout")
    } else {
        (report.write_table(&mut std::io::stderr().lock()), "stderr")
    };
    written.map_err(|error| anyhow!("write the report to {to}: {}", describe(&error)))
}
