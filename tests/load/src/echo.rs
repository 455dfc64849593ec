//! `load echo` and `load udp`: messages to and fro, with verification.
//!
//! Closed loop: every connection keeps `depth` messages under way and starts the next one when one came back.
//! Open loop ([`EchoOptions::rate`]): the messages start at times that were fixed before, and that do not
//! depend on what came back. The connections are dealt out to the threads one by one and opened by their
//! thread, so that on a network with flow-to-CPU steering each CPU opens its share. The clock starts when all
//! connections are open.

use std::net::SocketAddr;
use std::time::Duration;

use tune::cpu_set::Cpu;

use crate::arrivals::Spacing;
use crate::datagrams::Datagrams;
use crate::echo_client::EchoClient;
use crate::flow::Flow;
use crate::pattern::Pattern;
use crate::report::Report;
use crate::sources::Sources;
use crate::stats::ThreadStats;
use crate::stream::Stream;
use crate::threads::{allowed_cpus, run_pinned};
use crate::{Error, Limit, Moment, Observer, limits};

/// What carries the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// A stream for each connection.
    #[default]
    Tcp,
    /// A datagram for each message, from a socket for each "connection". One that is not back within the
    /// timeout is lost.
    Udp,
}

/// What to do. `EchoOptions { connections: 1000, ..EchoOptions::new(address) }`
#[derive(Debug, Clone)]
pub struct EchoOptions {
    /// The server.
    pub address: SocketAddr,
    /// What carries the messages.
    pub transport: Transport,
    /// Connections in all; [`limits::CONNECTIONS`].
    pub connections: u32,
    /// Bytes of a message; [`limits::SIZE`], or [`limits::DATAGRAM`].
    pub size: u32,
    /// Messages under way at once on each connection; [`limits::DEPTH`].
    pub depth: u32,
    /// Open loop: this many messages per second in all, in turn on the connections. One whose connection has
    /// `depth` messages under way starts late, when one of them came back, and its time counts from when it
    /// should have started. [`limits::RATE`]; only with a limit of duration.
    pub rate: Option<u32>,
    /// Open loop: how the starts are spread.
    pub arrivals: Spacing,
    /// Where the connections come from, in turn; none: where the kernel chooses.
    pub sources: Option<Sources>,
    /// The threads ask for events until there are some, instead of sleeping, so that their waking up is in no
    /// time.
    pub spin: bool,
    /// When to end.
    pub limit: Limit,
    /// Each connection is closed when its messages are back, not when those of all are: a server that serves
    /// one connection at a time comes to the next. Without a limit of count it changes nothing.
    pub close_each: bool,
    /// CPUs to which the threads are pinned, one each; empty: every CPU this process may use.
    pub cores: Vec<Cpu>,
    /// A run in which nothing happens for this long ends; what has not come back by then is lost. UDP: how
    /// long a datagram is waited for. [`limits::TIME`], as a duration in `limit`.
    pub timeout: Duration,
    /// A line on standard error says how far the run is.
    pub progress: bool,
}

impl EchoOptions {
    /// TCP, one connection, 64 bytes, depth 1, one second, all CPUs, 10 s timeout.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::Tcp,
            connections: 1,
            size: 64,
            depth: 1,
            rate: None,
            arrivals: Spacing::Uniform,
            sources: None,
            spin: false,
            limit: Limit::Duration(Duration::from_secs(1)),
            close_each: false,
            cores: Vec::new(),
            timeout: Duration::from_secs(10),
            progress: false,
        }
    }

    fn check(&self) -> Result<(), Error> {
        limits::check("--connections", self.connections, &limits::CONNECTIONS)?;
        let sizes = match self.transport {
            Transport::Tcp => limits::SIZE,
            Transport::Udp => limits::DATAGRAM,
        };
        limits::check("--size", self.size, &sizes)?;
        limits::check("--depth", self.depth, &limits::DEPTH)?;
        limits::check_limit(self.limit)?;
        limits::check_rate(self.rate, self.limit)?;
        limits::check_sources(self.sources.as_ref(), self.address)?;
        limits::check_time("--timeout", self.timeout)
    }
}

/// Opens the connections, exchanges messages until the limit, closes. Blocks until it is over.
///
/// # Errors
/// If an option is out of its range, a thread cannot be pinned, or io_uring fails. What goes wrong on a
/// connection is in the report: see [`Report::failure`].
pub fn run(options: &EchoOptions) -> Result<Report, Error> {
    run_observed(options, &|_| {})
}

/// As [`run`], with an observer of the exchange.
///
/// # Errors
/// As [`run`].
pub fn run_observed(options: &EchoOptions, observer: &Observer<'_>) -> Result<Report, Error> {
    options.check()?;
    let (mode, threads) = match options.transport {
        Transport::Tcp => ("echo", run_flows::<Stream>(options, observer)?),
        Transport::Udp => ("udp", run_flows::<Datagrams>(options, observer)?),
    };
    let mut report = Report::new(mode, options.address, threads);
    report.rate_asked_per_s = options.rate;
    report.arrivals = options.rate.map(|_| options.arrivals);
    Ok(report)
}

fn run_flows<F: Flow>(options: &EchoOptions, observer: &Observer<'_>) -> Result<Vec<ThreadStats>, Error> {
    let cores = if options.cores.is_empty() { allowed_cpus()? } else { options.cores.clone() };
    let pattern = Pattern::default();
    let server = options.address.into();
    run_pinned(&cores, options.progress, |worker| {
        let mut client = EchoClient::<F>::new(options, &pattern, &server, worker, cores.len())?;
        client.open()?;
        let start = worker.observe(observer, Moment::Start)?;
        client.exchange(start)?;
        worker.observe(observer, Moment::End)?;
        client.close()
    })
}
