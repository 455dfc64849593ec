//! `load connect`: connections per second.
//!
//! Every thread keeps a few connections opening. One that is established (and, with `echo`, has got one message
//! back) is closed by RST, so that no port waits in TIME_WAIT, and the next one is started.

use std::net::SocketAddr;
use std::time::Duration;

use tune::cpu_set::Cpu;

use crate::connect_client::ConnectClient;
use crate::pattern::Pattern;
use crate::report::Report;
use crate::threads::{allowed_cpus, run_pinned};
use crate::{Error, Limit, Moment, Observer, limits};

/// What to do.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The server.
    pub address: SocketAddr,
    /// Exchange one message of 64 bytes before closing.
    pub echo: bool,
    /// The threads ask for events until there are some, instead of sleeping.
    pub spin: bool,
    /// When to end.
    pub limit: Limit,
    /// CPUs to which the threads are pinned, one each; empty: every CPU this process may use.
    pub cores: Vec<Cpu>,
    /// Connections under way at once on each thread; [`limits::PARALLEL`].
    pub parallel: u32,
    /// A run in which nothing happens for this long ends; connections still under way have failed.
    /// [`limits::TIME`], as a duration in `limit`.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// No message, one second, all CPUs, 16 at once on each, 10 s timeout.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            echo: false,
            spin: false,
            limit: Limit::Duration(Duration::from_secs(1)),
            cores: Vec::new(),
            parallel: 16,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Makes and closes connections until the limit. Blocks until it is over.
///
/// # Errors
/// If an option is out of its range, a thread cannot be pinned, or epoll fails. What goes wrong on a connection
/// is in the report: see [`Report::failure`].
pub fn run(options: &ConnectOptions) -> Result<Report, Error> {
    run_observed(options, &|_| {})
}

/// As [`run`], with an observer.
///
/// # Errors
/// As [`run`].
pub fn run_observed(options: &ConnectOptions, observer: &Observer<'_>) -> Result<Report, Error> {
    limits::check("--parallel", options.parallel, &limits::PARALLEL)?;
    limits::check_limit(options.limit)?;
    limits::check_time("--timeout", options.timeout)?;
    let cores = if options.cores.is_empty() { allowed_cpus()? } else { options.cores.clone() };
    let pattern = Pattern::default();
    let threads = run_pinned(&cores, |worker| {
        let client = ConnectClient::new(options, &pattern, worker, cores.len() as u64)?;
        let start = worker.observe(observer, Moment::Start)?;
        let stats = client.run(start)?;
        worker.observe(observer, Moment::End)?;
        Ok(stats)
    })?;
    Ok(Report::new("connect", options.address, threads))
}
