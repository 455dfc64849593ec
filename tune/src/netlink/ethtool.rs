//! The generic netlink family `ethtool`: what `ethtool -l -g -c -x -k` show and `-L -G -C -X -K` set.
//!
//! The numbers of the commands are those of `include/uapi/linux/ethtool_netlink_generated.h`. netlink-bindings 0.3.5 has
//! others: it counts notifications among the requests, which makes its `features-set` the kernel's `rings-set`. So each
//! request is given its number here, and a test asks the kernel whether they are right.

use std::collections::BTreeMap;
use std::ffi::CString;

use netlink_bindings::ethtool::{
    HeaderFlags, IterableBitset, IterableChannels, IterableCoalesce, IterableFeatures, IterableRings,
    IterableRss, Request,
};
use netlink_bindings::nlctrl;
use netlink_socket2::NetlinkSocket;

use super::{NetlinkError, ask};
use crate::host::InterfaceName;
use crate::host::ethtool::{
    Channels, CoalesceField, Ethtool, Feature, Knob, KnobError, Limited, NTUPLE, Rings, Rss, RssTable,
    channel_counts, number, ring_counts,
};

const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const RINGS_GET: u8 = 15;
const RINGS_SET: u8 = 16;
const CHANNELS_GET: u8 = 17;
const CHANNELS_SET: u8 = 18;
const COALESCE_GET: u8 = 19;
const COALESCE_SET: u8 = 20;
const RSS_GET: u8 = 38;
/// Since Linux 6.17.
const RSS_SET: u8 = 48;

/// A request about an interface, with the right command number.
macro_rules! request {
    ($operation:ident, $command:expr, $name:expr) => {{
        let mut request = Request::new().$operation();
        request.header_mut().cmd = $command;
        request
            .encode()
            .nested_header()
            .push_dev_name($name)
            .push_flags(HeaderFlags::OmitReply as u32)
            .end_nested();
        request
    }};
}

/// Why a knob was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetKnobError {
    /// The kernel refused it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The text is no value of it.
    #[error(transparent)]
    Value(#[from] KnobError),
}

