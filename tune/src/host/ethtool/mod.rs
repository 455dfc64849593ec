//! `Ethtool`: channels, rings, RSS, coalescing and features of an interface, as plain data.
//!
//! A live kernel is asked ([`crate::ethtool`]); of a captured tree `/corelocal/ethtool/IF.json` is read,
//! which is this data as JSON. What the driver does not have, or nobody captured, is absent, never 0.

mod hash;
mod knob;
mod rounding;
mod rss_table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use hash::{FlowType, HashFields};
pub use knob::{CoalesceField, Knob, KnobError};
pub(crate) use knob::{channel_counts, number, ring_counts};
pub(crate) use rounding::{rings_round_to, rounded, rounds_to};
pub use rss_table::RssTable;
pub(crate) use rss_table::is_even;

use super::{HostError, InterfaceName};
use crate::ethtool;
use crate::kernel_files::KernelFiles;

/// The kernel's name of the feature behind `ethtool -K IF ntuple` (`netdev_features_strings`,
/// `net/ethtool/common.c`).
pub const NTUPLE: &str = "rx-ntuple-filter";

/// A number that has an upper end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limited {
    /// What it is.
    pub now: u32,
    /// The most that the driver takes.
    pub max: u32,
}

/// Channels by kind; a kind of which the driver can have none is absent. As `ethtool -l`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Channels {
    /// Those that only receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx: Option<Limited>,
    /// Those that only transmit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx: Option<Limited>,
    /// Those for link events and the like, which `tune` never sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Limited>,
    /// Those that receive and transmit on one interrupt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub combined: Option<Limited>,
}

impl Channels {
    /// How many queues receive.
    #[must_use]
    pub fn rx_queues(&self) -> u32 {
        self.rx.map_or(0, |rx| rx.now).saturating_add(self.combined.map_or(0, |combined| combined.now))
    }

    /// How many queues transmit.
    #[must_use]
    pub fn tx_queues(&self) -> u32 {
        self.tx.map_or(0, |tx| tx.now).saturating_add(self.combined.map_or(0, |combined| combined.now))
    }
}

/// Descriptors of each ring. As `ethtool -g`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rings {
    /// Of each RX queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx: Option<Limited>,
    /// Of each TX queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx: Option<Limited>,
}

/// How received packets are spread over the RX queues. As `ethtool -x`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rss {
    /// The indirection table: an RX queue for each value of the hash, modulo the length.
    pub table: Vec<u32>,
    /// The hash key in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The hash functions in use, a bit each (`ETH_RSS_HASH_*`): 1 Toeplitz, 2 XOR, 4 CRC32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<u32>,
    /// What is done to the fields before they are hashed (`RXH_XFRM_*`): 1 makes both directions of a flow
    /// alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_xfrm: Option<u32>,
}

/// A feature of `ethtool -k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// It is in use.
    pub on: bool,
    /// It cannot be changed: `[fixed]`.
    pub fixed: bool,
}

/// What ethtool says about an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ethtool {
    /// The driver, where sysfs does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Numbers of channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Sizes of rings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rings: Option<Rings>,
    /// RSS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<Rss>,
    /// The fields that are hashed, by kind of flow.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hash: BTreeMap<FlowType, HashFields>,
    /// Interrupt coalescing, as far as the driver has it; switches are 0 or 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub coalesce: BTreeMap<CoalesceField, u32>,
    /// Features by the kernel's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, Feature>,
    /// What could not be read, with the error: `rss`, and why.
    #[serde(skip)]
    pub unknown: BTreeMap<String, String>,
}

impl Ethtool {
    /// Reads what there is: nothing where the driver, the kernel or the tree has nothing.
    ///
    /// # Errors
    /// If the file of a captured tree cannot be read or understood.
    pub fn read(files: &KernelFiles, interface: &InterfaceName) -> Result<Self, HostError> {
        if files.is_live() {
            let mut found = ethtool::read(interface);
            let features = files.read_optional(&format!("/sys/class/net/{interface}/device/features"))?;
            if let Some(features) = features.filter(|_| is_virtio(files, interface)) {
                found.leave_to_virtio(&features);
            }
            return Ok(found);
        }
        let path = Self::captured_path(interface);
        match files.read_optional(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| HostError::text(path, &error)),
            None => Ok(Self::default()),
        }
    }

    /// virtio_net shows coalescing parameters also of a device that does not have them, and refuses to set
    /// them. `features` has a letter for each feature bit that was negotiated, `1` or `0`.
    fn leave_to_virtio(&mut self, features: &str) {
        /// `VIRTIO_NET_F_NOTF_COAL`, `VIRTIO_NET_F_VQ_NOTF_COAL` (`include/uapi/linux/virtio_net.h`).
        const COALESCE: usize = 53;
        const PER_QUEUE: usize = 52;
        let has = |bit| features.as_bytes().get(bit) == Some(&b'1');
        let (all, per_queue) = (has(COALESCE), has(PER_QUEUE));
        if !per_queue {
            self.coalesce.retain(|field, _| all && !field.is_switch());
            let lacks = if all { "adaptive moderation" } else { "interrupt coalescing" };
            self.unknown.insert("coalesce".to_owned(), format!("the virtio device does not offer {lacks}"));
        }
    }

    /// Where a captured tree holds it.
    #[must_use]
    pub fn captured_path(interface: &InterfaceName) -> String {
        format!("/corelocal/ethtool/{interface}.json")
    }
}

fn is_virtio(files: &KernelFiles, interface: &InterfaceName) -> bool {
    files.link_name(&format!("/sys/class/net/{interface}/device/driver")).as_deref() == Some("virtio_net")
}
