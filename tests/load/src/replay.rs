//! `load replay-article`: the two workloads with which the classic article on SO_REUSEPORT and locality was
//! measured.
//!
//! `accept`: processes that each connect and reset a million times, to see how a server with a listener
//! shared by its processes differs from one with a listener for each core. `exchange`: 1000 clients that each
//! send and get back 10 messages of 512 KiB, of which those are counted that failed.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tune::cpu_set::Cpu;

use crate::echo::EchoOptions;
use crate::report::Report;
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
    /// The `load` program, with its path, and what goes before its own arguments.
    pub program: Vec<OsString>,
}

/// Starts the processes and waits for all of them. What they say on standard error comes out on this
/// process's.
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
    let reports: Vec<Report> = processes.into_iter().map(Process::finish).collect::<Result<_, _>>()?;
    let elapsed = start.elapsed().as_secs_f64();
    Ok(Report::sum("replay-article accept", options.address, elapsed, reports))
}

/// The options of the exchange. Each client closes when it has its messages, so that a server that serves one
/// at a time comes to the next.
#[must_use]
pub fn exchange_options(address: SocketAddr) -> EchoOptions {
    let (connections, count, size) = EXCHANGE;
    let limit = Limit::Count(count);
    EchoOptions { connections, size, limit, close_each: true, ..EchoOptions::new(address) }
}

/// A running process; killed if it is dropped before it has ended.
struct Process {
    child: Child,
    /// Passes on what it says.
    said: Option<JoinHandle<()>>,
}

impl Process {
    /// One connection at a time, as the article's client.
    fn start(options: &AcceptOptions, cpu: Cpu) -> Result<Self, Error> {
        let timeout = format!("{}ms", options.timeout.as_millis());
        let name = || options.program.first().cloned().unwrap_or_default();
        let mut child = Command::new(name())
            .args(options.program.iter().skip(1))
            .args(["connect", "--json", "--histogram", "--parallel", "1", "--timeout", &timeout])
            .args(["--connect", &options.address.to_string()])
            .args(["--count", &options.count.to_string(), "--cores", &cpu.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Process { operation: format!("start {}", name().display()), error })?;
        let id = child.id();
        let said = child.stderr.take().map(|said| {
            let lines = BufReader::new(said).lines().map_while(Result::ok);
            thread::spawn(move || lines.for_each(|line| eprintln!("load: process {id} on CPU {cpu}: {line}")))
        });
        Ok(Self { child, said })
    }

    fn finish(mut self) -> Result<Report, Error> {
        let operation = format!("report of process {}", self.child.id());
        let report = self.child.stdout.take().ok_or_else(|| io::Error::other("it has no standard output"));
        let report = report.and_then(|out| serde_json::from_reader(out).map_err(io::Error::from));
        let waited = self.child.wait();
        report.and_then(|report| waited.map(|_| report)).map_err(|error| Error::Process { operation, error })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // ESRCH and ECHILD: it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said.take().map(JoinHandle::join);
    }
}
