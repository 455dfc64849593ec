//! What idle connections cost a server in memory.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use lab::interrupt::Interrupt;
use load::echo::{self, EchoOptions};
use load::{Limit, Moment};
use serde::Serialize;

use super::contender::{Contender, Running};
use super::counters::Memory;
use super::turn::Setup;

/// Numbers of connections.
pub(crate) const CONNECTIONS: [u32; 3] = [0, 1000, 10_000];

/// Memory of one contender.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MemoryUse {
    pub(crate) contender: String,
    /// As many as were measured before it failed.
    pub(crate) points: Vec<MemoryPoint>,
    /// What went wrong.
    pub(crate) failure: Option<String>,
}

/// Memory with so many connections, each of which has exchanged one message of 64 bytes and is idle.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct MemoryPoint {
    pub(crate) connections: u32,
    #[serde(flatten)]
    pub(crate) memory: Memory,
}

impl MemoryUse {
    /// Resident bytes per connection: the growth from none to the most.
    pub(crate) fn bytes_per_connection(&self) -> Option<f64> {
        let (first, last) = self.points.first().zip(self.points.last())?;
        let connections =
            f64::from(last.connections.checked_sub(first.connections).filter(|&count| count > 0)?);
        Some((last.memory.rss as f64 - first.memory.rss as f64) / connections)
    }
}

/// Measures a server that is started for it.
pub(crate) fn measure(contender: &Contender, setup: &Setup, interrupt: &Interrupt) -> MemoryUse {
    let mut points = Vec::new();
    let failure = points_of(contender, setup, interrupt, &mut points).err();
    let failure = failure.map(|error| format!("{error:#}"));
    MemoryUse { contender: contender.name.clone(), points, failure }
}

fn points_of(
    contender: &Contender,
    setup: &Setup,
    interrupt: &Interrupt,
    points: &mut Vec<MemoryPoint>,
) -> anyhow::Result<()> {
    let mut server = Running::start(contender, &setup.server_cores, interrupt)?;
    for connections in CONNECTIONS {
        let memory = match connections {
            0 => Memory::read(server.pid())?,
            _ => with_connections(&mut server, connections, setup)
                .with_context(|| format!("{connections} connections"))?,
        };
        points.push(MemoryPoint { connections, memory });
    }
    Ok(())
}

fn with_connections(server: &mut Running, connections: u32, setup: &Setup) -> anyhow::Result<Memory> {
    let memory = Mutex::new(None);
    let pid = server.pid();
    let observer = |moment| {
        if moment == Moment::End {
            *memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(Memory::read(pid));
        }
    };
    let options = EchoOptions {
        connections,
        limit: Limit::Count(1),
        cores: setup.client_cores.clone(),
        timeout: setup.timeout,
        ..EchoOptions::new(server.address)
    };
    let report = echo::run_observed(&options, &observer);
    server.check()?;
    if let Some(failure) = report?.failure() {
        bail!("{failure}");
    }
    memory.into_inner().unwrap_or_else(PoisonError::into_inner).context("the end was observed")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_what_the_most_have_added() {
        let point =
            |connections, rss| MemoryPoint { connections, memory: Memory { rss, pss: 0, anonymous: 0 } };
        let points = vec![point(0, 1_000_000), point(1000, 5_000_000), point(10_000, 3_000_000)];
        let mut memory = MemoryUse { contender: "x".to_owned(), points, failure: None };
        assert_eq!(memory.bytes_per_connection(), Some(200.0));
        memory.points.truncate(1);
        assert_eq!(memory.bytes_per_connection(), None);
    }
}
