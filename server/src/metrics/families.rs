//! Which counter is published under which name. Pure.
//!
//! Names follow Prometheus: what is counted in the plural, the unit last; the encoder adds the prefix
//! `corelocal_server_` and the suffix `_total`.

use prometheus_client::registry::Unit;

use crate::stats::Counters;

/// A counter with one value for each core.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) help: &'static str,
    pub(super) value: fn(&Counters) -> u64,
}

macro_rules! family {
    ($name:literal, $field:ident, $help:literal) => {
        Family { name: $name, unit: None, help: $help, value: |c| c.$field }
    };
    ($name:literal, bytes, $field:ident, $help:literal) => {
        Family { name: $name, unit: Some(Unit::Bytes), help: $help, value: |c| c.$field }
    };
}

/// All of [`Counters`] but `open` and `spill_bytes`, which are gauges.
pub(super) const COUNTERS: &[Family] = &[
    family!("accepted_connections", accepted, "Connections accepted."),
    family!("receives", requests, "Receives that brought bytes."),
    family!("received", bytes, bytes_in, "Bytes received."),
    family!("sent", bytes, bytes_out, "Bytes that the kernel took for sending."),
    family!("accept_samples", accept_samples, "Accepted connections whose SO_INCOMING_CPU was read."),
    family!(
        "accept_local_samples",
        accept_local_samples,
        "Those of the accept samples that had been received on the core's own CPU."
    ),
    family!("request_samples", request_samples, "Receives after which SO_INCOMING_CPU was read."),
    family!(
        "request_local_samples",
        request_local_samples,
        "Those of the request samples that had been received on the core's own CPU."
    ),
    family!("reset_connections", reset, "Connections that ended by an error, mostly a reset by the peer."),
    family!("refused_connections", refused, "Connections accepted and reset at the connection limit."),
    family!("connection_limit_waits", queue_waits, "Times that accepting stopped at the connection limit."),
    family!(
        "listen_drops",
        listen_drops,
        "SYNs and ACKs dropped at the listeners, mostly because the accept queue was full."
    ),
    family!("idle_closed_connections", idle_closed, "Connections closed by the idle timeout."),
    family!(
        "cut_off_connections",
        cut_off,
        "Connections closed at the end of the server before the peer was known to have everything."
    ),
    family!(
        "starved_receives",
        starved,
        "Receives that found the buffer pool empty and waited for a buffer."
    ),
    family!("blocked_sends", blocked, "Sends that found the socket full and waited for the peer."),
    family!("copied", bytes, bytes_copied, "Bytes copied because a peer read too slowly."),
    family!(
        "spill_full_connections",
        spill_full,
        "Connections reset because their sockets were full, and neither the spill nor the buffers had room."
    ),
    family!("spliced", bytes, bytes_spliced, "Bytes sent back without being copied, by splice(2)."),
    family!(
        "splice_refused_connections",
        splice_refused,
        "Connections with large messages that are copied for want of a second descriptor."
    ),
    family!("accept_rests", accept_rests, "Times that accepting rested for want of descriptors or memory."),
    family!("completion_queue_overflows", cq_overflows, "Times that the completion queue overflowed."),
    family!("zerocopy_sends", zerocopy_sends, "Sends that were zero-copy."),
    family!("zerocopy_copied_sends", zerocopy_copied, "Zero-copy sends that the kernel copied all the same."),
    family!("handed_over_connections", handed_over, "Connections accepted here and given to another core."),
    family!(
        "taken_over_connections",
        taken_over,
        "Connections that another core accepted and gave to this one."
    ),
    family!("received_datagrams", datagrams_in, "Datagrams received."),
    family!("sent_datagrams", datagrams_out, "Datagrams sent."),
    family!("dropped_datagrams", datagrams_dropped, "Datagrams received and not answered: send buffer full."),
    family!(
        "overrun_datagrams",
        datagrams_overrun,
        "Datagrams that the kernel threw away: receive queue full."
    ),
    family!("truncated_datagrams", datagrams_truncated, "Datagrams that were longer than a receive buffer."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_published_once() {
        let numbered = Counters::numbered();
        let mut numbers: Vec<u64> = COUNTERS.iter().map(|family| (family.value)(&numbered)).collect();
        numbers.extend([numbered.open, numbered.spill_bytes]);
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=Counters::FIELDS.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique_and_leave_the_suffixes_to_the_encoder() {
        let mut names: Vec<&str> = COUNTERS.iter().map(|family| family.name).collect();
        assert!(names.iter().all(|name| !name.ends_with("_total") && !name.ends_with("_bytes")));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNTERS.len());
    }
}
