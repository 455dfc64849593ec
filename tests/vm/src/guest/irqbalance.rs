//! irqbalance, running beside everything.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tune::irqbalance::Irqbalance as Asked;
use tune::kernel_files::KernelFiles;

use super::nic::Wrong;
use super::programs::Background;
use super::table::Table;
use super::{nic, wait};

/// Looks at the interrupts between two SIGHUPs: 10 s, longer than irqbalance takes to obey one.
const PATIENCE: u32 = 100;

/// A running irqbalance.
pub(super) struct Irqbalance {
    program: Background,
    before: BTreeSet<u32>,
}

impl Irqbalance {
    /// Starts one that looks at the interrupts every second, and waits until it has placed those of the
    /// queues.
    pub(super) fn start() -> Result<Self> {
        let mut running = Self::with_interval("1")?;
        running.place()?;
        Ok(running)
    }

    /// Starts one that keeps its list, and moves nothing before the machine's end, so that everything can be
    /// compared to what it was.
    pub(super) fn start_idle() -> Result<Self> {
        Self::with_interval("86400")
    }

    fn with_interval(seconds: &str) -> Result<Self> {
        let mut command = Command::new("irqbalance");
        command.args(["--foreground", "--interval", seconds]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut program = Background::start(&mut command)?;
        let before = wait::until("irqbalance answers", || {
            if let Some(code) = program.ended()? {
                bail!("irqbalance ended with status {code}");
            }
            banned()
        })?;
        Ok(Self { program, before })
    }

    /// Spreads the interrupts of the queues over all CPUs, and waits until it has placed every one of them.
    ///
    /// SIGHUP has it place anew what it may move (`force_rescan()` in its `irqbalance.c`). It is sent again
    /// after a while, since one that comes before it has placed what it placed last is lost.
    fn place(&mut self) -> Result<usize> {
        nic::spread()?;
        let mut looks = 0;
        wait::until("irqbalance places the interrupts of the queues", || {
            if let Some(code) = self.program.ended()? {
                bail!("irqbalance ended with status {code}");
            }
            if looks % PATIENCE == 0 {
                self.program.signal(Signal::HUP)?;
            }
            looks += 1;
            Ok(nic::spread_irqs()?.is_empty().then_some(()))
        })?;
        Ok(nic::irqs()?.len())
    }

    /// Checks that it leaves the interrupts of all queues alone.
    pub(super) fn check_left_alone(&self, table: &mut Table) -> Result<()> {
        let name = "irqbalance runs and leaves the queues' interrupts alone";
        table.none(name, &self.free()?, format!("{} interrupts", nic::irqs()?.len()));
        Ok(())
    }

    /// The interrupts of queues that it may move.
    pub(super) fn free(&self) -> Result<Vec<Wrong>> {
        let banned = self.banned()?;
        let free = nic::irqs()?.into_iter().filter(|irq| !banned.contains(irq));
        Ok(free.map(|irq| Wrong::new("irqbalance/banned_irqs", format!("without IRQ {irq}"))).collect())
    }

    /// True if it has ended, and its list with it.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.program.ended()?.is_some())
    }

    /// The interrupts that it was told to leave alone.
    pub(super) fn banned(&self) -> Result<BTreeSet<u32>> {
        banned()?.context("irqbalance does not answer")
    }

    /// True if its list is the one from before.
    pub(super) fn is_as_before(&self) -> Result<bool> {
        Ok(self.banned()? == self.before)
    }

    /// Checks that its list is the one from before.
    pub(super) fn check_list(&self, table: &mut Table) -> Result<()> {
        let now = format!("{:?}", self.banned()?);
        table.check("irqbalance: its list is the one from before", self.is_as_before()?, now);
        Ok(())
    }

    /// Checks that it has its list from before, and places the interrupts of the queues again.
    pub(super) fn check_given_back(mut self, table: &mut Table) -> Result<()> {
        self.check_list(table)?;
        let placed = self.place()?;
        let found = format!("{placed} of {placed}, of all CPUs each before");
        table.check("irqbalance: it places the queues' interrupts again", true, found);
        Ok(())
    }
}

/// The interrupts that it was told to leave alone; none if it does not answer.
fn banned() -> Result<Option<BTreeSet<u32>>> {
    let asked = Asked::read(&KernelFiles::open("/")?);
    Ok(asked.banned().map(|irqs| irqs.into_iter().map(|irq| irq.0).collect()))
}
