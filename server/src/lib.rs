//! `server`: serves TCP connections, or UDP datagrams, with one io_uring on one pinned thread for each core.
//!
//! ```text
//! cli ─ config ─ worker_plan ─ listener + steering ─ workers ─┬─ worker (CPU a): ring, buffers, connections ─┬─ report
//!                (pure)                    (pure)             └─ worker (CPU b): …                            ┘ stats
//! ```
//!
//! A SYN processed on CPU c is given to the listener of CPU c ([`listener`], [`steering`]); the ring of CPU c
//! accepts it, receives and sends ([`worker`]). No worker ever touches another's connections. [`skew`]
//! decides when that is no good, and [`steer_auto`] acts upon it; between binding and the first thread
//! [`privileges`] are given up.
//!
//! With `--udp` the workers are those of [`udp`], which has its own, smaller loop. `server doctor`
//! ([`doctor`]) serves nothing: it holds what the host has against the same configuration. Small parts of
//! both: [`host`] reads CPUs and limits, [`cgroup`] and [`meminfo`] know where, [`numa`] binds a worker's
//! memory to its node, [`pins`] keeps the workers on their CPUs, [`signals`] says when to end, [`control`] is
//! how the main thread tells the workers to drain or stop.
//!
//! What a worker counts ([`stats`]) any thread may read while it runs: the live table and the final
//! [`report`], and the [`metrics`] endpoint.

mod cgroup;
pub mod cli;
pub mod config;
mod control;
pub mod doctor;
mod host;
pub mod listener;
mod meminfo;
pub mod metrics;
mod numa;
mod pins;
mod privileges;
pub mod report;
mod signals;
mod skew;
pub mod stats;
mod steer_auto;
mod steering;
mod udp;
pub mod worker;
pub mod worker_plan;
mod workers;
