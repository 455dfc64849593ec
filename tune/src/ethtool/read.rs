//! Reading: `ethtool -l -g -c -x -k`, and `-n IF rx-flow-hash`.

use std::collections::BTreeMap;
use std::ffi::CString;

use netlink_bindings::ethtool::{
    IterableBitset, IterableChannels, IterableCoalesce, IterableFeatures, IterableRings,
};
use netlink_socket2::NetlinkSocket;

use super::netlink::{CHANNELS_GET, COALESCE_GET, FEATURES_GET, RINGS_GET, ask, request};
use super::{EthtoolError, rss};
use crate::host::InterfaceName;
use crate::host::ethtool::{
    Channels, CoalesceField, Ethtool, Feature, FlowType, HashFields, Knob, Limited, Rings, Rss,
};

/// Reads all that there is of an interface; what the driver or the kernel does not have is absent, and the
/// reason of what could not be read for another cause is in [`Ethtool::unknown`].
#[must_use]
pub fn read(interface: &InterfaceName) -> Ethtool {
    let mut reader = Reader::new(interface);
    let mut ethtool = Ethtool {
        channels: reader.channels(),
        rings: reader.rings(),
        rss: reader.rss(),
        hash: reader.hash().unwrap_or_default(),
        coalesce: reader.coalesce().unwrap_or_default(),
        features: reader.features().unwrap_or_default(),
        ..Ethtool::default()
    };
    ethtool.unknown = reader.unknown;
    ethtool
}

/// Reads what one knob is about.
///
/// # Errors
/// If the kernel does not say; a driver that does not have it is no error.
pub fn read_one(interface: &InterfaceName, knob: Knob) -> Result<Ethtool, EthtoolError> {
    let mut reader = Reader::new(interface);
    let mut ethtool = Ethtool::default();
    match knob {
        Knob::Channels => ethtool.channels = reader.channels(),
        Knob::Rings => ethtool.rings = reader.rings(),
        Knob::Rss => ethtool.rss = reader.rss(),
        Knob::Hash(_) => ethtool.hash = reader.hash().unwrap_or_default(),
        Knob::Coalesce(_) => ethtool.coalesce = reader.coalesce().unwrap_or_default(),
        Knob::Ntuple => ethtool.features = reader.features().unwrap_or_default(),
    }
    match reader.error {
        Some(error) => Err(error),
        None => Ok(ethtool),
    }
}

/// A socket, the interface, and what went wrong.
struct Reader {
    socket: NetlinkSocket,
    interface: InterfaceName,
    name: CString,
    unknown: BTreeMap<String, String>,
    error: Option<EthtoolError>,
}

impl Reader {
    fn new(interface: &InterfaceName) -> Self {
        // A name of /sys/class/net holds no NUL.
        let name = CString::new(interface.as_str()).unwrap_or_default();
        let socket = NetlinkSocket::new();
        Self { socket, interface: interface.clone(), name, unknown: BTreeMap::new(), error: None }
    }

    /// The answer, or `None` and the reason kept.
    fn keep<T>(&mut self, what: &str, answer: Result<Option<T>, EthtoolError>) -> Option<T> {
        match answer {
            Ok(found) => found,
            Err(error) if error.is_unsupported() => {
                self.unknown.insert(what.to_owned(), "the driver does not have it".to_owned());
                None
            }
            Err(error) => {
                self.unknown.insert(what.to_owned(), error.to_string());
                self.error.get_or_insert(error);
                None
            }
        }
    }

    fn operation(&self, what: &str) -> String {
        format!("get {what} of {}", self.interface)
    }

    fn channels(&mut self) -> Option<Channels> {
        let request = request!(op_channels_get_do, CHANNELS_GET, &self.name);
        let operation = self.operation("channels");
        let answer = ask(&mut self.socket, &request, &operation, |reply| channels(&reply));
        self.keep("channels", answer)
    }

    fn rings(&mut self) -> Option<Rings> {
        let request = request!(op_rings_get_do, RINGS_GET, &self.name);
        let operation = self.operation("rings");
        let answer = ask(&mut self.socket, &request, &operation, |reply| rings(&reply));
        self.keep("rings", answer)
    }

