//! `load echo`: ping-pong with verification.
//!
//! Closed loop: every connection keeps `depth` messages under way and starts the next one when one came back. Open loop
//! (`rate`): the messages start at times that were fixed before, and that do not depend on what came back.
//! The connections are dealt out to the threads one by one and opened by their thread, so that on a network with
//! flow-to-CPU steering each CPU opens its share. The clock starts when all connections are open.

use std::net::SocketAddr;
use std::time::Duration;

use tune::cpu_set::Cpu;

use crate::echo_client::EchoClient;
use crate::pattern::Pattern;
use crate::report::Report;
use crate::threads::{allowed_cpus, run_pinned};
use crate::{Error, Limit, Moment, Observer, limits};

/// What to do. `EchoOptions { connections: 1000, ..EchoOptions::new(address) }`
#[derive(Debug, Clone)]
pub struct EchoOptions {
    /// The server.
    pub address: SocketAddr,
    /// Connections in all; [`limits::CONNECTIONS`].
    pub connections: u32,
    /// Bytes of a message; [`limits::SIZE`].
    pub size: u32,
    /// Messages under way at once on each connection; [`limits::DEPTH`].
    pub depth: u32,
    /// Open loop: this many messages per second in all, at equal distances in time and in turn on the connections. One
    /// whose connection has `depth` messages under way starts late, when one of them came back, and its time counts from
    /// when it should have started. [`limits::RATE`]; only with a limit of duration.
    pub rate: Option<u32>,
    /// The threads ask for events until there are some, instead of sleeping, so that their waking up is in no time.
    pub spin: bool,
    /// When to end.
    pub limit: Limit,
    /// CPUs to which the threads are pinned, one each; empty: every CPU this process may use.
    pub cores: Vec<Cpu>,
    /// A run in which nothing happens for this long ends; what has not come back by then is lost.
    /// [`limits::TIME`], as a duration in `limit`.
    pub timeout: Duration,
}

impl EchoOptions {
    /// One connection, 64 bytes, depth 1, one second, all CPUs, 10 s timeout.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 1,
            size: 64,
            depth: 1,
            rate: None,
            spin: false,
            limit: Limit::Duration(Duration::from_secs(1)),
            cores: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }

    fn check(&self) -> Result<(), Error> {
        limits::check("--connections", self.connections, &limits::CONNECTIONS)?;
        limits::check("--size", self.size, &limits::SIZE)?;
        limits::check("--depth", self.depth, &limits::DEPTH)?;
        limits::check_limit(self.limit)?;
        limits::check_rate(self.rate, self.limit)?;
        limits::check_time("--timeout", self.timeout)
    }
}

/// Opens the connections, exchanges messages until the limit, closes. Blocks until it is over.
///
/// # Errors
/// If an option is out of its range, a thread cannot be pinned, or epoll fails. What goes wrong on a connection
/// is in the report: see [`Report::failure`].
pub fn run(options: &EchoOptions) -> Result<Report, Error> {
    run_observed(options, &|_| {})
}

/// As [`run`], with an observer of the exchange.
///
/// # Errors
/// As [`run`].
pub fn run_observed(options: &EchoOptions, observer: &Observer<'_>) -> Result<Report, Error> {
    options.check()?;
    let cores = if options.cores.is_empty() { allowed_cpus()? } else { options.cores.clone() };
    let pattern = Pattern::default();
    let threads = run_pinned(&cores, |worker| {
        let mut client = EchoClient::new(options, &pattern, worker, cores.len())?;
        client.open()?;
        let start = worker.observe(observer, Moment::Start)?;
        client.exchange(start)?;
        worker.observe(observer, Moment::End)?;
        client.close()
    })?;
    let mut report = Report::new("echo", options.address, threads);
    report.rate_asked_per_s = options.rate;
    Ok(report)
}
