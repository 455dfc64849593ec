//! What the kernel itself says of an interface's queues: which NAPI instance serves each, on which interrupt,
//! and which thread polls it where NAPI is threaded.
//!
//! Live, by the netlink family `netdev` (`queue-get`, `napi-get`, since Linux 6.8; the driver must have told
//! the kernel, `netif_queue_set_napi()` and `netif_napi_set_irq()`) in the network namespace of this process.
//! Of a captured tree, from `corelocal/netdev.json`. Where there is neither, it is unknown why, and nothing
//! is guessed in its place.

mod captured;
mod live;
mod threads;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use live::capture;
pub use threads::NapiThread;
pub(crate) use threads::{check_settable, cpus_of, set_cpus};

use super::{HostError, InterfaceName, Irq, QueueIndex};
use crate::kernel_files::KernelFiles;

/// The number of a NAPI instance. No two of the host have the same, in whatever network namespace
/// (`napi_hash_add()` in `net/core/dev.c`), and it stays when the interface is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NapiId(pub u32);

impl fmt::Display for NapiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NapiId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// RX or TX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rx => "RX",
            Self::Tx => "TX",
        })
    }
}

/// A queue in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetdevQueue {
    /// RX or TX.
    pub direction: Direction,
    /// Its number.
    pub index: QueueIndex,
    /// The NAPI instance that serves it; `None` where the driver does not say.
    pub napi: Option<NapiId>,
}

/// A NAPI instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Napi {
    /// Its number.
    pub id: NapiId,
    /// Its interrupt; `None` where the driver does not say.
    pub irq: Option<Irq>,
    /// Its thread, as the first PID namespace numbers it; `None` where NAPI is not threaded, or before Linux
    /// 6.8.
    pub pid: Option<u32>,
    /// That thread, found; `None` where there is none or it is not to be seen.
    pub thread: Option<NapiThread>,
}

/// What the kernel says of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Netdev {
    /// The queues in use.
    pub queues: Vec<NetdevQueue>,
    /// In ascending order of number.
    pub napis: Vec<Napi>,
    /// `threaded` in sysfs: 0 softirq, 1 threads; `None` before Linux 5.12.
    pub threaded: Option<u32>,
    /// Why queues and NAPI instances are not known.
    pub unknown: Option<String>,
}

impl Netdev {
    /// Asks the kernel, or reads the captured answer.
    ///
    /// # Errors
    /// If a captured answer is not understood, or a file of sysfs not.
    pub fn read(files: &KernelFiles, name: &InterfaceName) -> Result<Self, HostError> {
        let path = format!("/sys/class/net/{name}/threaded");
        let threaded = super::read_optional_as(files, &path, |text| text.trim().parse::<u32>())?;
        let mut netdev =
            if files.is_live() { live::read(files, name)? } else { captured::read(files, name)? };
        netdev.threaded = threaded;
        threads::find(files, name, &mut netdev)?;
        netdev.napis.sort_by_key(|napi| napi.id);
        Ok(netdev)
    }

    /// The NAPI instance of this number.
    #[must_use]
    pub fn napi(&self, id: NapiId) -> Option<&Napi> {
        self.napis.iter().find(|napi| napi.id == id)
    }

    /// The NAPI instance that serves a queue.
    #[must_use]
    pub fn of_queue(&self, direction: Direction, index: QueueIndex) -> Option<&Napi> {
        let is_it = |queue: &&NetdevQueue| queue.direction == direction && queue.index == index;
        self.napi(self.queues.iter().find(is_it)?.napi?)
    }

    /// True if threads poll, whether or not it is known which polls which queue.
    #[must_use]
    pub fn has_threads(&self) -> bool {
        self.napis.iter().any(|napi| napi.pid.is_some() || napi.thread.is_some())
    }

    /// veth tells no queue's NAPI instance, but has one for each RX queue, and makes them in the order of the
    /// queues (`__veth_napi_enable_range()`), which gives them ascending numbers.
    fn number_veth(&mut self) {
        let (queues, napis) = (&mut self.queues, &self.napis);
        let rx = || queues.iter().filter(|queue| queue.direction == Direction::Rx);
        if rx().count() != napis.len() || rx().any(|queue| queue.napi.is_some()) {
            return;
        }
        let mut ids: Vec<NapiId> = napis.iter().map(|napi| napi.id).collect();
        ids.sort_unstable();
        let mut rx: Vec<&mut NetdevQueue> =
            queues.iter_mut().filter(|queue| queue.direction == Direction::Rx).collect();
        rx.sort_by_key(|queue| queue.index);
        for (queue, id) in rx.into_iter().zip(ids) {
            queue.napi = Some(id);
        }
    }
}
