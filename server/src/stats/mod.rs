//! What a worker counts, and the shares computed from it. Pure.
//!
//! Each worker writes its own [`LiveCounters`], which any thread may [`read`](LiveCounters::read) at any
//! time: the final report, the live table, the metrics.

mod sources;

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tune::cpu_set::Cpu;

use sources::LiveSources;
pub use sources::{Source, Sources};

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
    ($($(#[$attribute:meta])* $field:ident,)*) => {
        /// The counters of one worker, since it started, as read at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$attribute])* pub $field: u64,)*
        }

        /// The counters of a worker that runs. No two workers' share a cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct LiveCounters {
            $(pub(crate) $field: Counter,)*
            /// The CPUs that the accept samples came from.
            pub(crate) accept_from: LiveSources,
            /// The CPUs that the request samples came from.
            pub(crate) request_from: LiveSources,
        }

        impl LiveCounters {
            /// Reads them all. While the worker runs, they may be some of before and some of after one of its
            /// steps; what it sends last before it sleeps is in `bytes_out` only when it wakes up.
            pub(crate) fn read(&self) -> Counters {
                Counters { $($field: self.$field.get(),)* }
            }
        }

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }

        impl Counters {
            /// What was counted since `earlier`. [`open`](Self::open) and [`spill_bytes`](Self::spill_bytes)
            /// are no counts of events and stay what they are now.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                let counted = Self { $($field: self.$field.saturating_sub(earlier.$field),)* };
                Self { open: self.open, spill_bytes: self.spill_bytes, ..counted }
            }

            /// Every field another number, from 1 on.
            #[cfg(test)]
            pub(crate) fn numbered() -> Self {
                let mut numbers = 1..;
                Self { $($field: numbers.next().unwrap(),)* }
            }

            /// The names of the fields in order.
            #[cfg(test)]
            pub(crate) const FIELDS: &[&str] = &[$(stringify!($field),)*];
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections open now; in the final report those that were busy when the drain timeout had passed.
    open,
    /// Receives that brought bytes. One request of a client may take several, several may come in one.
    #[serde(rename = "receives")]
    requests,
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
    /// Connections that ended by an error, mostly ECONNRESET. Normal on a busy server.
    reset,
    /// Connections that were accepted and reset at the connection limit (`--overload reset`).
    refused,
    /// Times that accepting stopped because the core had as many connections as it may have.
    queue_waits,
    /// What the kernel dropped at the listeners, mostly SYNs, and last ACKs of handshakes, that found the
    /// accept queue full: their clients try again. Read every 64 turns of the loop, and at the end.
    listen_drops,
    /// Connections that were closed because nothing came or went for the idle timeout.
    idle_closed,
    /// Connections that the server closed before it knew that the peer has everything: a second after the
    /// drain timeout, or at a second signal.
    cut_off,
    /// Times that a receive found the buffer pool empty and waited for a buffer.
    starved,
    /// Times that a send found the socket full and the peer was waited for.
    blocked,
    /// Bytes copied out of the pool, or out of the pipe, because a peer read too slowly.
    bytes_copied,
    /// Bytes of the spill in use now, in whole pieces of 16 KiB; in the final report those that were when the
    /// worker ended.
    spill_bytes,
    /// Connections that were reset because their peers did not read, the spill was full, and few receive
    /// buffers were left.
    spill_full,
    /// Bytes that went back without being copied, by `splice(2)`; among those sent.
    bytes_spliced,
    /// Connections with large messages that are copied for want of a second descriptor.
    splice_refused,
    /// Times that accepting rested because the system was out of descriptors or memory.
    accept_rests,
    /// Times that the kernel had more completions than the completion queue holds and kept them back.
    cq_overflows,
    /// Sends that were zero-copy.
    zerocopy_sends,
    /// Those of them that the kernel copied all the same, as it does on loopback.
    zerocopy_copied,
    /// Connections that this core accepted and gave to another one (`--accept single`).
    handed_over,
    /// Connections that another core accepted and gave to this one.
    taken_over,
    /// Datagrams received (`--udp`).
    datagrams_in,
    /// Datagrams sent.
    datagrams_out,
    /// Datagrams received and not answered because the socket's send buffer was full.
    datagrams_dropped,
    /// Datagrams that were longer than a receive buffer: their ends were lost.
    datagrams_truncated,
    /// Datagrams that the kernel threw away because the socket's receive queue was full; not among those
    /// received.
    datagrams_overrun,
}

impl Counters {
    /// True once a server has had datagrams (`--udp`), which have no connections.
    pub(crate) fn are_of_datagrams(&self) -> bool {
        self.datagrams_in > 0 && self.accepted == 0
    }

