//! The clients.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use load::connect::{self, ConnectOptions};
use load::echo::{self, EchoOptions};
use load::report::Report;
use load::{Limit, Observer, replay};
use serde::Serialize;
use tune::cpu_set::Cpu;

/// Connections under way at once: the article's processes, each with one.
const AT_ONCE: u32 = 48;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// Connect and reset, for so long.
    Accept { duration: Duration },
    /// `load replay-article exchange`, by so many clients.
    Echo { clients: u32 },
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept { duration } => {
                let seconds = duration.as_secs_f64();
                write!(f, "accept: connections made and reset, {AT_ONCE} at once, for {seconds} s")
            }
            Self::Echo { clients } => {
                let (_, count, size) = replay::EXCHANGE;
                write!(f, "echo: {clients} clients, each with {count} messages of {} KiB", size / 1024)
            }
        }
    }
}

impl Workload {
    /// What is counted.
    pub(crate) fn operations(self) -> &'static str {
        match self {
            Self::Accept { .. } => "accepts",
            Self::Echo { .. } => "messages",
        }
    }

    /// Runs it from these CPUs.
    pub(crate) fn run(
        self,
        address: SocketAddr,
        cores: &[Cpu],
        observer: &Observer<'_>,
    ) -> Result<Report, load::Error> {
        let cores = cores.to_vec();
        match self {
            Self::Accept { duration } => {
                let threads = u32::try_from(cores.len()).unwrap_or(u32::MAX);
                let parallel = AT_ONCE.div_ceil(threads.max(1));
                let limit = Limit::Duration(duration);
                let options = ConnectOptions { cores, parallel, limit, ..ConnectOptions::new(address) };
                connect::run_observed(&options, observer)
            }
            Self::Echo { clients } => {
                let options = replay::exchange_options(address);
                let options = EchoOptions { cores, connections: clients, ..options };
                echo::run_observed(&options, observer)
            }
        }
    }
}
