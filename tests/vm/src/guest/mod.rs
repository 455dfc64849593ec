//! What runs in the guest.
//!
//! * [`table`] prints one line for each check;
//! * [`programs`] runs `tune`, `server`, `load` and what else a user has; [`wait`] waits for something to
//!   become true;
//! * [`nic`], [`interrupts`], [`files`] and [`transmit`] look at the kernel without asking `tune`;
//! * the other modules are the groups of checks.

mod drift;
mod few_queues;
mod files;
pub(crate) mod http;
mod interrupts;
mod irqbalance;
mod killed;
mod nic;
mod offline;
mod others;
mod perf;
mod programs;
mod restore;
mod serving;
mod steering;
mod table;
mod transmit;
mod wait;

use anyhow::Result;

use crate::cli::{Asked, Group};
use table::Table;

/// Runs the groups; false if a check did not hold.
pub(crate) fn run(asked: &Asked) -> Result<bool> {
    let release = rustix::system::uname();
    let cpus = nic::online()?;
    println!("Linux {}, CPUs {cpus}, eth0: {}", release.release().to_string_lossy(), nic::driver()?);
    let queues = nic::queues()?;
    let mut table = Table::default();
    for group in &asked.group {
        println!("-- {}", group.name());
        if let Err(error) = run_group(*group, asked, &mut table) {
            table.check("the group ran to its end", false, format!("{error:#}"));
            // What it left behind must not spoil the next one.
            programs::tune(&["restore"])?;
            if nic::queues()? != queues {
                nic::set_channels(queues)?;
            }
        }
    }
    Ok(table.finish())
}

fn run_group(group: Group, asked: &Asked, table: &mut Table) -> Result<()> {
    match group {
        Group::Steering => steering::run(table),
        Group::FewQueues => few_queues::run(table),
        Group::Restore => restore::run(table),
        Group::Drift => drift::run(table),
        Group::Offline => offline::run(table),
        Group::Killed => killed::run(asked.kills, table),
        Group::Others => others::run(table),
    }
}