/// Reads all that there is of an interface; what the driver or the kernel does not have is absent, and the reason of what
/// could not be read for another cause is in [`Ethtool::unknown`].
#[must_use]
pub fn read(interface: &InterfaceName) -> Ethtool {
    let mut reader = Reader::new(interface);
    let mut ethtool = Ethtool {
        channels: reader.channels(),
        rings: reader.rings(),
        rss: reader.rss(),
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
pub fn read_one(interface: &InterfaceName, knob: Knob) -> Result<Ethtool, NetlinkError> {
    let mut reader = Reader::new(interface);
    let mut ethtool = Ethtool::default();
    match knob {
        Knob::Channels => ethtool.channels = reader.channels(),
        Knob::Rings => ethtool.rings = reader.rings(),
        Knob::Rss => ethtool.rss = reader.rss(),
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
    error: Option<NetlinkError>,
}

impl Reader {
    fn new(interface: &InterfaceName) -> Self {
        // A name of /sys/class/net holds no NUL.
        let name = CString::new(interface.as_str()).unwrap_or_default();
        let socket = NetlinkSocket::new();
        Self { socket, interface: interface.clone(), name, unknown: BTreeMap::new(), error: None }
    }

    /// The answer, or `None` and the reason kept.
    fn keep<T>(&mut self, what: &str, answer: Result<Option<T>, NetlinkError>) -> Option<T> {
        match answer {
            Ok(found) => found,
            Err(error) if error.is_unsupported() => None,
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
        let request = request!(op_rss_get_do, RSS_GET, &self.name);
        let operation = self.operation("the RSS table");
        let answer = ask(&mut self.socket, &request, &operation, |reply| rss(&reply));
        let mut rss = self.keep("rss", answer.map(Option::flatten))?;
        rss.settable = self.has_command(RSS_SET);
        Some(rss)
    }

    /// Whether the kernel's family has a command.
    fn has_command(&mut self, command: u8) -> bool {
        let mut request = nlctrl::Request::new().op_getfamily_do();
        request.encode().push_family_name(c"ethtool");
        let answer = ask(&mut self.socket, &request, "get the commands of ethtool", |reply| {
            let mut operations = reply.get_ops().into_iter().flatten();
            operations.any(|operation| operation.get_id().is_ok_and(|id| id == u32::from(command)))
        });
        self.keep("rss", answer).unwrap_or(false)
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

/// `hw` lists every feature and marks those that can be changed, `nochange` those that never can, `active` those in use.
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

/// `None` of a driver that has a hash key or function and no table.
fn rss(reply: &IterableRss<'_>) -> Option<Rss> {
    let table = reply.get_indir().ok()?;
    let words = table.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let key = reply.get_hkey().ok().map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect());
    Some(Rss {
        table: words.collect(),
        key,
        function: reply.get_hfunc().ok(),
        input_xfrm: reply.get_input_xfrm().ok(),
        settable: false,
    })
}

/// Sets a knob. The caller reads it back.
///
/// # Errors
/// If the text is no value of the knob, or the kernel refuses it.
pub fn set(interface: &InterfaceName, knob: Knob, text: &str) -> Result<(), SetKnobError> {
    let operation = format!("set {} of {interface} to \"{text}\"", knob.name());
    let name = CString::new(interface.as_str()).unwrap_or_default();
    let mut socket = NetlinkSocket::new();
    match knob {
        Knob::Channels => {
            let mut request = request!(op_channels_set_do, CHANNELS_SET, &name);
            for (kind, number) in channel_counts(text)? {
                match kind {
                    "rx" => drop(request.encode().push_rx_count(number)),
                    "tx" => drop(request.encode().push_tx_count(number)),
                    _ => drop(request.encode().push_combined_count(number)),
                }
            }
            ask(&mut socket, &request, &operation, |_| ())?;
        }
        Knob::Rings => {
            let mut request = request!(op_rings_set_do, RINGS_SET, &name);
            for (kind, number) in ring_counts(text)? {
                match kind {
                    "rx" => drop(request.encode().push_rx(number)),
                    _ => drop(request.encode().push_tx(number)),
                }
            }
            ask(&mut socket, &request, &operation, |_| ())?;
        }
        Knob::Coalesce(field) => {
            let request = coalesce_request(&name, field, number(knob, text)?);
            ask(&mut socket, &request, &operation, |_| ())?;
        }
        Knob::Ntuple => {
            let mut request = request!(op_features_set_do, FEATURES_SET, &name);
            let feature = CString::new(NTUPLE).unwrap_or_default();
            let bit = request.encode().nested_wanted().nested_bits().nested_bit().push_name(&feature);
            let bit = if number(knob, text)? != 0 { bit.push_value(()) } else { bit };
            drop(bit.end_nested().end_nested().end_nested());
            ask(&mut socket, &request, &operation, |_| ())?;
        }
        Knob::Rss => set_rss(&mut socket, interface, &name, &text.parse().map_err(KnobError)?, &operation)?,
    }
    Ok(())
}

fn coalesce_request(
    name: &CString,
    field: CoalesceField,
    number: u32,
) -> netlink_bindings::ethtool::OpCoalesceSetDo<'static> {
    let mut request = request!(op_coalesce_set_do, COALESCE_SET, name);
    let switch = u8::from(number != 0);
    match field {
        CoalesceField::AdaptiveRx => drop(request.encode().push_use_adaptive_rx(switch)),
        CoalesceField::AdaptiveTx => drop(request.encode().push_use_adaptive_tx(switch)),
        CoalesceField::RxUsecs => drop(request.encode().push_rx_usecs(number)),
        CoalesceField::RxFrames => drop(request.encode().push_rx_max_frames(number)),
        CoalesceField::TxUsecs => drop(request.encode().push_tx_usecs(number)),
        CoalesceField::TxFrames => drop(request.encode().push_tx_max_frames(number)),
    }
    request
}

/// A table over all RX queues is set by taking back what was set before it: the kernel then fills it by the same rule, and
/// does not refuse fewer channels later for the sake of a table that somebody has set (`IFF_RXFH_CONFIGURED`).
fn set_rss(
    socket: &mut NetlinkSocket,
    interface: &InterfaceName,
    name: &CString,
    table: &RssTable,
    operation: &str,
) -> Result<(), SetKnobError> {
    let found = read_one(interface, Knob::Rss)?.rss;
    let length = found.map_or(0, |rss| rss.table.len());
    let entries = table
        .entries(length)
        .ok_or_else(|| KnobError(format!("{operation}: the table has {length} entries here")))?;
    let mut put = |table: &[u32]| {
        let mut request = request!(op_rss_set_do, RSS_SET, name);
        let bytes: Vec<u8> = table.iter().flat_map(|queue| queue.to_ne_bytes()).collect();
        drop(request.encode().push_indir(&bytes));
        ask(socket, &request, operation, |_| ())
    };
    let queues = read_one(interface, Knob::Channels)?.channels.map(|channels| channels.rx_queues());
    if *table == RssTable::Equal(queues.unwrap_or(0)) {
        put(&[])?;
        let now = read_one(interface, Knob::Rss)?.rss;
        if now.is_some_and(|rss| rss.table == entries) {
            return Ok(());
        }
    }
    put(&entries)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command gets the answer of its own kind: what the crate counts as `features-get` is the kernel's `rings-get`.
    #[test]
    fn the_kernel_knows_the_commands() {
        let lo = read(&"lo".parse().unwrap());
        assert_eq!(lo.unknown, BTreeMap::new());
        assert_eq!(lo.features.get(NTUPLE), Some(&Feature { on: false, fixed: true }));
        assert_eq!(lo.features.get("tx-checksum-sctp").map(|feature| feature.on), Some(true));
        assert_eq!((lo.channels, lo.rings, lo.rss), (None, None, None));
        let absent = "no-such-link".parse().unwrap();
        let error = read_one(&absent, Knob::Channels).unwrap_err();
        assert!(error.is_gone(), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with("get channels of no-such-link by netlink: ENODEV: no such device"),
            "{text}"
        );
    }

    #[test]
    fn a_refusal_says_what_was_asked_for_and_what_the_kernel_says() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        let absent = "no-such-link".parse().unwrap();
        for (knob, text) in [
            (Knob::Channels, "combined 4"),
            (Knob::Rings, "rx 64"),
            (Knob::Coalesce(CoalesceField::AdaptiveRx), "on"),
            (Knob::Ntuple, "off"),
        ] {
            let error = set(&absent, knob, text).unwrap_err().to_string();
            let start = format!(
                "set {} of no-such-link to \"{text}\" by netlink: ENODEV: no such device",
                knob.name()
            );
            assert!(error.starts_with(&start), "{error}");
        }
        let lo = "lo".parse().unwrap();
        let error = set(&lo, Knob::Channels, "combined 4").unwrap_err().to_string();
        assert!(error.contains("EOPNOTSUPP: operation not supported"), "{error}");
    }
}
