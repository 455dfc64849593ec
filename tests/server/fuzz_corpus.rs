//! What `cargo fuzz` runs on a nightly compiler (`tests/fuzz`), on the files of its corpus and damaged ones.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "../fuzz/src/of_server.rs"]
#[allow(unreachable_pub, reason = "it is a module of the library that is fuzzed, too")]
mod of_server;
#[path = "../fuzz/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn configurations() {
    replay("server_config", of_server::config);
}

#[test]
fn requests() {
    replay("server_request", of_server::request);
}
