//! What each core of a server has accepted, as the server says when it ends: what `server --json` and `peers
//! blocking` have in common. Pure but for the writer.

use std::io::Write;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tune::cpu_set::Cpu;

/// What a server, or one of its processes, says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepts {
    pub(crate) cores: Vec<CoreAccepts>,
}

/// One core's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CoreAccepts {
    pub(crate) core: Cpu,
    pub(crate) accepted: u64,
    /// Of how many of these it is known on which CPU they were received.
    pub(crate) accept_samples: u64,
    /// How many of those were received on this core.
    pub(crate) accept_local_samples: u64,
}

impl CoreAccepts {
    /// Of a core that has accepted nothing.
    pub(crate) fn of(core: Cpu) -> Self {
        Self { core, accepted: 0, accept_samples: 0, accept_local_samples: 0 }
    }

    /// Counts a connection that was received on `cpu`.
    pub(crate) fn sample(&mut self, cpu: Cpu) {
        self.accept_samples += 1;
        self.accept_local_samples += u64::from(cpu == self.core);
    }
}

impl Accepts {
    /// Prints it as one line.
    pub(crate) fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        // In one write: the processes of a server have one standard output.
        let line = serde_json::to_string(self).context("accepts as JSON")? + "\n";
        out.write_all(line.as_bytes()).context("write to standard output")
    }

    /// Reads the lines of all processes; gives the cores in order.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for line in text.lines() {
            let accepts: Self =
                serde_json::from_str(line).with_context(|| format!("what a server has accepted: {line}"))?;
            all.cores.extend(accepts.cores);
        }
        all.cores.sort_by_key(|core| core.core);
        Ok(all)
    }

    /// The most that a core has accepted over the mean.
    pub(crate) fn spread(&self) -> Option<f64> {
        server::stats::spread(self.cores.iter().map(|core| core.accepted))
    }

    /// Share of connections that were received on the core that has accepted them.
    pub(crate) fn local(&self) -> Option<f64> {
        let sum = |count: fn(&CoreAccepts) -> u64| self.cores.iter().map(count).sum::<u64>() as f64;
        let samples = sum(|core| core.accept_samples);
        (samples > 0.0).then(|| sum(|core| core.accept_local_samples) / samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_all_processes_are_one_server() {
        let mut cores = [1, 0].map(CoreAccepts::of);
        (cores[0].accepted, cores[1].accepted) = (30, 10);
        [1, 0, 1, 1].into_iter().for_each(|cpu| cores[0].sample(cpu));
        let mut text = Vec::new();
        for core in &cores {
            Accepts { cores: vec![core.clone()] }.print(&mut text).unwrap();
        }
        let all = Accepts::parse(&String::from_utf8(text).unwrap()).unwrap();
        assert_eq!(all.cores.iter().map(|core| core.accepted).collect::<Vec<_>>(), [10, 30]);
        assert_eq!((all.spread(), all.local()), (Some(1.5), Some(0.75)));
        assert_eq!((Accepts::default().spread(), Accepts::default().local()), (None, None));
        assert!(Accepts::parse("listening").is_err());
    }
}
