//! What a worker counts, and the shares computed from it. Pure.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tune::cpu_set::Cpu;

/// A number that one thread counts and any thread may read. Counting takes no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more. Only the thread that counts may call this.
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get() + n);
    }

    /// Only the thread that counts may call this.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One list of fields for the counters that a worker writes and for those that were read from it.
macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// The counters of one worker, since it started, as read at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        /// The counters of a worker that runs. No two workers' share a cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct LiveCounters {
            $(pub(crate) $field: Counter,)*
        }

        impl LiveCounters {
            /// Reads them all. While the worker runs, they may be some of before and some of after one of its steps.
            pub(crate) fn read(&self) -> Counters {
                Counters { $($field: self.$field.get(),)* }
            }
        }

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections open now; in the final report those that were busy when the drain timeout had passed.
    open,
    /// Bytes received.
    bytes_in,
    /// Bytes that the kernel took for sending.
    bytes_out,
    /// Accepted connections whose `SO_INCOMING_CPU` was read right after the accept.
    accept_samples,
    /// Those of them whose last segment had been received on the worker's own CPU.
    accept_local_samples,
    /// Receives after which `SO_INCOMING_CPU` was read.
    request_samples,
    /// Those of them whose last segment had been received on the worker's own CPU.
    request_local_samples,
    /// Connections that ended by an error, mostly ECONNRESET; with UDP, receives that ended by one. Normal on a busy server.
    reset,
    /// Times that a receive found the buffer pool empty and waited for a buffer.
    starved,
    /// Times that a send found the socket full and the peer was waited for.
    blocked,
    /// Bytes copied out of the pool because a peer read too slowly.
    bytes_copied,
    /// Times that accepting rested because the system was out of descriptors or memory.
    accept_rests,
    /// Datagrams received, those that the kernel has put together (GRO) counted one by one.
    datagrams_in,
    /// Datagrams that the kernel took for sending.
    datagrams_out,
    /// Datagrams received and not sent back: the socket's send queue was full, the kernel refused to send them, or they
    /// came from the server's own port.
    datagrams_dropped,
    /// Datagrams that were longer than a receive buffer and not sent back.
    datagrams_truncated,
    /// Datagrams that the kernel threw away because the socket's receive queue was full; not among those received.
    datagrams_overrun,
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
}

impl LiveCounters {
    pub(crate) fn count_accept_sample(&self, incoming: Option<Cpu>, own: Cpu) {
        self.accept_samples.add(1);
        self.accept_local_samples.add(u64::from(incoming == Some(own)));
    }

    pub(crate) fn count_request_sample(&self, incoming: Option<Cpu>, own: Cpu) {
        self.request_samples.add(1);
        self.request_local_samples.add(u64::from(incoming == Some(own)));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
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
        let counters = LiveCounters::default();
        assert_eq!((counters.read().accept_local(), counters.read().request_local()), (None, None));
        counters.count_accept_sample(Some(3), 3);
        counters.count_accept_sample(Some(4), 3);
        counters.count_accept_sample(None, 3);
        counters.count_accept_sample(Some(3), 3);
        assert_eq!(counters.read().accept_local(), Some(0.5));
    }

    #[test]
    fn early_receives_are_sampled_densely_and_later_ones_regularly() {
        let sampled: Vec<u32> = (1..=256).filter(|&n| samples_receive(n)).collect();
        assert_eq!(sampled, [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]);
    }
}
