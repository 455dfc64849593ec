//! `load connect`: connections per second.
//!
//! Every thread keeps a few connections opening. One that is established (and, with `echo`, has got one
//! message back) is closed, and the next one is started.

use std::net::SocketAddr;
use std::time::Duration;

use tune::cpu_set::Cpu;

use crate::connect_client::ConnectClient;
use crate::pattern::Pattern;
use crate::report::Report;
use crate::sources::Sources;
use crate::threads::{allowed_cpus, run_pinned};
use crate::{Error, Limit, Moment, Observer, limits};

/// How a connection is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Close {
    /// By RST: no TIME_WAIT keeps its port.
    #[default]
    Reset,
    /// By FIN: its port is in TIME_WAIT for a minute; the server sees the end of the stream.
    Fin,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The server.
    pub address: SocketAddr,
    /// Exchange one message of 64 bytes before closing.
    pub echo: bool,
    /// How to close.
    pub close: Close,
    /// Where the connections come from, in turn. None: where the kernel chooses; but from all of 127.0.0.0/8
    /// if the server is in it and connections are closed by FIN.
    pub sources: Option<Sources>,
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
    /// A line on standard error says how far the run is.
    pub progress: bool,
}

impl ConnectOptions {
    /// No message, close by reset, one second, all CPUs, 16 at once on each, 10 s timeout.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            echo: false,
            close: Close::Reset,
            sources: None,
            spin: false,
            limit: Limit::Duration(Duration::from_secs(1)),
            cores: Vec::new(),
            parallel: 16,
            timeout: Duration::from_secs(10),
            progress: false,
        }
    }

    fn check(&self) -> Result<(), Error> {
        limits::check("--parallel", self.parallel, &limits::PARALLEL)?;
        limits::check_limit(self.limit)?;
        limits::check_sources(self.sources.as_ref(), self.address)?;
        limits::check_time("--timeout", self.timeout)
    }

    fn effective_sources(&self) -> Option<Sources> {
        let in_loopback = self.address.is_ipv4() && self.address.ip().is_loopback();
        let spread = self.close == Close::Fin && in_loopback;
        self.sources.clone().or_else(|| spread.then(Sources::loopback))
    }
}

/// Makes and closes connections until the limit. Blocks until it is over.
///
/// # Errors
/// If an option is out of its range, a thread cannot be pinned, or io_uring fails. What goes wrong on a
/// connection is in the report: see [`Report::failure`].
pub fn run(options: &ConnectOptions) -> Result<Report, Error> {
    run_observed(options, &|_| {})
}

/// As [`run`], with an observer.
///
/// # Errors
/// As [`run`].
pub fn run_observed(options: &ConnectOptions, observer: &Observer<'_>) -> Result<Report, Error> {
    options.check()?;
    let options = &ConnectOptions { sources: options.effective_sources(), ..options.clone() };
    let cores = if options.cores.is_empty() { allowed_cpus()? } else { options.cores.clone() };
    let pattern = Pattern::default();
    let server = options.address.into();
    let threads = run_pinned(&cores, options.progress, |worker| {
        let client = ConnectClient::new(options, &pattern, &server, worker, cores.len() as u64)?;
        let start = worker.observe(observer, Moment::Start)?;
        let stats = client.run(start)?;
        worker.observe(observer, Moment::End)?;
        Ok(stats)
    })?;
    Ok(Report::new("connect", options.address, threads))
}
