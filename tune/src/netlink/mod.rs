//! Generic netlink: the thin edge to what the kernel has no files for.

pub mod ethtool;

use std::io;

use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::{NetlinkSocket, ReplyError};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::errno::describe;

/// Why the kernel did not do what it was asked for. `Display` is one line: what was asked of which interface, the value,
/// the errno, and what the kernel says beside it.
#[derive(Debug, thiserror::Error)]
#[error("{operation} by netlink: {}{detail}", describe(.source))]
pub struct NetlinkError {
    /// `set channels of eth0 to "combined 8"`.
    pub operation: String,
    /// The errno.
    pub source: io::Error,
    /// The extended acknowledgement, after a colon; empty without one.
    pub detail: String,
}

impl NetlinkError {
    pub(crate) fn new(operation: impl Into<String>, error: impl Into<ReplyError>) -> Self {
        let error = error.into();
        let text = error.to_string();
        let plain = error.as_io_error().to_string();
        let said = text.strip_prefix(&plain).unwrap_or_default().replace(" (no extended ack)", "");
        let said = said.trim_start_matches(": ").trim();
        let detail = if said.is_empty() { String::new() } else { format!(": the kernel says: {said}") };
        Self { operation: operation.into(), source: error.into(), detail }
    }

    /// True if the kernel, or the driver, does not have it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(Errno::from_io_error(&self.source), Some(Errno::OPNOTSUPP | Errno::NOENT))
    }

    /// True if it may be taken a moment later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(Errno::from_io_error(&self.source), Some(Errno::BUSY | Errno::AGAIN | Errno::INTR))
    }

    /// True if there is no interface of this name.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        Errno::from_io_error(&self.source) == Some(Errno::NODEV)
    }
}

/// Asks, hands the first reply to `take`, and waits until the kernel is done. `None` if it was done without a reply.
fn ask<R, T>(
    socket: &mut NetlinkSocket,
    request: &R,
    operation: &str,
    take: impl for<'reply> FnOnce(R::ReplyType<'reply>) -> T,
) -> Result<Option<T>, NetlinkError>
where
    R: NetlinkRequest,
{
    let error = |error: ReplyError| NetlinkError::new(operation, error);
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

/// Whether this process may set what belongs to the network namespace: EPERM if not.
pub(crate) fn check_net_admin() -> io::Result<()> {
    let able = rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::NET_ADMIN);
    if able { Ok(()) } else { Err(Errno::PERM.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_asked_and_why_not() {
        let error = NetlinkError::new("get rings of eth0", io::Error::from_raw_os_error(95));
        assert_eq!(error.to_string(), "get rings of eth0 by netlink: EOPNOTSUPP: operation not supported");
        assert!(error.is_unsupported() && !error.is_gone());
        assert!(NetlinkError::new("x", io::Error::from_raw_os_error(19)).is_gone());
    }
}