    /// Share of the sampled connections that were accepted on the CPU that received them, 0 to 1; `None`
    /// without samples.
    #[must_use]
    pub fn accept_local(&self) -> Option<f64> {
        share(self.accept_local_samples, self.accept_samples)
    }

    /// Share of the sampled receives whose segment was received on the worker's CPU, 0 to 1; `None` without
    /// samples.
    #[must_use]
    pub fn request_local(&self) -> Option<f64> {
        share(self.request_local_samples, self.request_samples)
    }
}

/// One worker, as those see it who watch it.
#[derive(Debug, Clone)]
pub(crate) struct LiveCore {
    /// Its CPU.
    pub(crate) cpu: Cpu,
    /// The most connections it may have open.
    pub(crate) max_connections: u32,
    /// Bytes of its spill.
    pub(crate) spill: u64,
    /// What it counts.
    pub(crate) counters: Arc<LiveCounters>,
}

impl LiveCounters {
    /// For a host whose CPU numbers are below `cpus`. All memory that counting needs is taken here.
    pub(crate) fn new(cpus: u32) -> Self {
        Self { accept_from: LiveSources::new(cpus), request_from: LiveSources::new(cpus), ..Self::default() }
    }

    pub(crate) fn count_accept_sample(&self, incoming: Option<Cpu>, own: Cpu) {
        self.accept_from.count(incoming);
        self.accept_samples.add(1);
        self.accept_local_samples.add(u64::from(incoming == Some(own)));
    }

    pub(crate) fn count_request_sample(&self, incoming: Option<Cpu>, own: Cpu) {
        self.request_from.count(incoming);
        self.request_samples.add(1);
        self.request_local_samples.add(u64::from(incoming == Some(own)));
    }
}

/// A part that was counted after the whole was read is left out: no share is above 1.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part.min(whole) as f64 / whole as f64)
}

/// How unevenly something is spread over cores: the most that one has, divided by the mean. 1: all have the
/// same; the number of cores: one has all. `None` if there is nothing.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
pub fn spread(counts: impl Iterator<Item = u64> + Clone) -> Option<f64> {
    let (most, all) = (counts.clone().max()?, counts.clone().sum::<u64>());
    (all > 0).then(|| most as f64 * counts.count() as f64 / all as f64)
}

/// Whether to sample the `n`th accept (from 1) of a worker: all of the first 4096, then every 16th. A sample
/// costs one more request.
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
    fn a_sample_that_is_being_counted_makes_no_share_above_1() {
        let read_between = Counters { accept_samples: 4, accept_local_samples: 5, ..Counters::default() };
        assert_eq!(read_between.accept_local(), Some(1.0));
    }

    #[test]
    fn samples_are_counted_by_the_cpu_that_they_came_from() {
        let counters = LiveCounters::new(8);
        for cpu in [Some(3), Some(7), Some(3), None] {
            counters.count_accept_sample(cpu, 3);
        }
        counters.count_request_sample(Some(0), 3);
        let accepts = counters.accept_from.read();
        assert_eq!(
            accepts.iter().collect::<Vec<_>>(),
            [(Source::Cpu(3), 2), (Source::Cpu(7), 1), (Source::Unknown, 1)]
        );
        assert_eq!(accepts.total(), counters.read().accept_samples);
        assert_eq!(counters.request_from.read().iter().collect::<Vec<_>>(), [(Source::Cpu(0), 1)]);
    }

    #[test]
    fn what_was_counted_since_is_the_difference_but_for_what_is_open() {
        let before = Counters { accepted: 5, open: 5, bytes_in: 7, spill_bytes: 9, ..Counters::default() };
        let now = Counters { accepted: 9, open: 2, bytes_in: 7, spill_bytes: 1, ..Counters::default() };
        let expected = Counters { accepted: 4, open: 2, spill_bytes: 1, ..Counters::default() };
        assert_eq!(now.since(&before), expected);
    }

    #[test]
    fn the_spread_is_the_most_over_the_mean() {
        let of = |counts: &[u64]| spread(counts.iter().copied());
        assert_eq!((of(&[]), of(&[0, 0])), (None, None));
        assert_eq!((of(&[5, 5, 5]), of(&[0, 12, 0, 0])), (Some(1.0), Some(4.0)));
        assert_eq!(of(&[30, 10]), Some(1.5));
    }

    #[test]
    fn early_receives_are_sampled_densely_and_later_ones_regularly() {
        let sampled: Vec<u32> = (1..=256).filter(|&n| samples_receive(n)).collect();
        assert_eq!(sampled, [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]);
    }
}
