//! The users' three steps: hash against CPU, before and after `tune apply`, with irqbalance running all the
//! time.

use std::collections::BTreeMap;

use anyhow::Result;
use tune::cpu_set::CpuSet;

use super::files::Files;
use super::irqbalance::Irqbalance;
use super::nic::Queue;
use super::serving::{self, serve};
use super::table::Table;
use super::{nic, programs};

/// The least share that counts as local.
const LOCAL: f64 = 0.995;

pub(super) fn run(table: &mut Table) -> Result<()> {
    let cpus = nic::online()?.len();
    let irqbalance = Irqbalance::start()?;
    let untuned = Files::read()?.without_interrupts();

    let before = serve("hash")?;
    before.check_echoes("untuned, by hash", table)?;
    serving::check_by_chance(&before, cpus, table)?;
    table.check("untuned: perf stat and our counters agree", before.perf.agree(), before.perf);

    serving::check_apply(table)?;
    let queues = nic::read_queues()?;
    let name = "each queue: interrupts and XPS on its CPU, no RPS";
    table.none(name, &nic::wrong_with_a_queue_for_each_cpu()?, format!("{} queues", queues.len()));
    check_vectors(&queues, table)?;

    let after = serve("cpu")?;
    after.check_echoes("tuned, by CPU", table)?;
    after.check_locality("tuned, by CPU", LOCAL, table)?;
    after.check_interrupts("tuned", &queues, table);
    after.check_transmit("tuned", &queues, table);
    table.check("tuned: perf stat and our counters agree", after.perf.agree(), after.perf);
    irqbalance.check_left_alone(table)?;
    table.none(
        "irqbalance: what was applied still holds",
        &nic::wrong_with_a_queue_for_each_cpu()?,
        "all queues",
    );

    let restored = programs::tune(&["restore"])?.expect(0)?;
    table.check("restore", true, restored.lines().last().unwrap_or_default());
    let files = Files::read()?.without_interrupts();
    table.none(
        "restore: every file but affinities as before",
        &untuned.differences(&files),
        format!("{} files", files.len()),
    );
    irqbalance.check_given_back(table)
}

/// Checks that each queue has the vectors of its driver, one for each direction with virtio_net and one for
/// both with igb, all of them on the same CPUs.
fn check_vectors(queues: &BTreeMap<u32, Queue>, table: &mut Table) -> Result<()> {
    let each = if nic::driver()? == "virtio_net" { 2 } else { 1 };
    let is_right = |irqs: &BTreeMap<u32, CpuSet>| {
        irqs.len() == each && irqs.values().all(|cpus| Some(cpus) == irqs.values().next())
    };
    let wrong: Vec<String> = queues
        .iter()
        .filter(|(_, queue)| !is_right(&queue.irqs))
        .map(|(number, queue)| format!("queue {number}: {:?}", queue.irqs))
        .collect();
    let vectors: usize = queues.values().map(|queue| queue.irqs.len()).sum();
    table.none("RX and TX vectors of a queue are together", &wrong, format!("{vectors} vectors"));
    Ok(())
}
