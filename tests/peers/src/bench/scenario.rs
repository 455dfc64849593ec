//! What is measured. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// One workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Messages to and fro, closed loop; with a count so many on each connection, again and again on new
    /// connections.
    Echo { size: u32, connections: u32, depth: u32, count: Option<u32> },
    /// Connections made and reset by the client, with one message before if `echo`.
    Connect { echo: bool },
    /// So many connections that wait, each with a message, are worked off; again and again.
    Backlog { connections: u32 },
    /// Messages at a share of the rate that the best of the other contenders reaches in the closed loop, per
    /// cent.
    Open { percent: u32 },
    /// Memory with idle connections.
    Memory,
}

/// Bytes and connections of the open loop.
pub(crate) const OPEN: (u32, u32) = (64, 50);

/// What is measured unless it is said.
pub(crate) const DEFAULT: [&str; 15] = [
    "echo-64x1",
    "echo-64x50",
    "echo-64x500",
    "echo-64x1000",
    "echo-512x1000",
    "echo-4kx50",
    "echo-16kx50",
    "echo-512kx50-n10",
    "connect-reset",
    "connect-echo",
    "backlog-400",
    "open-30",
    "open-60",
    "open-90",
    "idle-memory",
];

impl Scenario {
    /// Whether it ends by itself, and is begun anew until the turn is over.
    pub(crate) fn is_repeated(self) -> bool {
        matches!(self, Self::Echo { count: Some(_), .. } | Self::Backlog { .. })
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "not echo-SIZExCONNECTIONS (or …xDEPTH, or …-nCOUNT, such as echo-4kx50, echo-64x50x8 or \
                 echo-512kx50-n10; size 1 to 1024k, connections 1 to 10000, depth and count 1 to 65536), \
                 connect-reset, connect-echo, backlog-CONNECTIONS (1 to 4000), open-PERCENT (1 to 200) or \
                 idle-memory; by default {}",
                DEFAULT.join(",")
            )
        };
        let in_range = |text: &str, most: u32| text.parse().ok().filter(|number| (1..=most).contains(number));
        match text {
            "connect-reset" => return Ok(Self::Connect { echo: false }),
            "connect-echo" => return Ok(Self::Connect { echo: true }),
            "idle-memory" => return Ok(Self::Memory),
            _ => {}
        }
        if let Some(percent) = text.strip_prefix("open-") {
            return in_range(percent, 200).map(|percent| Self::Open { percent }).ok_or_else(wrong);
        }
        if let Some(connections) = text.strip_prefix("backlog-") {
            return in_range(connections, 4000)
                .map(|connections| Self::Backlog { connections })
                .ok_or_else(wrong);
        }
        let parse_echo = |text: &str| {
            let (text, count) = match text.split_once("-n") {
                Some((text, count)) => (text, Some(in_range(count, 65_536)?)),
                None => (text, None),
            };
            let mut parts = text.split('x');
            let size = parts.next()?;
            let size = match size.strip_suffix('k') {
                Some(size) => 1024 * in_range(size, 1024)?,
                None => in_range(size, 1 << 20)?,
            };
            let connections = in_range(parts.next()?, 10_000)?;
            let depth = parts.next().map_or(Some(1), |depth| in_range(depth, 65_536))?;
            parts.next().is_none().then_some(Self::Echo { size, connections, depth, count })
        };
        text.strip_prefix("echo-").and_then(parse_echo).ok_or_else(wrong)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Echo { size, connections, depth, count } => {
                match size.is_multiple_of(1024) {
                    true => write!(f, "echo-{}kx{connections}", size / 1024)?,
                    false => write!(f, "echo-{size}x{connections}")?,
                }
                if depth > 1 {
                    write!(f, "x{depth}")?;
                }
                count.map_or(Ok(()), |count| write!(f, "-n{count}"))
            }
            Self::Connect { echo } => f.write_str(if echo { "connect-echo" } else { "connect-reset" }),
            Self::Backlog { connections } => write!(f, "backlog-{connections}"),
            Self::Open { percent } => write!(f, "open-{percent}"),
            Self::Memory => f.write_str("idle-memory"),
        }
    }
}

impl Serialize for Scenario {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in DEFAULT.into_iter().chain(["echo-64x50x8", "echo-64x50x8-n3", "echo-4kx1", "open-200"]) {
            assert_eq!(name.parse::<Scenario>().unwrap().to_string(), name);
        }
        let bulk = Scenario::Echo { size: 512 * 1024, connections: 50, depth: 1, count: Some(10) };
        assert_eq!("echo-512kx50-n10".parse(), Ok(bulk));
    }

    #[test]
    fn what_is_no_scenario_is_refused_with_those_there_are() {
        for name in [
            "",
            "echo",
            "echo-64",
            "echo-0x1",
            "echo-64x0",
            "echo-2048kx1",
            "echo-1x1x1x1",
            "echo-1x1-n0",
            "backlog-0",
            "backlog-5000",
            "open-0",
            "open-",
        ] {
            let error = name.parse::<Scenario>().unwrap_err();
            assert!(error.contains("idle-memory"), "{name}: {error}");
        }
    }
}
