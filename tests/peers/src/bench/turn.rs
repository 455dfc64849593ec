//! One contender under the client, once.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use load::backlog::{self, BacklogOptions};
use load::connect::{self, ConnectOptions};
use load::echo::{self, EchoOptions};
use load::report::{Latency, Report};
use load::{Limit, Moment};
use serde::Serialize;
use tune::cpu_set::{Cpu, CpuSet};

use super::contender::{Held, Running};
use super::counters::{CpuTimes, IdleTime};
use super::distance;
use super::scenario::{OPEN, Scenario};

/// How often, and how long from one time to the next, the server's CPU time is read until it stands still:
/// after the last answer it still goes to sleep, and after the last connection was reset it still accepts
/// some.
const SETTLING: (u32, Duration) = (40, Duration::from_millis(2));

/// The machine and the client.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) server_cores: CpuSet,
    pub(crate) client_cores: Vec<Cpu>,
    pub(crate) spin: bool,
    /// How long a turn is.
    pub(crate) duration: Duration,
    /// A turn in which nothing comes for this long has failed.
    pub(crate) timeout: Duration,
}

impl Setup {
    /// The first CPU of the servers.
    pub(crate) fn server_cpu(&self) -> anyhow::Result<Cpu> {
        self.server_cores.iter().next().context("no server core")
    }
}

/// What was measured in one turn.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Turn {
    pub(crate) contender: String,
    /// Messages or connections.
    pub(crate) operations: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) rate_per_s: f64,
    /// Server: CPU time of all its threads, user and system.
    pub(crate) server_cpu_s: f64,
    pub(crate) server_cpu_us_per_operation: f64,
    /// Share of the server's cores that it used.
    pub(crate) server_busy: f64,
    pub(crate) client_cpu_us_per_operation: f64,
    /// From the (intended) start to the last byte, microseconds.
    pub(crate) latency_us: Latency,
    /// Open loop: messages that started late.
    pub(crate) operations_late: u64,
    /// Open loop: messages that could not be started.
    pub(crate) operations_not_started: u64,
    /// Share of the CPU time of the server's and the client's cores that neither of them used.
    pub(crate) foreign: f64,
    /// A cache line from the server's CPU to the client's, before and after, nanoseconds.
    pub(crate) distance_ns: [f64; 2],
    /// What went wrong on connections.
    pub(crate) failure: Option<String>,
}

/// Counters at one moment.
struct Reading {
    cpu: CpuTimes,
    idle: IdleTime,
    time: Instant,
    client: Duration,
}

/// What was used between two readings, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) server: f64,
    client: f64,
    wall: f64,
    idle: f64,
}

/// Measures one contender once. `rate`: messages per second of the open loop.
pub(crate) fn measure(
    server: &mut Running,
    scenario: Scenario,
    rate: Option<u32>,
    setup: &Setup,
) -> anyhow::Result<Turn> {
    let distance_before = distance_of(setup)?;
    let (start, cpus) = (Instant::now(), all_cpus(setup));
    let (mut used, mut reports) = (Used::default(), Vec::new());
    loop {
        let result = run_once(server, scenario, rate, setup, &cpus);
        server.check()?;
        let (report, part) = result?;
        used.add(part);
        let failed = report.failure().is_some();
        reports.push(report);
        if !scenario.is_repeated() || failed || start.elapsed() >= setup.duration {
            break;
        }
    }
    let elapsed = reports.iter().map(|report| report.elapsed_s).sum();
    let report = Report::sum("turn", server.address, elapsed, reports);
    Ok(turn(server, &report, used, [distance_before, distance_of(setup)?], cpus.len()))
}

/// One run of the client in a scenario, and what was used.
fn run_once(
    server: &Running,
    scenario: Scenario,
    rate: Option<u32>,
    setup: &Setup,
    cpus: &CpuSet,
) -> anyhow::Result<(Report, Used)> {
    let held = match scenario {
        Scenario::Backlog { .. } => Some(server.hold()?),
        _ => None,
    };
    observe(server, cpus, held, |observer| run_client(server, scenario, rate, setup, observer))
}

