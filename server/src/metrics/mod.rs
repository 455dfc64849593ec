//! The metrics endpoint (`--metrics ADDR:PORT`): every counter of every core at `/metrics` in OpenMetrics
//! text, and `/healthz` for load balancers and service managers.
//!
//! ```text
//! endpoint (one thread, poll) ─ exchange (one client) ─┬─ request (parse) ─ httparse
//!                                                      └─ response ─ exposition (LiveCounters -> text)
//! ```
//!
//! The endpoint's thread is not pinned and shares nothing with the workers but their counters, which it
//! reads. One thread serves all clients as their sockets become ready, so that none waits for another; of
//! more than [`MOST_CLIENTS`] the oldest is cut off. Nothing that happens here ends the server.

mod endpoint;
mod exchange;
mod exposition;
mod families;
mod request;
mod response;

pub use endpoint::EndpointError;
pub(crate) use endpoint::{Endpoint, Served};
pub use request::{Parsed, Request, Resource, parse as parse_request};
pub use response::Status;

use std::time::Duration;

/// Clients connected at a time. One more, and the one that has been here longest is cut off.
const MOST_CLIENTS: usize = 16;

/// Most files that the endpoint has open: its listener, a pair of sockets to end it with, its clients and one
/// more that is just coming.
pub(crate) const MOST_FILES: u32 = 4 + 16;

const _: () = assert!(MOST_FILES as usize == 4 + MOST_CLIENTS);

/// How long a client may take to send its request, and again to take the response.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long what a client sends after its request is read and thrown away, so that closing does not reset the
/// connection and destroy the response.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of a request's line and headers.
const MOST_REQUEST_BYTES: usize = 8 * 1024;
