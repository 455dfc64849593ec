//! What is counted, of a thread and of a run.

use std::collections::BTreeMap;
use std::io;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Errors by kind: the kind is the errno's name (`ECONNRESET`), or what else happened (`closed by the peer`).
pub type ErrorCounts = BTreeMap<String, u64>;

/// The counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Connections that were established.
    pub connections: u64,
    /// Messages that came back whole (echo), or connections that were made and closed (connect).
    pub operations: u64,
    /// Bytes of messages that came back.
    pub bytes: u64,
    /// Bytes that came back and are not what was sent at that offset.
    pub bytes_wrong: u64,
    /// Bytes that the kernel took for sending and that did not come back.
    pub bytes_lost: u64,
    /// Bytes that came back beyond what was sent.
    pub bytes_extra: u64,
    /// Operations that a count asked for and that were not completed.
    pub operations_missing: u64,
    /// Open loop: messages that started later than they should have because their connection had enough under
    /// way. Their time counts from when they should have started.
    pub operations_late: u64,
    /// Open loop: messages that could not be started, because their connection had failed or had enough under
    /// way until the end. Each is in the corrected times with what it had waited by then.
    pub operations_not_started: u64,
    /// UDP: datagrams that were not back within the timeout.
    pub datagrams_lost: u64,
    /// UDP: datagrams that came back a second time, or after the timeout.
    pub datagrams_again: u64,
    /// UDP: datagrams that came back before one that was sent earlier.
    pub datagrams_overtaken: u64,
    /// Connections that could not be established, or failed afterwards.
    pub connections_failed: u64,
    /// Connections that could not be established, by errno name.
    pub connect_errors: ErrorCounts,
    /// Connections that failed after they were established, by errno name.
    pub io_errors: ErrorCounts,
}

impl Counts {
    pub(crate) fn count_connect_error(&mut self, error: &io::Error) {
        self.connections_failed += 1;
        *self.connect_errors.entry(error_kind(error)).or_default() += 1;
    }

    pub(crate) fn count_io_error(&mut self, error: &io::Error) {
        self.connections_failed += 1;
        *self.io_errors.entry(error_kind(error)).or_default() += 1;
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.connections += other.connections;
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.bytes_wrong += other.bytes_wrong;
        self.bytes_lost += other.bytes_lost;
        self.bytes_extra += other.bytes_extra;
        self.operations_missing += other.operations_missing;
        self.operations_late += other.operations_late;
        self.operations_not_started += other.operations_not_started;
        self.datagrams_lost += other.datagrams_lost;
        self.datagrams_again += other.datagrams_again;
        self.datagrams_overtaken += other.datagrams_overtaken;
        self.connections_failed += other.connections_failed;
        add_errors(&mut self.connect_errors, &other.connect_errors);
        add_errors(&mut self.io_errors, &other.io_errors);
    }
}

pub(crate) fn add_errors(sum: &mut ErrorCounts, counts: &ErrorCounts) {
    for (kind, count) in counts {
        *sum.entry(kind.clone()).or_default() += count;
    }
}

/// The errno's name, or the error's own text if it has no errno.
#[must_use]
pub fn error_kind(error: &io::Error) -> String {
    match (tune::errno::name(error), error.raw_os_error()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(number)) => format!("errno {number}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_as_in_errno_h() {
        assert_eq!(error_kind(&rustix::io::Errno::CONNRESET.into()), "ECONNRESET");
        assert_eq!(error_kind(&io::Error::from_raw_os_error(9999)), "errno 9999");
        assert_eq!(error_kind(&io::Error::other("closed by the peer")), "closed by the peer");
    }

    /// One that is forgotten where counts are added would always be 0 in a report.
    #[test]
    fn every_count_is_added() {
        let mut json = serde_json::to_value(Counts::default()).unwrap();
        for (number, value) in (1..).zip(json.as_object_mut().unwrap().values_mut()) {
            *value = if value.is_object() { serde_json::json!({ "EIO": number }) } else { number.into() };
        }
        let mut sum = Counts::default();
        sum += &serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(sum).unwrap(), json);
    }
}
