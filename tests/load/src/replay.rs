//! `load replay-article`: the two workloads with which the classic article on SO_REUSEPORT and locality was measured.
//!
//! `accept`: processes that each connect and reset a million times, to see how a server with a listener shared by its processes
//! differs from one with a listener for each core. `exchange`: 1000 clients that each send and get back 10 messages of 512 KiB,
//! of which those are counted that failed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tune::cpu_set::Cpu;

use crate::echo::EchoOptions;
use crate::report::{Report, add_errors};
use crate::threads::allowed_cpus;
use crate::{Error, Limit, limits};

/// Clients of the exchange, messages of each, and bytes of a message.
pub const EXCHANGE: (u32, u64, u32) = (1000, 10, 512 * 1024);

/// Connections that each process makes.
pub const ACCEPT: u64 = 1_000_000;

/// The processes that connect and reset.
#[derive(Debug, Clone)]
pub struct AcceptOptions {
    /// The server.
    pub address: SocketAddr,
    /// How many; [`limits::PROCESSES`].
    pub processes: u32,
    /// Connections of each.
    pub count: u64,
    /// CPUs to which they are pinned in turn; empty: every CPU this process may use.
    pub cores: Vec<Cpu>,
    /// A process in which nothing happens for this long ends.
    pub timeout: Duration,
    /// The `load` program.
    pub program: PathBuf,
}

/// Starts the processes and waits for all of them. The percentiles are those of the process in which each was worst.
///
/// # Errors
/// If an option is out of its range, or a process can't be started or gives no report.
pub fn accept(options: &AcceptOptions) -> Result<Report, Error> {
    limits::check("--processes", options.processes, &limits::PROCESSES)?;
    limits::check_limit(Limit::Count(options.count))?;
    let cores = if options.cores.is_empty() { allowed_cpus()? } else { options.cores.clone() };
    let start = Instant::now();
    let processes: Vec<Process> = (0..options.processes)
        .zip(cores.iter().cycle())
        .map(|(_, &cpu)| Process::start(options, cpu))
        .collect::<Result<_, _>>()?;
    let mut sum = Report::empty("replay-article accept", options.address);
    for process in processes {
        merge(&mut sum, process.finish()?);
    }
    sum.elapsed_s = start.elapsed().as_secs_f64();
    sum.conclude();
    Ok(sum)
}

/// The options of the exchange.
#[must_use]
pub fn exchange_options(address: SocketAddr) -> EchoOptions {
    let (connections, count, size) = EXCHANGE;
    EchoOptions { connections, size, limit: Limit::Count(count), ..EchoOptions::new(address) }
}

/// A running process; killed if it is dropped before it has ended.
struct Process(Child);

impl Process {
    /// One connection at a time, as the article's client.
    fn start(options: &AcceptOptions, cpu: Cpu) -> Result<Self, Error> {
        let timeout = format!("{}ms", options.timeout.as_millis());
        let child = Command::new(&options.program)
            .args(["connect", "--json", "--parallel", "1", "--timeout", &timeout])
            .args(["--connect", &options.address.to_string()])
            .args(["--count", &options.count.to_string(), "--cores", &cpu.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let failed =
            |error| Error::Process { operation: format!("start {}", options.program.display()), error };
        child.map(Self).map_err(failed)
    }

    fn finish(mut self) -> Result<Report, Error> {
        let operation = format!("report of process {}", self.0.id());
        let report = self.0.stdout.take().ok_or_else(|| io::Error::other("it has no standard output"));
        let report = report.and_then(|out| serde_json::from_reader(out).map_err(io::Error::from));
        let waited = self.0.wait();
        report.and_then(|report| waited.map(|_| report)).map_err(|error| Error::Process { operation, error })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // ESRCH and ECHILD: it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn merge(sum: &mut Report, part: Report) {
    sum.connections += part.connections;
    sum.operations += part.operations;
    sum.operations_missing += part.operations_missing;
    sum.connections_failed += part.connections_failed;
    sum.client_cpu_s += part.client_cpu_s;
    add_errors(&mut sum.connect_errors, &part.connect_errors);
    add_errors(&mut sum.io_errors, &part.io_errors);
    sum.latency_us = sum.latency_us.worst(&part.latency_us);
    sum.threads.extend(part.threads);
}
