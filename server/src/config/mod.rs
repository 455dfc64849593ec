//! What the server is to do, from what is asked to what is checked. Pure.
//!
//! ```text
//! command line ─ clap ──┐
//!                       ├─ Options ─ merge ─ check ─ Config
//! file ─ toml ─ file ───┘  (values)          (contradictions)
//! ```
//!
//! The values of [`Options`] ([`values`]) refuse what is out of range while they are read, so that clap names
//! the option and [`mod@file`] the line; [`Options::check`] refuses what does not go together.

mod check;
pub mod file;
mod in_force;
mod options;
mod text;
pub mod values;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tune::cpu_set::{Cpu, CpuSet, CpuSetError};

pub use check::Contradiction;
pub use options::Options;

/// How a SYN finds its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steer {
    /// By the CPU that processes the SYN: its connection is accepted there. A CPU outside --cores uses the
    /// hash.
    Cpu,
    /// By the hash of addresses and ports, as the kernel does for plain SO_REUSEPORT.
    Hash,
    /// As `cpu`, until one core gets far more connections than the others; then, once and for all, as `hash`.
    Auto,
}

impl Steer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Hash => "hash",
            Self::Auto => "auto",
        }
    }
}

/// What the server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Sends back what it receives.
    Echo,
    /// Receives and sends nothing.
    Discard,
    /// Resets each connection as soon as it is accepted: the benchmark of accepting.
    AcceptClose,
    /// Answers each --request-size bytes received with --response-size bytes.
    SinkSource,
}

/// Who accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptModel {
    /// Each core accepts on its own listening socket (SO_REUSEPORT), chosen by --steer.
    PerCore,
    /// All cores accept on one listening socket, as servers that fork do.
    Shared,
    /// The first core accepts on one listening socket and hands connections to all in turn (IORING_MSG_RING).
    Single,
}

/// What a new client gets when a core has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overload {
    /// It waits in the accept queue until a connection ends.
    Queue,
    /// It is accepted and reset.
    Reset,
}

/// TCP keepalive: how long a connection is idle before the first probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keepalive {
    /// No probes.
    Off,
    /// As net.ipv4.tcp_keepalive_time says.
    Host,
    /// After this long; whole seconds, 1 to 32767.
    After(Duration),
}

/// A feature of the kernel that the server uses where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Connections are entries of a table of each core's ring, not of the process's table of open files, so
    /// that accepting and closing take no lock that the cores share. Linux 6.13 and later.
    DirectDescriptors,
    /// A receive ends after 256 KiB, so that a peer that does not read can have no more than that on its way
    /// in. Linux 6.17 and later.
    ReceiveCredit,
    /// With --mode echo messages larger than a buffer go back without being copied, by splice(2). Not with
    /// --zerocopy-threshold.
    Splice,
}

impl Feature {
    /// As `--without` takes it.
    fn name(self) -> &'static str {
        match self {
            Self::DirectDescriptors => "direct-descriptors",
            Self::ReceiveCredit => "receive-credit",
            Self::Splice => "splice",
        }
    }
}

/// The cores to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU that is online and that the process may run on.
    All,
    /// These, in this order.
    List(Vec<Cpu>),
}

impl Cores {
    /// Reads `--cores`: `all` or a list such as `0-47` or `3,0-1`, whose order is kept.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, CpuSetError> {
        if text == "all" { Ok(Self::All) } else { CpuSet::parse_ordered(text).map(Self::List) }
    }
}

