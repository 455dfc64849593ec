//! The rounds: before; `tune apply`, after, `tune restore` and the check that everything is as it was; by
//! turns one or the other first.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use tune::cpu_set::CpuSet;

use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::measurement::{Measurement, Steer, Workload, measure};
use crate::report::{Results, Round, Side};
use crate::settings::{Difference, Settings};
use crate::testbed::{NIC, PROFILE_PATH, Testbed};

/// How long `tune` may take; far more than it needs.
const TUNE_PATIENCE: Duration = Duration::from_secs(30);

/// Makes the testbed, runs `rounds` rounds on it, and takes it away.
pub(crate) fn run(
    cpus: CpuSet,
    rounds: u32,
    workload: Workload,
    interrupt: &Interrupt,
) -> anyhow::Result<Results> {
    let machine = Machine::read(cpus.clone());
    let testbed = Testbed::create(cpus)?;
    let untouched = testbed.settings()?;
    let mut lab = Lab { testbed, untouched, workload, interrupt, progress: Progress::new(rounds) };
    let first = [Side::Before, Side::After].into_iter().cycle();
    let done: anyhow::Result<_> = (0..rounds).zip(first).map(|(_, first)| lab.round(first)).collect();
    Ok(Results::new(machine, workload, done?))
}

/// What all rounds share.
struct Lab<'a> {
    testbed: Testbed,
    /// What everything was set to before the first round.
    untouched: Settings,
    workload: Workload,
    interrupt: &'a Interrupt,
    progress: Progress,
}

impl Lab<'_> {
    /// One round. A machine that gets slower or faster from one half of a round to the next does so to the
    /// gain of before in one round and of after in the other.
    fn round(&mut self, first: Side) -> anyhow::Result<Round> {
        self.progress.next_round();
        let (before, (applied, after)) = match first {
            Side::Before => (self.before()?, self.after()?),
            Side::After => {
                let after = self.after()?;
                (self.before()?, after)
            }
        };
        Ok(Round { first, before, applied, after })
    }

    fn before(&self) -> anyhow::Result<Measurement> {
        self.progress.step("before");
        measure(&self.testbed, &self.workload, Steer::Hash, self.interrupt).context("before")
    }

    /// Applies, measures, restores and checks that; gives what was applied, too.
    fn after(&self) -> anyhow::Result<(Vec<Difference>, Measurement)> {
        self.progress.step("tune apply");
        let cpus = self.testbed.cpus.to_string();
        self.tune(&["--interface", NIC, "--cpus", &cpus, "apply", PROFILE_PATH])?;
        let applied = self.testbed.settings()?.differences(&self.untouched);
        if applied.is_empty() {
            bail!("tune apply has changed nothing on {NIC}");
        }
        self.progress.step("after");
        let after = measure(&self.testbed, &self.workload, Steer::Cpu, self.interrupt).context("after")?;
        self.progress.step("tune restore");
        self.tune(&["restore"])?;
        let left = self.testbed.settings()?.differences(&self.untouched);
        match left.first() {
            Some(first) => {
                bail!("tune restore left {} of {} values changed: {first}", left.len(), applied.len())
            }
            None => Ok((applied, after)),
        }
    }

    fn tune(&self, args: &[&str]) -> anyhow::Result<()> {
        self.interrupt.check()?;
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut tune = Child::start("tune", &args, &self.testbed.server, self.interrupt)?;
        tune.go();
        tune.finish(TUNE_PATIENCE)?;
        Ok(())
    }
}

/// One line on standard error, if that is a terminal.
struct Progress {
    round: u32,
    rounds: u32,
    terminal: bool,
}

impl Progress {
    fn new(rounds: u32) -> Self {
        Self { round: 0, rounds, terminal: std::io::stderr().is_terminal() }
    }

    fn next_round(&mut self) {
        self.round += 1;
    }

    fn step(&self, step: &str) {
        if self.terminal {
            // A terminal that is gone does not stop the measurement.
            let _ = write!(std::io::stderr(), "\r\x1b[Kround {} of {}: {step}", self.round, self.rounds);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
