//! The edge to the kernel behind `ethtool -l -g -c -x -k -n` and `-L -G -C -X -K -N`: generic netlink, and
//! for RSS an ioctl.

mod error;
mod ioctl;
mod netlink;
mod read;
mod rss;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::io;

use netlink_socket2::NetlinkSocket;
use rustix::io::Errno;

pub use error::EthtoolError;
pub use read::{read, read_one};

use crate::host::InterfaceName;
use crate::host::ethtool::{CoalesceField, Knob, KnobError, NTUPLE, channel_counts, number, ring_counts};
use crate::kernel_files::has_net_admin;
use netlink::{CHANNELS_SET, COALESCE_SET, FEATURES_SET, RINGS_SET, ask, request};

/// Whether this process may set anything of an interface.
///
/// # Errors
/// EPERM if not.
pub(crate) fn check_settable(interface: &InterfaceName, knob: Knob) -> Result<(), EthtoolError> {
    if has_net_admin() {
        return Ok(());
    }
    let operation = format!("set {} of {interface}", knob.name());
    let source = io::Error::from(Errno::PERM);
    Err(EthtoolError::new(&operation, knob.way(), source, "that takes CAP_NET_ADMIN; run as root"))
}

/// Why a knob was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetKnobError {
    /// The kernel refused it.
    #[error(transparent)]
    Kernel(#[from] EthtoolError),
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
        Knob::Channels => set_channels(&mut socket, interface, &name, text, &operation)?,
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
        Knob::Rss => rss::set_table(interface, &text.parse().map_err(KnobError)?, &operation)?,
        Knob::Hash(flow) => {
            rss::set_fields(interface, flow, text.parse().map_err(KnobError)?, &operation)?;
        }
    }
    Ok(())
}

/// The kernel refuses fewer channels than a table names that somebody has set. One that is even over all
/// queues, as the kernel's own is, is given back to it then, and the driver fills it for those that stay.
fn set_channels(
    socket: &mut NetlinkSocket,
    interface: &InterfaceName,
    name: &CString,
    text: &str,
    operation: &str,
) -> Result<(), SetKnobError> {
    let mut request = request!(op_channels_set_do, CHANNELS_SET, name);
    for (kind, number) in channel_counts(text)? {
        match kind {
            "rx" => drop(request.encode().push_rx_count(number)),
            "tx" => drop(request.encode().push_tx_count(number)),
            _ => drop(request.encode().push_combined_count(number)),
        }
    }
    let refused = match ask(socket, &request, operation, |_| ()) {
        Err(error) if error.says("indirection table") => error,
        done => return done.map(drop).map_err(SetKnobError::from),
    };
    if !rss::give_back(interface, operation)? {
        return Err(refused
            .with(&format!("\"ethtool -X {interface} default\" takes that table back"))
            .into());
    }
    let given_back = "asked again after the RSS table that was in the way was given back to the kernel; \
                      dmesg may have more";
    ask(socket, &request, operation, |_| ()).map(drop).map_err(|error| error.with(given_back).into())
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
