//! `server`: accepts TCP connections and echoes what they send, one io_uring on one pinned thread for each core.
//!
//! ```text
//! cli ─ config ─ worker_plan ─ listener + steering ─ workers ─┬─ worker (CPU a): ring, buffers, connections ─┬─ report
//!                (pure)                    (pure)             └─ worker (CPU b): …                            ┘ stats
//! ```
//!
//! A SYN processed on CPU c is given to the listener of CPU c ([`listener`], [`steering`]); the ring of CPU c accepts it,
//! receives and sends ([`worker`]). No worker ever touches another's connections.

pub mod cli;
pub mod config;
mod control;
mod host;
pub mod listener;
pub mod report;
pub mod stats;
mod steering;
mod udp;
pub mod worker;
pub mod worker_plan;
mod workers;
