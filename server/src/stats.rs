//! What a worker counts, and the shares computed from it. Pure.

use std::ops::AddAssign;

use serde::Serialize;
use tune::cpu_set::Cpu;

/// The counters of one worker, since it started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now; in the final report those that were busy when the drain timeout had passed.
    pub open: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel took for sending.
    pub bytes_out: u64,
    /// Accepted connections whose `SO_INCOMING_CPU` was read right after the accept.
    pub accept_samples: u64,
    /// Those of them whose last segment had been received on the worker's own CPU.
    pub accept_local_samples: u64,
    /// Receives after which `SO_INCOMING_CPU` was read.
    pub request_samples: u64,
    /// Those of them whose last segment had been received on the worker's own CPU.
    pub request_local_samples: u64,
    /// Connections that ended by an error, mostly ECONNRESET. Normal on a busy server.
    pub reset: u64,
    /// Times that a receive found the buffer pool empty and waited for a buffer.
    pub starved: u64,
    /// Times that a send found the socket full and the peer was waited for.
    pub blocked: u64,
    /// Bytes copied out of the pool because a peer read too slowly.
    pub bytes_copied: u64,
    /// Times that accepting rested because the system was out of descriptors or memory.
    pub accept_rests: u64,
}

impl Counters {
    /// Share of the sampled connections that were accepted on the CPU that received them, 0 to 1; `None` without samples.
    #[must_use]
    pub fn accept_local(&self) -> Option<f64> {
        share(self.accept_local_samples, self.accept_samples)
    }

    /// Share of the sampled receives whose segment was received on the worker's CPU, 0 to 1; `None` without samples.
    #[must_use]
    pub fn request_local(&self) -> Option<f64> {
        share(self.request_local_samples, self.request_samples)
    }

    pub(crate) fn count_accept_sample(&mut self, incoming: Option<Cpu>, own: Cpu) {
        self.accept_samples += 1;
        self.accept_local_samples += u64::from(incoming == Some(own));
    }

    pub(crate) fn count_request_sample(&mut self, incoming: Option<Cpu>, own: Cpu) {
        self.request_samples += 1;
        self.request_local_samples += u64::from(incoming == Some(own));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.open += other.open;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.accept_samples += other.accept_samples;
        self.accept_local_samples += other.accept_local_samples;
        self.request_samples += other.request_samples;
        self.request_local_samples += other.request_local_samples;
        self.reset += other.reset;
        self.starved += other.starved;
        self.blocked += other.blocked;
        self.bytes_copied += other.bytes_copied;
        self.accept_rests += other.accept_rests;
    }
}

/// Whether to sample the `n`th accept (from 1) of a worker: all of the first 4096, then every 16th. A sample costs one
/// more request.
pub(crate) fn samples_accept(n: u64) -> bool {
    n <= 4096 || n.is_multiple_of(16)
}

/// Whether to sample the `n`th receive (from 1) of a connection: the 1st, 2nd, 4th, … 64th, then every 64th.
pub(crate) fn samples_receive(n: u32) -> bool {
    n.is_power_of_two() && n < 64 || n.is_multiple_of(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_without_samples_is_unknown_not_zero() {
        let mut counters = Counters::default();
        assert_eq!((counters.accept_local(), counters.request_local()), (None, None));
        counters.count_accept_sample(Some(3), 3);
        counters.count_accept_sample(Some(4), 3);
        counters.count_accept_sample(None, 3);
        counters.count_accept_sample(Some(3), 3);
        assert_eq!(counters.accept_local(), Some(0.5));
    }

    #[test]
    fn early_receives_are_sampled_densely_and_later_ones_regularly() {
        let sampled: Vec<u32> = (1..=256).filter(|&n| samples_receive(n)).collect();
        assert_eq!(sampled, [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]);
    }
}
