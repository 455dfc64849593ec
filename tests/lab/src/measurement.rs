//! One server run and the load on it, with the counters around it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use load::report::Report;
use serde::{Deserialize, Serialize};
use tune::cpu_set::Cpu;
use tune::kernel_files::KernelFiles;
use tune::measure::perf_events::{PerfEvents, PerfReading};
use tune::measure::softirqs::SoftirqCounts;
use tune::measure::softnet::SoftnetStat;

use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::testbed::{SERVER_ADDRESS, Testbed};

/// How long a program may take to start or to end; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the client does in each measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Workload {
    /// Connections of the exchange.
    pub(crate) connections: u32,
    /// Bytes of a message.
    pub(crate) size: u32,
    /// How long messages are exchanged.
    #[serde(rename = "exchange_s", serialize_with = "as_seconds")]
    pub(crate) exchange: Duration,
    /// How long connections are made and closed before that.
    #[serde(rename = "connect_s", serialize_with = "as_seconds")]
    pub(crate) connect: Duration,
}

/// How the server's listener is chosen (`--steer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steer {
    Hash,
    Cpu,
}

/// What one measurement gives. Everything but `connect` and the server's counts is of the exchange alone,
/// including the opening and closing of its connections.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    /// What the server says of all its connections, those of `connect` included.
    pub(crate) server: ServerReport,
    /// Connections made, one message exchanged on each, and closed.
    pub(crate) connect: Report,
    /// Messages exchanged on open connections.
    pub(crate) exchange: Report,
    /// Counters of the server process.
    pub(crate) server_perf: PerfReading,
    /// The counters that the machine does not give, and why.
    pub(crate) server_perf_refused: BTreeMap<&'static str, String>,
    /// NET_RX softirqs per CPU of the whole machine.
    pub(crate) net_rx: BTreeMap<Cpu, u64>,
    /// `/proc/net/softnet_stat` of the whole machine, differences.
    pub(crate) softnet: Vec<SoftnetStat>,
}

/// The `--json` of `server`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerReport {
    /// All cores together.
    pub(crate) total: ServerTotal,
    /// Each core.
    pub(crate) cores: Vec<serde_json::Value>,
}

/// The server's counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerTotal {
    /// Connections accepted.
    pub(crate) accepted: u64,
    /// Share of them that were received on the CPU of the worker that accepted them; none without a sample.
    pub(crate) accept_local: Option<f64>,
    /// Share of received messages that were received on the CPU of their worker; none without a sample.
    pub(crate) request_local: Option<f64>,
    /// What the table does not show.
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, serde_json::Value>,
}

/// Counters of the machine and the server at one moment.
struct Counters {
    perf: PerfReading,
    net_rx: SoftirqCounts,
    softnet: Vec<SoftnetStat>,
}

/// Starts a server, puts the load on it, and stops it.
pub(crate) fn measure(
    testbed: &Testbed,
    workload: &Workload,
    steer: Steer,
    interrupt: &Interrupt,
) -> anyhow::Result<Measurement> {
    let (mut server, mut perf, address) = start_server(testbed, steer, interrupt)?;
    let mut load = |args: &[&str], duration: Duration| {
        run_load(testbed, args, &address, duration, interrupt).map_err(|error| server.cause_of(error))
    };
    let connect = load(&["connect", "--echo"], workload.connect)?;
    let before = Counters::read(&mut perf)?;
    let (connections, size) = (workload.connections.to_string(), workload.size.to_string());
    let exchange = load(&["echo", "--connections", &connections, "--size", &size], workload.exchange)?;
    let after = Counters::read(&mut perf)?;
    server.terminate()?;
    let report = server.finish(PATIENCE)?;
    Ok(Measurement {
        server: serde_json::from_str(&report).with_context(|| format!("server's report {report:?}"))?,
        connect,
        exchange,
        server_perf: after.perf.since(&before.perf),
        server_perf_refused: perf.refusals().map(|(name, error)| (name, error.to_string())).collect(),
        net_rx: after.net_rx.since(&before.net_rx),
        softnet: after.softnet_since(&before),
    })
}

/// The server, its counters, and its address.
fn start_server(
    testbed: &Testbed,
    steer: Steer,
    interrupt: &Interrupt,
) -> anyhow::Result<(Child, PerfEvents, String)> {
    let steer = match steer {
        Steer::Hash => "hash",
        Steer::Cpu => "cpu",
    };
    let (cores, listen) = (testbed.cpus.to_string(), format!("{SERVER_ADDRESS}:0"));
    let args = ["--cores", &cores, "--listen", &listen, "--steer", steer, "--json"].map(str::to_owned);
    let mut server = Child::start("server", &args, &testbed.server, interrupt)?;
    // Its only thread waits for the word, so the workers will all inherit the counters.
    let perf = PerfEvents::attach(server.pid());
    server.go();
    let line = server.wait_for_line("server: listening on ", PATIENCE)?;
    let address = line.split([',', ' ']).next().unwrap_or_default().to_owned();
    Ok((server, perf, address))
}

fn run_load(
    testbed: &Testbed,
    args: &[&str],
    address: &str,
    duration: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Report> {
    let cores = testbed.cpus.to_string();
    let milliseconds = format!("{}ms", duration.as_millis());
    let common = ["--connect", address, "--cores", &cores, "--duration", &milliseconds, "--json"];
    let args: Vec<String> = args.iter().chain(&common).map(|&arg| arg.to_owned()).collect();
    let mut load = Child::start("load", &args, &testbed.client, interrupt)?;
    load.go();
    let report = load.finish(duration + PATIENCE)?;
    serde_json::from_str(&report).with_context(|| format!("load's report {report:?}"))
}

impl Counters {
    fn read(perf: &mut PerfEvents) -> anyhow::Result<Self> {
        let files = KernelFiles::open("/")?;
        let (softirqs, softnet) = ("/proc/softirqs", "/proc/net/softnet_stat");
        Ok(Self {
            perf: perf.read().context("read the server's perf counters")?,
            net_rx: SoftirqCounts::parse(&files.read(softirqs)?, "NET_RX").context(softirqs)?,
            softnet: SoftnetStat::parse(&files.read(softnet)?).context(softnet)?,
        })
    }

    fn softnet_since(&self, earlier: &Self) -> Vec<SoftnetStat> {
        let same_cpu = |now: &SoftnetStat| earlier.softnet.iter().find(|then| then.cpu == now.cpu);
        self.softnet.iter().filter_map(|now| Some(now.since(same_cpu(now)?))).collect()
    }
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
