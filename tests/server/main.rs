//! Black-box tests of the `server` binary: every test starts a process of its own on a port the kernel
//! chooses, talks to it over loopback, and reads what it does from its report and from /proc.
//!
//! With `SERVER_WITHOUT=direct-descriptors,receive-credit` in the environment all servers get it as `--without`: what they
//! then use, kernels from 6.1 on have.
//!
//! "Hazard N" in a comment is the numbered way in which io_uring servers are known to go wrong that the test
//! guards against:
//!
//! | hazard | what goes wrong |
//! |---|---|
//! | 1 | a late completion of a closed connection is taken for the next one in its slot |
//! | 2 | a buffer is given back that was not taken: one client's bytes reach another |
//! | 3 | "no buffer free" is taken for the end of the stream |
//! | 4 | a multishot operation ends and nobody arms it again |
//! | 5, 6 | a full descriptor table closes clients or spins |
//! | 7 | a close without a cancel: the client never sees the end |
//! | 8 | two sends in flight, or a short one, lose or reorder bytes |
//! | 9 | a cancel loses what had been received already |
//! | 10 | the end of a client's stream cuts off the answer |
//! | 11 | a listener is closed with connections in its queue |
//! | 13 | a reader that does not read hoards the shared buffers |
//! | 14 | a burst of accepts starves the connections that are there |
//! | 15 | submissions that did not fit are forgotten |
//! | 16 | a listener that is gone makes the worker spin |
//! | 17 | io_uring is forbidden here |
//! | 19 | memory grows with the number of connections |
//! | 20 | a reset is logged as if it were an error |

mod common;

mod accept_models;
mod buffers;
mod bursts;
mod churn;
mod crowds;
mod doctor;
mod echo;
mod failures;
mod garbage;
mod half_close;
mod idle_timeout;
mod limits;
mod listening;
mod live_table;
mod memory;
mod metrics;
mod modes;
mod options;
mod overload;
mod privileges;
mod report;
mod resets;
mod shutdown;
mod slow_readers;
mod start_errors;
mod steer_auto;
mod steering;
mod threads;
mod udp;
mod zero_copy;
