//! `load chaos`: clients that misbehave, and well-behaved ones beside them that must not notice.
//!
//! Each behaviour runs on a thread of its own for the whole time. What comes back is verified wherever a
//! behaviour reads it: a slow reader, a byte-at-a-time writer and one that half-closes have a right to every
//! byte.

mod behaviours;
mod client;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tune::affinity;
use tune::cpu_set::Cpu;

use crate::arrivals::Spacing;
use crate::echo::{self, EchoOptions};
use crate::pattern::Pattern;
use crate::report::{Report, SCHEMA};
use crate::threads::allowed_cpus;
use crate::{Error, Limit, limits};
pub use client::Outcome;

/// What a client does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Sends as much as it can and reads 512 bytes every 10 ms; reads the rest at the end.
    SlowReader,
    /// Sends 64 KiB, half-closes, reads to the end; over and over.
    HalfClose,
    /// Sends half of a message of 64 KiB, reads a part of that, resets; over and over.
    ResetMidMessage,
    /// Opens connections and says nothing; at the end exchanges one message on each.
    IdleFlood,
    /// Opens connections and resets them, as fast as it goes, --connections at once.
    ConnectFlood,
    /// Sends its messages in segments of one byte, and reads one byte at a time.
    ByteAtATime,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// The server.
    pub address: SocketAddr,
    /// What is done wrong; empty: everything.
    pub behaviours: Vec<Behaviour>,
    /// Connections of each behaviour; [`limits::PARALLEL`].
    pub connections: u32,
    /// How long.
    pub duration: Duration,
    /// CPUs: the first for the well-behaved connections, the others for the behaviours in turn; empty: every
    /// CPU this process may use.
    pub cores: Vec<Cpu>,
    /// How long a connection may take to open, and its bytes to come back at the end.
    pub timeout: Duration,
    /// A line on standard error says how far the well-behaved connections are.
    pub progress: bool,
}

/// Well-behaved connections, and their messages per second in all.
const WELL_BEHAVED: (u32, u32) = (10, 1000);

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChaosReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `chaos`.
    pub mode: String,
    /// The server.
    pub address: SocketAddr,
    /// Each behaviour.
    pub behaviours: Vec<Outcome>,
    /// The connections beside them: 10 of them with 1000 messages per second in all, at random times.
    pub well_behaved: Report,
}

/// What a behaviour is given.
struct Context<'a> {
    address: SocketAddr,
    connections: u32,
    end: Instant,
    timeout: Duration,
    pattern: &'a Pattern,
}

/// Misbehaves for the duration. Blocks until it is over.
///
/// # Errors
/// If an option is out of its range, a thread can't be pinned, or io_uring fails.
pub fn run(options: &ChaosOptions) -> Result<ChaosReport, Error> {
    limits::check("--connections", options.connections, &limits::PARALLEL)?;
    limits::check_limit(Limit::Duration(options.duration))?;
    limits::check_time("--timeout", options.timeout)?;
    let cores = if options.cores.is_empty() { allowed_cpus()? } else { options.cores.clone() };
    let all = || Behaviour::value_variants().to_vec();
    let behaviours = if options.behaviours.is_empty() { all() } else { options.behaviours.clone() };
    let pattern = Pattern::default();
    let context = Context {
        address: options.address,
        connections: options.connections,
        end: Instant::now() + options.duration,
        timeout: options.timeout,
        pattern: &pattern,
    };
    let context = &context;
    let (outcomes, well_behaved) = thread::scope(|scope| {
        let start = |(&behaviour, &cpu): (&Behaviour, &Cpu)| {
            let work = move || {
                affinity::pin(cpu).map_err(|error| Error::Pin { cpu, error })?;
                behaviours::run(behaviour, context, cpu)
            };
            (cpu, scope.spawn(work))
        };
        // The well-behaved have the first core, for themselves if there are more.
        let others = if cores.len() > 1 { &cores[1..] } else { &cores[..] };
        let threads: Vec<_> = behaviours.iter().zip(others.iter().cycle()).map(start).collect();
        let well_behaved = echo::run(&well_behaved(options, &cores));
        let join = |(cpu, thread): (Cpu, thread::ScopedJoinHandle<'_, Result<Outcome, Error>>)| {
            thread.join().unwrap_or(Err(Error::Panicked(cpu)))
        };
        let outcomes: Result<Vec<_>, _> = threads.into_iter().map(join).collect();
        (outcomes, well_behaved)
    });
    Ok(ChaosReport {
        schema: SCHEMA,
        mode: "chaos".to_owned(),
        address: options.address,
        behaviours: outcomes?,
        well_behaved: Report { histogram_ns: Vec::new(), ..well_behaved? },
    })
}

fn well_behaved(options: &ChaosOptions, cores: &[Cpu]) -> EchoOptions {
    let (connections, rate) = WELL_BEHAVED;
    EchoOptions {
        connections,
        rate: Some(rate),
        arrivals: Spacing::Poisson,
        limit: Limit::Duration(options.duration),
        cores: cores[..1].to_vec(),
        timeout: options.timeout,
        progress: options.progress,
        ..EchoOptions::new(options.address)
    }
}

impl ChaosReport {
    /// What went wrong, in one line: lost and wrong bytes, and whatever the well-behaved connections met
    /// with. That a server closes a connection on which nothing is under way, or refuses one of a flood, is
    /// its right.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mut parts: Vec<_> = self.behaviours.iter().filter_map(Outcome::failure).collect();
        parts.extend(self.well_behaved.failure().map(|failure| format!("well-behaved: {failure}")));
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Prints the report for people.
    ///
    /// # Errors
    /// If writing fails.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.behaviours.iter().try_for_each(|outcome| outcome.print(out))?;
        writeln!(out, "well-behaved connections beside them:")?;
        self.well_behaved.print(out)
    }
}