/// One run of a client, and what was used from its start, at which the server is let go if it was held, to
/// its end.
pub(crate) fn observe(
    server: &Running,
    cpus: &CpuSet,
    held: Option<Held>,
    client: impl FnOnce(&load::Observer<'_>) -> Result<Report, load::Error>,
) -> anyhow::Result<(Report, Used)> {
    let (held, pid) = (Mutex::new(held), server.pid());
    let readings = Mutex::new(Vec::new());
    let observer = |moment| {
        let reading = Reading::take(pid, cpus, moment == Moment::End);
        readings.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
        // Lets it go, if it was held.
        drop(held.lock().unwrap_or_else(PoisonError::into_inner).take());
    };
    let report = client(&observer)?;
    let mut readings = readings.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter();
    let (before, after) =
        readings.next().zip(readings.next()).context("the observer was told of the start and the end")?;
    Ok((report, before?.until(&after?)))
}

fn run_client(
    server: &Running,
    scenario: Scenario,
    rate: Option<u32>,
    setup: &Setup,
    observer: &load::Observer<'_>,
) -> Result<Report, load::Error> {
    let (size, connections, depth) = match scenario {
        Scenario::Connect { echo } => {
            let options = ConnectOptions {
                echo,
                spin: setup.spin,
                limit: Limit::Duration(setup.duration),
                cores: setup.client_cores.clone(),
                timeout: setup.timeout,
                ..ConnectOptions::new(server.address)
            };
            return connect::run_observed(&options, observer);
        }
        Scenario::Backlog { connections } => {
            let core = setup.client_cores.first().copied().unwrap_or_default();
            let options =
                BacklogOptions { address: server.address, connections, core, timeout: setup.timeout };
            return backlog::run_observed(&options, observer);
        }
        Scenario::Echo { size, connections, depth, .. } => (size, connections, depth),
        Scenario::Open { .. } | Scenario::Memory => (OPEN.0, OPEN.1, 1),
    };
    let limit = match scenario {
        Scenario::Echo { count: Some(count), .. } => Limit::Count(count.into()),
        _ => Limit::Duration(setup.duration),
    };
    let options = EchoOptions {
        connections,
        size,
        depth,
        rate,
        spin: setup.spin,
        limit,
        cores: setup.client_cores.clone(),
        timeout: setup.timeout,
        ..EchoOptions::new(server.address)
    };
    echo::run_observed(&options, observer)
}

fn turn(server: &Running, report: &Report, used: Used, distances: [Duration; 2], cpus: usize) -> Turn {
    let per_operation = |seconds: f64| seconds * 1e6 / report.counts.operations.max(1) as f64;
    Turn {
        contender: server.name.clone(),
        operations: report.counts.operations,
        elapsed_s: report.elapsed_s,
        rate_per_s: report.rate_per_s,
        server_cpu_s: used.server,
        server_cpu_us_per_operation: per_operation(used.server),
        server_busy: used.server / report.elapsed_s.max(1e-9),
        client_cpu_us_per_operation: per_operation(report.client_cpu_s),
        latency_us: report.latency_us,
        operations_late: report.counts.operations_late,
        operations_not_started: report.counts.operations_not_started,
        foreign: used.foreign(cpus),
        distance_ns: distances.map(|distance| distance.as_secs_f64() * 1e9),
        failure: report.failure(),
    }
}

impl Used {
    /// Share of the time of so many CPUs that neither server nor client used.
    pub(crate) fn foreign(&self, cpus: usize) -> f64 {
        let wall = self.wall * cpus as f64;
        ((wall - self.idle - self.server - self.client) / wall.max(1e-9)).max(0.0)
    }

    fn add(&mut self, other: Self) {
        self.server += other.server;
        self.client += other.client;
        self.wall += other.wall;
        self.idle += other.idle;
    }
}

impl Reading {
    fn until(&self, after: &Self) -> Used {
        Used {
            server: after.cpu.since(&self.cpu).as_secs_f64(),
            client: after.client.saturating_sub(self.client).as_secs_f64(),
            wall: (after.time - self.time).as_secs_f64(),
            idle: after.idle.since(self.idle).as_secs_f64(),
        }
    }

    /// With `settle` the server's CPU time is waited for until it stands still.
    fn take(pid: i32, cpus: &CpuSet, settle: bool) -> anyhow::Result<Self> {
        let (time, idle, client) = (Instant::now(), IdleTime::read(cpus)?, own_cpu_time());
        let mut cpu = CpuTimes::read(pid)?;
        for _ in 0..if settle { SETTLING.0 } else { 0 } {
            thread::sleep(SETTLING.1);
            let now = CpuTimes::read(pid)?;
            let still = now.since(&cpu).is_zero();
            cpu = now;
            if still {
                break;
            }
        }
        Ok(Self { cpu, idle, time, client })
    }
}

/// CPU time of this process.
fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn distance_of(setup: &Setup) -> anyhow::Result<Duration> {
    let client = setup.client_cores.first().context("no client core")?;
    distance::measure(setup.server_cpu()?, *client)
}

fn all_cpus(setup: &Setup) -> CpuSet {
    setup.server_cores.iter().chain(setup.client_cores.iter().copied()).collect()
}
