//! What `server --json` writes on stdout when it ends.

use serde::Deserialize;

/// The whole report.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) features: Features,
    pub(crate) total: Counts,
    pub(crate) cores: Vec<Core>,
}

/// What of the kernel it used.
#[derive(Debug, Deserialize)]
pub(crate) struct Features {
    pub(crate) direct_descriptors: bool,
    pub(crate) splice: bool,
}

/// One core's line of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Core {
    pub(crate) core: u32,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// The counts of one core, or of all.
#[derive(Debug, Deserialize)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) open: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Shares from 0 to 1; `None` when there is no sample.
    pub(crate) accept_local: Option<f64>,
    pub(crate) request_local: Option<f64>,
    /// Receives that found no buffer.
    pub(crate) starved: u64,
    /// Sends that found the socket full.
    pub(crate) blocked: u64,
    pub(crate) bytes_copied: u64,
    pub(crate) bytes_spliced: u64,
    /// Bytes kept for peers that did not read, at the end.
    pub(crate) spill_bytes: u64,
    /// Connections reset because there was no place for more of those.
    pub(crate) spill_full: u64,
    /// Connections whose large messages were copied for want of a descriptor.
    pub(crate) splice_refused: u64,
    /// Times that accepting rested.
    pub(crate) accept_rests: u64,
    /// Connections that ended by an error.
    pub(crate) reset: u64,
    /// Connections reset at the limit.
    pub(crate) refused: u64,
    /// Times that the limit was reached.
    pub(crate) queue_waits: u64,
    /// SYNs and ACKs dropped because the accept queue was full.
    pub(crate) listen_drops: u64,
    pub(crate) idle_closed: u64,
    /// Connections closed at the end before their peers had everything.
    pub(crate) cut_off: u64,
    pub(crate) zerocopy_sends: u64,
    pub(crate) zerocopy_copied: u64,
    pub(crate) handed_over: u64,
    pub(crate) taken_over: u64,
    pub(crate) datagrams_in: u64,
    pub(crate) datagrams_out: u64,
    pub(crate) datagrams_dropped: u64,
    pub(crate) datagrams_truncated: u64,
    /// Datagrams that the kernel had no room for in the socket's queue.
    pub(crate) datagrams_overrun: u64,
}

impl Report {
    /// The line of `core`.
    pub(crate) fn core(&self, core: u32) -> &Counts {
        let line = self.cores.iter().find(|line| line.core == core);
        &line.unwrap_or_else(|| panic!("no core {core} in {self:?}")).counts
    }

    /// # Panics
    /// If a total is not the sum over the cores.
    pub(crate) fn assert_sums(&self) {
        let sum = |count: fn(&Counts) -> u64| self.cores.iter().map(|line| count(&line.counts)).sum::<u64>();
        assert_eq!(self.total.accepted, sum(|c| c.accepted), "accepted: {self:?}");
        assert_eq!(self.total.open, sum(|c| c.open), "open: {self:?}");
        assert_eq!(self.total.bytes_in, sum(|c| c.bytes_in), "bytes_in: {self:?}");
        assert_eq!(self.total.bytes_out, sum(|c| c.bytes_out), "bytes_out: {self:?}");
    }

    /// # Panics
    /// If the totals are not exactly these, with nothing left open and every byte sent back.
    pub(crate) fn assert_exactly(&self, accepted: u64, bytes: u64) {
        self.assert_sums();
        let total = &self.total;
        assert_eq!(
            (total.accepted, total.open, total.bytes_in, total.bytes_out),
            (accepted, 0, bytes, bytes),
            "accepted, open, bytes in, bytes out: {self:?}"
        );
    }
}