    fn coalesce(&mut self) -> Option<BTreeMap<CoalesceField, u32>> {
        let request = request!(op_coalesce_get_do, COALESCE_GET, &self.name);
        let operation = self.operation("coalescing");
        let answer = ask(&mut self.socket, &request, &operation, |reply| coalesce(&reply));
        self.keep("coalesce", answer)
    }

    fn features(&mut self) -> Option<BTreeMap<String, Feature>> {
        let request = request!(op_features_get_do, FEATURES_GET, &self.name);
        let operation = self.operation("features");
        let answer = ask(&mut self.socket, &request, &operation, |reply| features(&reply));
        self.keep("features", answer)
    }

    fn rss(&mut self) -> Option<Rss> {
        let answer = rss::read(&self.interface);
        self.keep("rss", answer)
    }

    fn hash(&mut self) -> Option<BTreeMap<FlowType, HashFields>> {
        let answer = rss::read_fields(&self.interface).map(Some);
        self.keep("hash", answer)
    }
}

fn limited(now: Option<u32>, max: Option<u32>) -> Option<Limited> {
    Some(Limited { now: now?, max: max? })
}

fn channels(reply: &IterableChannels<'_>) -> Channels {
    Channels {
        rx: limited(reply.get_rx_count().ok(), reply.get_rx_max().ok()),
        tx: limited(reply.get_tx_count().ok(), reply.get_tx_max().ok()),
        other: limited(reply.get_other_count().ok(), reply.get_other_max().ok()),
        combined: limited(reply.get_combined_count().ok(), reply.get_combined_max().ok()),
    }
}

fn rings(reply: &IterableRings<'_>) -> Rings {
    Rings {
        rx: limited(reply.get_rx().ok(), reply.get_rx_max().ok()),
        tx: limited(reply.get_tx().ok(), reply.get_tx_max().ok()),
    }
}

fn coalesce(reply: &IterableCoalesce<'_>) -> BTreeMap<CoalesceField, u32> {
    let get = |field| match field {
        CoalesceField::AdaptiveRx => reply.get_use_adaptive_rx().ok().map(u32::from),
        CoalesceField::AdaptiveTx => reply.get_use_adaptive_tx().ok().map(u32::from),
        CoalesceField::RxUsecs => reply.get_rx_usecs().ok(),
        CoalesceField::RxFrames => reply.get_rx_max_frames().ok(),
        CoalesceField::TxUsecs => reply.get_tx_usecs().ok(),
        CoalesceField::TxFrames => reply.get_tx_max_frames().ok(),
    };
    CoalesceField::ALL.into_iter().filter_map(|field| Some((field, get(field)?))).collect()
}

/// The names in a bitset, with whether the bit is set.
fn bits(bitset: Option<IterableBitset<'_>>) -> BTreeMap<String, bool> {
    let bits = bitset.and_then(|bitset| Some((bitset.get_nomask().is_ok(), bitset.get_bits().ok()?)));
    let mut found = BTreeMap::new();
    if let Some((nomask, bits)) = bits {
        for bit in bits.get_bit() {
            // Without a mask only the set bits are listed.
            if let Ok(name) = bit.get_name() {
                found.insert(name.to_string_lossy().into_owned(), nomask || bit.get_value().is_ok());
            }
        }
    }
    found
}

/// `hw` lists every feature and marks those that can be changed, `nochange` those that never can, `active`
/// those in use.
fn features(reply: &IterableFeatures<'_>) -> BTreeMap<String, Feature> {
    let (active, fixed) = (bits(reply.get_active().ok()), bits(reply.get_nochange().ok()));
    let is = |bits: &BTreeMap<String, bool>, name: &str| bits.get(name).copied().unwrap_or(false);
    let all = bits(reply.get_hw().ok()).into_iter();
    all.map(|(name, changeable)| {
        let feature = Feature { on: is(&active, &name), fixed: !changeable || is(&fixed, &name) };
        (name, feature)
    })
    .collect()
}