impl FromStr for Cores {
    type Err = CpuSetError;

    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Cores {
    /// As `--cores` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::List(cores) => {
                let cores: Vec<String> = cores.iter().map(Cpu::to_string).collect();
                f.write_str(&cores.join(","))
            }
        }
    }
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Echo datagrams (UDP) instead of accepting connections (TCP).
    pub udp: bool,
    /// What to do with a connection.
    pub mode: Mode,
    /// Bytes of a request in [`Mode::SinkSource`]: 1 to 1 GiB.
    pub request_size: u32,
    /// Bytes of a response in [`Mode::SinkSource`]: 0 to 1 GiB.
    pub response_size: u32,
    /// Addresses to listen on, at least one, all different; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// IPv6 listeners take no IPv4 connections (`IPV6_V6ONLY`).
    pub v6only: bool,
    /// One worker for each.
    pub cores: Cores,
    /// Who accepts.
    pub accept: AcceptModel,
    /// How a SYN finds its listener, with [`AcceptModel::PerCore`].
    pub steer: Steer,
    /// What happens at the connection limit.
    pub overload: Overload,
    /// Length of each listener's accept queue; the kernel caps it at `net.core.somaxconn`. 1 to 65535.
    pub backlog: u16,
    /// The most connections of the whole process, split over the cores; `None`: as many as the limits allow.
    pub max_connections: Option<u32>,
    /// A connection on which nothing came or went for this long is closed; 1 ms to a day.
    pub idle_timeout: Option<Duration>,
    /// Receive buffers of each core: a power of two, 1 to 32768.
    pub buffers: u16,
    /// Bytes of a receive buffer: 64 to 1 MiB.
    pub buffer_size: u32,
    /// Most bytes of peers that do not read, in the whole process, split over the cores; `None`: a quarter of
    /// the memory that the process may have.
    pub spill: Option<u64>,
    /// `SO_BUSY_POLL` of the listeners, which connections inherit, and NAPI busy polling of the ring: whole
    /// microseconds, zero: off.
    pub busy_poll: Duration,
    /// How long a worker looks for completions without sleeping before it sleeps; zero: not at all.
    pub spin: Duration,
    /// `TCP_NODELAY` of connections.
    pub nodelay: bool,
    /// TCP keepalive of connections.
    pub keepalive: Keepalive,
    /// `TCP_DEFER_ACCEPT`: a connection is accepted when its first bytes are here, for at most this long
    /// (whole seconds).
    pub defer_accept: Option<Duration>,
    /// `TCP_FASTOPEN`: length of the queue of connections whose SYN brought data. 1 to 65535.
    pub fastopen: Option<u16>,
    /// Sends of at least this many bytes are zero-copy (`IORING_OP_SEND_ZC`).
    pub zerocopy_threshold: Option<u32>,
    /// Each worker's memory is on its core's NUMA node.
    pub numa: bool,
    /// Receive buffers are in huge pages.
    pub huge_pages: bool,
    /// User to become once the listeners are bound.
    pub user: Option<String>,
    /// Group to become once the listeners are bound.
    pub group: Option<String>,
    /// Where to serve `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
    /// How often to print the table of cores to stderr; at least 100 ms.
    pub stats_interval: Option<Duration>,
    /// Features to do without.
    pub without: Vec<Feature>,
    /// How long open connections may go on after the server was told to stop. At most a day.
    pub drain_timeout: Duration,
}

impl Config {
    /// What the workers do without: what was asked, direct descriptors where connections go from ring to
    /// ring, and splicing where it is of no use.
    pub(crate) fn features_not_used(&self) -> Vec<Feature> {
        let single = (self.accept == AcceptModel::Single).then_some(Feature::DirectDescriptors);
        let copies = (!self.splices()).then_some(Feature::Splice);
        self.without.iter().copied().chain(single).chain(copies).collect()
    }

    /// True where the bytes of a peer that does not read are kept for it.
    pub(crate) fn spills(&self) -> bool {
        !self.udp && self.mode == Mode::Echo
    }

    /// True where bytes go back as they came, and no other way to spare copies was asked for.
    pub(crate) fn splices(&self) -> bool {
        self.spills() && self.zerocopy_threshold.is_none()
    }
}

impl Default for Config {
    /// What a server without options does.
    fn default() -> Self {
        Self {
            udp: false,
            mode: Mode::Echo,
            request_size: 64,
            response_size: 64,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7000))],
            v6only: false,
            cores: Cores::All,
            accept: AcceptModel::PerCore,
            steer: Steer::Cpu,
            overload: Overload::Queue,
            backlog: 4096,
            max_connections: None,
            idle_timeout: None,
            buffers: 256,
            buffer_size: 16 * 1024,
            spill: None,
            busy_poll: Duration::ZERO,
            spin: Duration::ZERO,
            nodelay: true,
            keepalive: Keepalive::Host,
            defer_accept: None,
            fastopen: None,
            zerocopy_threshold: None,
            numa: false,
            huge_pages: false,
            user: None,
            group: None,
            metrics: None,
            stats_interval: None,
            without: Vec::new(),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_keep_their_order() {
        assert_eq!(Cores::parse("3,0-1").unwrap(), Cores::List(vec![3, 0, 1]));
        assert_eq!(Cores::parse("3,0-1").unwrap().to_string(), "3,0,1");
        assert_eq!(Cores::parse("all").unwrap(), Cores::All);
        for bad in ["5-2", "", "0,,1", "one"] {
            assert!(Cores::parse(bad).is_err(), "{bad}");
        }
    }
}
