//! The RSS table and the fields that are hashed, by ioctl.

use std::collections::BTreeMap;
use std::io;

use super::{EthtoolError, SetKnobError, ioctl, read_one};
use crate::host::InterfaceName;
use crate::host::ethtool::{FlowType, HashFields, Knob, Rss, RssTable, is_even};

fn by_ioctl<T>(operation: &str, result: io::Result<T>) -> Result<T, EthtoolError> {
    result.map_err(|source| EthtoolError::new(operation, "ioctl", source, ""))
}

/// RSS; `None` of a driver that has a hash key or function and no table.
pub(super) fn read(interface: &InterfaceName) -> Result<Option<Rss>, EthtoolError> {
    let found = by_ioctl(&format!("get the RSS table of {interface}"), ioctl::rxfh(interface))?;
    let ioctl::Rxfh { table, key, function, input_xfrm } = found;
    Ok((!table.is_empty()).then(|| Rss {
        table,
        key: (!key.is_empty()).then(|| key.iter().map(|byte| format!("{byte:02x}")).collect()),
        function: (function != 0).then(|| function.into()),
        input_xfrm: (input_xfrm != 0).then(|| input_xfrm.into()),
    }))
}

/// The fields that are hashed of each kind of flow of which the driver says it, in a way that is known.
pub(super) fn read_fields(interface: &InterfaceName) -> Result<BTreeMap<FlowType, HashFields>, EthtoolError> {
    let mut found = BTreeMap::new();
    for flow in FlowType::ALL {
        let operation = format!("get the hash fields {} of {interface}", flow.name());
        let bits = by_ioctl(&operation, ioctl::hashed_fields(interface, flow.number()));
        match bits.map_err(EthtoolError::with_invalid_unsupported) {
            Ok(bits) => found.extend(HashFields::from_bits(bits).map(|fields| (flow, fields))),
            Err(error) if error.is_unsupported() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Sets the fields of a kind of flow. Drivers have EINVAL for fields that they do not hash.
pub(super) fn set_fields(
    interface: &InterfaceName,
    flow: FlowType,
    fields: HashFields,
    operation: &str,
) -> Result<(), EthtoolError> {
    let result = ioctl::set_hashed_fields(interface, flow.number(), fields.bits());
    by_ioctl(operation, result).map_err(|error| {
        let error = error.with_invalid_unsupported();
        let more = "the driver does not hash by these fields; leave the key out";
        if error.is_unsupported() { error.with(more) } else { error }
    })
}

/// A table over all RX queues is set by taking back what was set before it: the kernel then fills it by the
/// same rule, and does not refuse fewer channels later for the sake of a table that somebody has set
/// (`IFF_RXFH_CONFIGURED`).
pub(super) fn set_table(
    interface: &InterfaceName,
    table: &RssTable,
    operation: &str,
) -> Result<(), SetKnobError> {
    let found = || by_ioctl(operation, ioctl::rxfh(interface));
    let ioctl::Rxfh { table: now, input_xfrm, .. } = found()?;
    let entries = table.entries(now.len())?;
    let put = |table| by_ioctl(operation, ioctl::set_table(interface, table, input_xfrm));
    let channels = read_one(interface, Knob::Channels)?.channels;
    if channels.is_some_and(|channels| *table == RssTable::Equal(channels.rx_queues())) {
        put(None)?;
        if found()?.table == entries {
            return Ok(());
        }
    }
    Ok(put(Some(&entries))?)
}

/// Gives a table that is even over all RX queues back to the kernel, whose own is so, too; false of any
/// other. `operation` is what it is in the way of.
pub(super) fn give_back(interface: &InterfaceName, operation: &str) -> Result<bool, EthtoolError> {
    let operation = &format!("{operation}: give the RSS table that is in the way back to the kernel");
    let ioctl::Rxfh { table, input_xfrm, .. } = by_ioctl(operation, ioctl::rxfh(interface))?;
    let channels = read_one(interface, Knob::Channels)?.channels;
    if !channels.is_some_and(|channels| is_even(&table, channels.rx_queues())) {
        return Ok(false);
    }
    by_ioctl(operation, ioctl::set_table(interface, None, input_xfrm)).map(|()| true)
}
