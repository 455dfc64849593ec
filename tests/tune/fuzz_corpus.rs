//! What `cargo fuzz` runs on a nightly compiler (`tests/fuzz`), on the files of its corpus and damaged ones.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "../fuzz/src/of_tune.rs"]
#[allow(unreachable_pub, reason = "it is a module of the library that is fuzzed, too")]
mod of_tune;
#[path = "../fuzz/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn archives() {
    replay("archive", of_tune::archive);
}

#[test]
fn captured_files() {
    replay("captured", of_tune::captured);
}

#[test]
fn cpu_sets() {
    replay("cpu_set", of_tune::cpu_set);
}

#[test]
fn interrupts() {
    replay("interrupts", of_tune::interrupts);
}

#[test]
fn journals() {
    replay("journal", of_tune::journal);
}

#[test]
fn profiles() {
    replay("profile", of_tune::profile);
}
