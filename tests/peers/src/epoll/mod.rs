//! The peer `epoll`: an echo server with one epoll, one listener and one pinned thread per core.
//!
//! It does what `server` does with io_uring: echoes what comes, stops reading from who does not read, ends a connection
//! that the peer half-closed when everything has gone back, resets at once with `--mode accept-close`. What can be spared is
//! spared: options are inherited from the listener, not set per connection; a connection is added to the epoll once and
//! changed only when its peer does not read; a message costs one `epoll_wait` (shared by all that are ready), one `recv`
//! and one `send`.

mod connection;
mod listener;
mod worker;

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum, value_parser};
use tune::affinity;
use tune::cpu_set::{Cpu, CpuSet, CpuSetError};

use self::worker::{Settings, Worker};

/// The epoll peer's options.
#[derive(Debug, Args)]
pub struct EpollArgs {
    /// Address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// CPUs to run on, one thread pinned to each, such as 0-3,8 [default: every CPU allowed].
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cores: Option<Cores>,
    /// What to do with a connection.
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
    /// How epoll tells of what can be read.
    #[arg(long, value_enum, default_value = "edge")]
    trigger: Trigger,
    /// Bytes of each thread's receive buffer, 64 to 16777216.
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = value_parser!(u32).range(64..=1 << 24))]
    buffer_size: u32,
    /// Length of each listener's accept queue, 1 to 65535; the kernel caps it at net.core.somaxconn.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = value_parser!(u16).range(1..))]
    backlog: u16,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Send back what comes.
    Echo,
    /// Reset it as soon as it is accepted.
    AcceptClose,
}

/// How epoll tells of what can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Trigger {
    /// As long as there is something; what is watched changes when a peer does not read.
    Level,
    /// When something new has come; what is watched never changes.
    Edge,
}

/// A CPU list in the order in which it was written.
#[derive(Debug, Clone)]
struct Cores(Vec<Cpu>);

fn cpus(text: &str) -> Result<Cores, CpuSetError> {
    CpuSet::parse_ordered(text).map(Cores)
}

/// Runs the server until a signal ends the process.
///
/// # Errors
/// If it cannot listen, or a worker fails.
pub fn run(args: &EpollArgs) -> anyhow::Result<()> {
    load::open_files::raise_limit()?;
    let cores = match &args.cores {
        Some(Cores(cores)) => cores.clone(),
        None => affinity::allowed().context("sched_getaffinity")?.iter().collect(),
    };
    let mut address = args.listen;
    let mut threads = Vec::new();
    for &cpu in &cores {
        let listener = listener::listen(address, args.mode, args.backlog)?;
        // Port 0 is chosen once, for all.
        address.set_port(listener::port(&listener)?);
        let settings =
            Settings { mode: args.mode, trigger: args.trigger, buffer_size: args.buffer_size as usize };
        let worker = Worker::new(listener, settings)?;
        let thread = thread::Builder::new().name(format!("epoll-{cpu}"));
        let body = move || -> anyhow::Result<()> {
            affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"))?;
            worker.run().with_context(|| format!("core {cpu}"))
        };
        threads.push(thread.spawn(body).context("start a thread")?);
    }
    let cores: CpuSet = cores.into_iter().collect();
    // A standard error that is gone does not stop the server.
    let _ = writeln!(std::io::stderr(), "epoll: listening on {address}, cores {cores}");
    threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a worker panicked"))?)
}
