//! irqbalance, running beside everything.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tune::irqbalance::Irqbalance as Asked;
use tune::kernel_files::KernelFiles;

use super::programs::Background;
use super::table::Table;
use super::{nic, wait};

/// A running irqbalance that looks at the interrupts every second.
pub(super) struct Irqbalance {
    program: Background,
    before: BTreeSet<u32>,
}

impl Irqbalance {
    /// Starts it and waits until it answers and has placed interrupts.
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new("irqbalance");
        command.args(["--foreground", "--interval", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut program = Background::start(&mut command)?;
        let before = wait::until("irqbalance answers", || {
            if let Some(code) = program.ended()? {
                bail!("irqbalance ended with status {code}");
            }
            banned()
        })?;
        Ok(Self { program, before })
    }

    /// Checks that it leaves the interrupts of all queues alone.
    pub(super) fn check_left_alone(&self, table: &mut Table) -> Result<()> {
        let banned = banned()?.context("irqbalance does not answer")?;
        let queues: Vec<u32> = nic::vectors()?.queues.into_values().flatten().collect();
        let free: Vec<String> =
            queues.iter().filter(|irq| !banned.contains(irq)).map(|irq| format!("IRQ {irq}")).collect();
        table.none(
            "irqbalance runs and leaves the queues' interrupts alone",
            &free,
            format!("{} interrupts", queues.len()),
        );
        Ok(())
    }

    /// Checks that it has its list from before, and moves the interrupts of the queues again.
    pub(super) fn check_given_back(mut self, table: &mut Table) -> Result<()> {
        let now = banned()?.context("irqbalance does not answer")?;
        table.check("irqbalance: its list is the one from before", now == self.before, format!("{now:?}"));
        let queues: Vec<u32> = nic::vectors()?.queues.into_values().flatten().collect();
        let all = nic::online()?.to_string();
        let moved = wait::until("irqbalance places the interrupts again", || {
            let mut moved = 0;
            for irq in &queues {
                moved += usize::from(nic::read(format!("/proc/irq/{irq}/smp_affinity_list"))? != all);
            }
            if self.program.ended()?.is_some() {
                bail!("irqbalance has ended");
            }
            Ok((moved > 0).then_some(moved))
        })?;
        table.check(
            "irqbalance: it places the queues' interrupts again",
            true,
            format!("{moved} of {}", queues.len()),
        );
        Ok(())
    }
}

/// The interrupts that it was told to leave alone; none if it does not answer.
fn banned() -> Result<Option<BTreeSet<u32>>> {
    let asked = Asked::read(&KernelFiles::open("/")?);
    Ok(asked.banned().map(|irqs| irqs.into_iter().map(|irq| irq.0).collect()))
}
