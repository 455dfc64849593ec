//! Requests of the generic netlink family `ethtool` (Linux 5.6).
//!
//! The numbers of the commands are those of `include/uapi/linux/ethtool_netlink_generated.h`.
//! netlink-bindings 0.3.5 has others: it counts notifications among the requests, which makes its
//! `features-set` the kernel's `rings-set`. So each request is given its number here, and a test asks the
//! kernel whether they are right.

use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::{NetlinkSocket, ReplyError};

use super::EthtoolError;

pub(super) const FEATURES_GET: u8 = 11;
pub(super) const FEATURES_SET: u8 = 12;
pub(super) const RINGS_GET: u8 = 15;
pub(super) const RINGS_SET: u8 = 16;
pub(super) const CHANNELS_GET: u8 = 17;
pub(super) const CHANNELS_SET: u8 = 18;
pub(super) const COALESCE_GET: u8 = 19;
pub(super) const COALESCE_SET: u8 = 20;

/// A request about an interface, with the right command number.
macro_rules! request {
    ($operation:ident, $command:expr, $name:expr) => {{
        let mut request = netlink_bindings::ethtool::Request::new().$operation();
        request.header_mut().cmd = $command;
        request
            .encode()
            .nested_header()
            .push_dev_name($name)
            .push_flags(netlink_bindings::ethtool::HeaderFlags::OmitReply as u32)
            .end_nested();
        request
    }};
}

pub(super) use request;

/// Asks, hands the first reply to `take`, and waits until the kernel is done. `None` if it was done without a
/// reply.
pub(super) fn ask<R, T>(
    socket: &mut NetlinkSocket,
    request: &R,
    operation: &str,
    take: impl for<'reply> FnOnce(R::ReplyType<'reply>) -> T,
) -> Result<Option<T>, EthtoolError>
where
    R: NetlinkRequest,
{
    let error = |error: ReplyError| described(operation, error);
    let mut replies = socket.request(request).map_err(|source| error(source.into()))?;
    let taken = match replies.recv() {
        Some(reply) => Some(take(reply.map_err(error)?)),
        None => None,
    };
    while let Some(reply) = replies.recv() {
        reply.map_err(error)?;
    }
    Ok(taken)
}

/// With the extended acknowledgement, where there is one.
fn described(operation: &str, error: ReplyError) -> EthtoolError {
    let text = error.to_string();
    let plain = error.as_io_error().to_string();
    let said = text.strip_prefix(&plain).unwrap_or_default().replace(" (no extended ack)", "");
    let said = said.trim_start_matches(": ").trim();
    let said = if said.is_empty() { String::new() } else { format!("the kernel says: {said}") };
    EthtoolError::new(operation, "netlink", error.into(), &said)
}
