//! What is fuzzed: each function takes any bytes, and panics if what must hold of them does not. The programs
//! in `fuzz_targets` give them libFuzzer's; `tests/tune/fuzz_corpus.rs` and `tests/server/fuzz_corpus.rs`,
//! which take in the same files, those of `corpus/` and damaged ones, on a stable compiler.

pub mod of_server;
pub mod of_tune;
