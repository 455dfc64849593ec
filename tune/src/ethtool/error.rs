//! `EthtoolError`: why the kernel or the driver did not do what it was asked for.

use std::io;

use rustix::io::Errno;

use crate::errno::describe;

/// Why the kernel did not do what it was asked for. `Display` is one line: what was asked of which interface,
/// the value, by what, the errno, and what is known beside it.
#[derive(Debug, thiserror::Error)]
#[error("{operation} by {way}: {}{detail}", describe(.source))]
pub struct EthtoolError {
    /// `set channels of eth0 to "combined 8"`.
    operation: String,
    /// `netlink` or `ioctl`.
    way: &'static str,
    /// The errno.
    source: io::Error,
    /// The extended acknowledgement and the like, after a colon; empty without one.
    detail: String,
    unsupported: bool,
}

impl EthtoolError {
    pub(super) fn new(operation: &str, way: &'static str, source: io::Error, detail: &str) -> Self {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let unsupported = matches!(Errno::from_io_error(&source), Some(Errno::OPNOTSUPP | Errno::NOENT));
        Self { operation: operation.to_owned(), way, source, detail, unsupported }
    }

    /// With what could be done, or what is known beside it.
    pub(super) fn with(mut self, more: &str) -> Self {
        let sign = if self.detail.is_empty() { ":" } else { ";" };
        self.detail.push_str(&format!("{sign} {more}"));
        self
    }

    /// True if the kernel says so in its own words.
    pub(super) fn says(&self, words: &str) -> bool {
        self.detail.contains(words)
    }

    /// As it is, where EINVAL says that the driver does not have it: of some things drivers say no other.
    pub(super) fn with_invalid_unsupported(mut self) -> Self {
        self.unsupported |= self.errno() == Some(Errno::INVAL);
        self
    }

    fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// True if the kernel, or the driver, does not have it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }

    /// True if it may be taken a moment later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.errno(), Some(Errno::BUSY | Errno::AGAIN | Errno::INTR))
    }

    /// True if there is no interface of this name.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.errno() == Some(Errno::NODEV)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_asked_and_why_not() {
        let of = |errno| {
            EthtoolError::new("get rings of eth0", "netlink", io::Error::from_raw_os_error(errno), "")
        };
        let error = of(95);
        assert_eq!(error.to_string(), "get rings of eth0 by netlink: EOPNOTSUPP: operation not supported");
        assert!(error.is_unsupported() && !error.is_gone() && !error.is_busy());
        assert!(of(19).is_gone() && of(16).is_busy());
        assert!(!of(22).is_unsupported() && of(22).with_invalid_unsupported().is_unsupported());
        assert!(!of(1).with_invalid_unsupported().is_unsupported(), "EPERM is no want of the thing");
        let error = EthtoolError::new("set x", "ioctl", io::Error::from_raw_os_error(22), "");
        let error = error.with("too few").with("take more");
        assert_eq!(error.to_string(), "set x by ioctl: EINVAL: invalid argument: too few; take more");
    }
}
