//! The values that options may have, for the command line and for those who call the library. Pure.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::sources::Sources;
use crate::{Error, Limit};

/// Connections in all: one client address has no more ports towards one server.
pub const CONNECTIONS: RangeInclusive<u32> = 1..=65_535;

/// Bytes of a message.
pub const SIZE: RangeInclusive<u32> = 1..=1 << 20;

/// Bytes of a datagram: what tells them apart, to the most that IPv4 carries.
pub const DATAGRAM: RangeInclusive<u32> = 8..=65_507;

/// Messages under way at once on one connection.
pub const DEPTH: RangeInclusive<u32> = 1..=65_536;

/// Messages per second in all, open loop.
pub const RATE: RangeInclusive<u32> = 1..=100_000_000;

/// Connections under way at once on one thread of the connect mode.
pub const PARALLEL: RangeInclusive<u32> = 1..=4096;

/// Processes of the article's workload.
pub const PROCESSES: RangeInclusive<u32> = 1..=4096;

/// Durations: at least what a wait is rounded up to, and no more than can be added to a clock.
pub const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// Refuses a number outside of its range.
pub(crate) fn check(option: &'static str, value: u32, range: &RangeInclusive<u32>) -> Result<(), Error> {
    let allowed = format_args!("{} to {}", range.start(), range.end());
    require(range.contains(&value), option, value, allowed)
}

/// Refuses a duration outside of [`TIME`].
pub(crate) fn check_time(option: &'static str, time: Duration) -> Result<(), Error> {
    require(TIME.contains(&time), option, format_args!("{time:?}"), "1ms to 24h")
}

/// Refuses a run that cannot end, or has nothing to do.
pub(crate) fn check_limit(limit: Limit) -> Result<(), Error> {
    match limit {
        Limit::Duration(duration) => check_time("--duration", duration),
        Limit::Count(count) => require(count > 0, "--count", count, "at least 1"),
    }
}

/// Refuses a rate outside of [`RATE`], and one without a duration.
pub(crate) fn check_rate(rate: Option<u32>, limit: Limit) -> Result<(), Error> {
    let Some(rate) = rate else { return Ok(()) };
    check("--rate", rate, &RATE)?;
    require(matches!(limit, Limit::Duration(_)), "--rate", rate, "a --duration with it, not a --count")
}

/// Refuses sources from which the server can't be reached.
pub(crate) fn check_sources(sources: Option<&Sources>, server: SocketAddr) -> Result<(), Error> {
    let Some(sources) = sources else { return Ok(()) };
    let family = if server.is_ipv4() { "IPv4" } else { "IPv6" };
    let allowed = format_args!("{family} addresses, as --connect is");
    require(sources.fit(server.ip()), "--sources", sources, allowed)
}

fn require(
    holds: bool,
    option: &'static str,
    value: impl Display,
    allowed: impl Display,
) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Option { option, value: value.to_string(), reason: format!("give {allowed}") })
}
