//! Counters of the live machine, read before and after and subtracted.
//!
//! `softirqs` and `softnet` are parsers of text; whoever opens the file adds its path to the error. Both
//! files count for the whole host, not for one network namespace or process. `perf_events` counts for one
//! process.

pub mod perf_events;
pub mod softirqs;
pub mod softnet;

/// Why the text of a kernel file is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}: {text:?}")]
pub struct ParseError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
    /// The line.
    pub text: String,
}
