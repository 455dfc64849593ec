//! What the server did and does: the final report ([`table`] for people, [`json`] for programs) and the
//! [`live`] table.

mod grid;
mod json;
pub(crate) mod live;
mod table;

use std::io::{self, Write};

use serde::Serialize;
use tune::cpu_set::Cpu;

use crate::config::Options;
use crate::stats::{self, Counters, LiveCore, Sources};
use crate::worker::Features;

/// What one core did.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreReport {
    /// The CPU.
    pub core: Cpu,
    /// Its worker's counters.
    pub counters: Counters,
    /// The CPUs that received the last segments of its sampled connections when they were accepted.
    pub accept_from: Sources,
    /// The CPUs that received the last segments of its sampled receives.
    pub request_from: Sources,
}

impl CoreReport {
    pub(crate) fn read(core: &LiveCore) -> Self {
        Self {
            core: core.cpu,
            counters: core.counters.read(),
            accept_from: core.counters.accept_from.read(),
            request_from: core.counters.request_from.read(),
        }
    }
}

/// What the server was to do, beside what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// Every option, with the addresses that were bound, the cores, and the limits of connections and of the
    /// spill that there are.
    pub options: Options,
    /// What is used of the kernel.
    pub features: Features,
}

/// What the server did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    total: Counters,
    cores: Vec<CoreReport>,
}

impl Report {
    /// Adds the cores up.
    #[must_use]
    pub fn new(cores: Vec<CoreReport>) -> Self {
        let mut total = Counters::default();
        cores.iter().for_each(|core| total += core.counters);
        Self { total, cores }
    }

    /// How unevenly the accepted connections are spread over the cores: the most that one has, divided by the
    /// mean; `None` if there are none.
    #[must_use]
    pub fn accepted_spread(&self) -> Option<f64> {
        stats::spread(self.cores.iter().map(|core| core.counters.accepted))
    }

    /// Writes one JSON object: `schema`, `options` with the keys of a file of `--config`, `features`,
    /// `total`, `cores[]`. What is asked of no option is null. Shares are 0 to 1, null without samples; bytes
    /// are counted in user space. `accept_from` and `request_from` say how many samples were received on
    /// which CPU, as in `{"0": 41, "3": 12, "unknown": 1}`, the core's own CPU included. `total` alone has
    /// `accepted_spread` ([`Report::accepted_spread`]).
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_json(&self, in_force: &InForce, out: &mut impl Write) -> io::Result<()> {
        json::write(self, in_force, out)
    }

    /// Writes the table, one row for each core in the order of `--cores`, then the total; what happened at
    /// limits, if anything did; and where what was not local came from.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        table::write(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two cores, of which the second one has nothing but what the first one has, too.
    pub(super) fn report() -> Report {
        let counters = Counters {
            accepted: 3,
            bytes_in: 10,
            bytes_out: 10,
            accept_samples: 2,
            accept_local_samples: 1,
            ..Counters::default()
        };
        let core = |core| CoreReport {
            core,
            counters,
            accept_from: Sources::default(),
            request_from: Sources::default(),
        };
        Report::new(vec![core(4), core(1)])
    }
}
