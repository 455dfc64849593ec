//! The generic netlink family `ethtool`: what `ethtool -l -g -c -x -k` show and `-L -G -C -X -K` set.
//!
//! The numbers of the commands are those of `include/uapi/linux/ethtool_netlink_generated.h`. netlink-bindings 0.3.5 has
//! others: it counts notifications among the requests, which makes its `features-set` the kernel's `rings-set`. So each
//! request is given its number here, and a test asks the kernel whether they are right.

mod read;
#[cfg(test)]
mod tests;

use std::ffi::CString;

use netlink_bindings::ethtool::{HeaderFlags, Request};
use netlink_socket2::NetlinkSocket;

pub use read::{read, read_one};

use super::{NetlinkError, ask};
use crate::host::InterfaceName;
use crate::host::ethtool::{
    CoalesceField, Knob, KnobError, NTUPLE, RssTable, channel_counts, number, ring_counts,
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

use request;

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
            ask(&mut socket, &request, &operation, |_| ()).map_err(|mut error| {
                if error.detail.contains("indirection table") {
                    error
                        .detail
                        .push_str(&format!("; \"ethtool -X {interface} default\" takes that table back"));
                }
                error
            })?;
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
