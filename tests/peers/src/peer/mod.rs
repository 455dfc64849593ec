//! The peers: what a user would pick instead of `server`.
//!
//! All of them do what `server` does: they echo what comes, stop reading from who does not read, and with
//! `--mode accept-close` reset a connection as soon as it is accepted. What their own documentation does per
//! connection and a listener can do once, the listener does: see [`listener`].
//!
//! * [`epoll`]: one epoll, one listener and one pinned thread per core, by hand;
//! * [`blocking`]: one process per core with blocking calls, as in the textbooks;
//! * [`bare`]: not a peer but what is left to gain;
//! * [`proxy`]: nginx and haproxy where they are installed, which accept and close;
//! * `tokio`, `monoio`, `compio`, `glommio`: with the feature `all-peers`.

pub(crate) mod bare;
pub(crate) mod blocking;
#[cfg(feature = "all-peers")]
pub(crate) mod compio;
pub(crate) mod epoll;
#[cfg(feature = "all-peers")]
pub(crate) mod glommio;
pub(crate) mod listener;
#[cfg(feature = "all-peers")]
pub(crate) mod monoio;
mod processes;
pub(crate) mod proxy;
#[cfg(feature = "all-peers")]
pub(crate) mod tokio;

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum, value_parser};
use tune::affinity;
use tune::cpu_set::{Cpu, CpuSet};

use crate::cores::Cores;

/// Options of every peer.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerArgs {
    /// Address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7001")]
    pub(crate) listen: SocketAddr,
    /// CPUs to run on, one thread or process pinned to each, such as 0-3,8 [default: every CPU allowed].
    #[arg(long, value_name = "LIST", value_parser = Cores::parse)]
    cores: Option<Cores>,
    /// What to do with a connection.
    #[arg(long, value_enum, default_value = "echo")]
    pub(crate) mode: Mode,
    /// Length of each listener's accept queue, 1 to 65535; the kernel caps it at net.core.somaxconn.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = value_parser!(u16).range(1..))]
    pub(crate) backlog: u16,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Send back what comes.
    Echo,
    /// Reset it as soon as it is accepted.
    AcceptClose,
    /// Close it as soon as it is accepted, as close(2) does by itself: with FIN.
    AcceptFin,
}

/// Options of a peer that has a buffer for each connection.
#[cfg(feature = "all-peers")]
#[derive(Debug, Clone, Args)]
pub(crate) struct RuntimeArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    /// Bytes of each connection's buffer, 64 to 16777216. What is never filled is never resident, so the
    /// default costs small messages nothing.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024, value_parser = value_parser!(u32).range(64..=1 << 24))]
    buffer_size: u32,
}

#[cfg(feature = "all-peers")]
impl RuntimeArgs {
    /// What a worker is to do.
    pub(crate) fn settings(&self) -> Settings {
        Settings { mode: self.peer.mode, buffer_size: self.buffer_size as usize }
    }
}

/// What a worker with a buffer for each connection is to do.
#[cfg(feature = "all-peers")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) buffer_size: usize,
}

impl PeerArgs {
    /// The CPUs to run on.
    pub(crate) fn cores(&self) -> anyhow::Result<Vec<Cpu>> {
        match &self.cores {
            Some(Cores(cores)) => Ok(cores.clone()),
            None => Ok(affinity::allowed().context("sched_getaffinity")?.iter().collect()),
        }
    }
}

/// Runs `serve` with a listener of its own on a thread pinned to each core, until a signal ends the process
/// or one fails.
pub(crate) fn per_core(
    name: &str,
    args: &PeerArgs,
    serve: impl Fn(OwnedFd) -> anyhow::Result<()> + Clone + Send + 'static,
) -> anyhow::Result<()> {
    load::open_files::raise_limit()?;
    let cores = args.cores()?;
    let mut address = args.listen;
    let (ended, first) = mpsc::channel();
    for &cpu in &cores {
        let listener = listener::listen(address, args)?;
        // Port 0 is chosen once, for all.
        address.set_port(listener::port(&listener)?);
        let serve = serve.clone();
        let body = move || -> anyhow::Result<()> {
            affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"))?;
            serve(listener).with_context(|| format!("core {cpu}"))
        };
        let ended = ended.clone();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(body));
            // Who is not there any more has ended the process.
            let _ = ended.send(result.unwrap_or_else(|_| Err(anyhow!("core {cpu}: a worker panicked"))));
        };
        thread::Builder::new().name(format!("{name}-{cpu}")).spawn(run).context("start a thread")?;
    }
    say_listening(name, address, cores);
    first.recv().context("no worker has said how it ended")?
}

/// The line by which who started a peer knows that it accepts connections.
pub(crate) fn say_listening(name: &str, address: SocketAddr, cores: Vec<Cpu>) {
    let cores: CpuSet = cores.into_iter().collect();
    // A standard error that is gone does not stop the server.
    let _ = writeln!(std::io::stderr(), "{name}: listening on {address}, cores {cores}");
}
