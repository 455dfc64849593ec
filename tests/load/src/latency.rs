//! Percentiles.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Percentiles of the time of an operation, microseconds; all 0 if there was none. Three significant digits.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the operations took at most this long.
    pub p50: f64,
    /// 90 of 100 operations.
    pub p90: f64,
    /// 99 of 100 operations.
    pub p99: f64,
    /// 999 of 1000 operations.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// The slowest operation.
    pub max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let microseconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6;
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: microseconds(histogram.max()),
        }
    }

    pub(crate) fn print(&self, out: &mut impl Write, what: &str) -> io::Result<()> {
        let Self { p50, p90, p99, p99_9, max } = self;
        writeln!(out, "{what}: p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p99_9:.1}, max {max:.1}")
    }
}
