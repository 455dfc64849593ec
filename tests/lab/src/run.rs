//! The rounds: before, `tune apply`, after, `tune restore`, and the check that everything is as it was.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use tune::cpu_set::CpuSet;

use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::measurement::{Steer, Workload, measure};
use crate::report::{Results, Round};
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
    let mut progress = Progress::new(rounds);
    let mut done = Vec::new();
    for _ in 0..rounds {
        done.push(run_round(&testbed, &workload, interrupt, &mut progress)?);
    }
    Ok(Results::new(machine, workload, done))
}

fn run_round(
    testbed: &Testbed,
    workload: &Workload,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> anyhow::Result<Round> {
    progress.next_round();
    let untouched = testbed.settings()?;
    progress.step("before");
    let before = measure(testbed, workload, Steer::Hash, interrupt).context("before")?;
    progress.step("tune apply");
    let cpus = testbed.cpus.to_string();
    run_tune(testbed, &["--interface", NIC, "--cpus", &cpus, "apply", PROFILE_PATH], interrupt)?;
    let applied = testbed.settings()?.differences(&untouched);
    if applied.is_empty() {
        bail!("tune apply has changed nothing on {NIC}");
    }
    progress.step("after");
    let after = measure(testbed, workload, Steer::Cpu, interrupt).context("after")?;
    progress.step("tune restore");
    run_tune(testbed, &["restore"], interrupt)?;
    let left = testbed.settings()?.differences(&untouched);
    if let Some(first) = left.first() {
        bail!("tune restore left {} of {} values changed: {first}", left.len(), applied.len());
    }
    Ok(Round { before, applied, after })
}

fn run_tune(testbed: &Testbed, args: &[&str], interrupt: &Interrupt) -> anyhow::Result<()> {
    interrupt.check()?;
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let mut tune = Child::start("tune", &args, &testbed.server, interrupt)?;
    tune.go();
    tune.finish(TUNE_PATIENCE)?;
    Ok(())
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
