//! Fewer queues than CPUs: RPS in groups, with irqbalance running all the time. The shipped profile with a
//! number of channels in place of `"workers"`.

use std::collections::BTreeMap;

use anyhow::Result;
use tune::cpu_set::CpuSet;

use super::irqbalance::Irqbalance;
use super::nic::{self, Queue};
use super::programs;
use super::serving::{self, serve};
use super::table::Table;

const PROFILE: &str = "40g.toml";
const LOCAL: f64 = 0.99;

pub(super) fn run(table: &mut Table) -> Result<()> {
    let all = nic::queues()?;
    let irqbalance = Irqbalance::start()?;
    let few = (all / 6).max(2);
    let shipped = nic::read(PROFILE)?;
    std::fs::write(PROFILE, shipped.replace("count = \"workers\"", &format!("count = {few}")))?;
    let name = format!("{few} queues");
    serving::check_apply(table)?;
    let queues = nic::read_queues()?;
    table.none(
        &format!("{name}: RPS in groups of CPUs of one node"),
        &wrong_with_groups(&queues)?,
        groups(&queues),
    );
    let seen = serve("cpu")?;
    seen.check_echoes(&name, table)?;
    seen.check_locality(&name, LOCAL, table)?;
    seen.check_interrupts(&name, &queues, table);
    seen.check_transmit(&name, &queues, table);
    irqbalance.check_left_alone(table)?;
    let queues = nic::read_queues()?;
    table.none("irqbalance: what was applied still holds", &wrong_with_groups(&queues)?, "all queues");
    programs::tune(&["restore"])?.expect(0)?;
    table.check(&format!("{name}: restore gives the others back"), nic::queues()? == all, nic::queues()?);
    std::fs::write(PROFILE, shipped)?;
    irqbalance.check_given_back(table)
}

fn groups(queues: &BTreeMap<u32, Queue>) -> String {
    queues.values().map(|queue| queue.rps.to_string()).collect::<Vec<_>>().join(" ")
}

/// Groups share no CPU and leave none out, none crosses a node, and the interrupts are on a CPU of the group.
fn wrong_with_groups(queues: &BTreeMap<u32, Queue>) -> Result<Vec<String>> {
    let nodes = [nic::node(0)?, nic::node(1)?];
    let mut wrong = Vec::new();
    let mut seen = CpuSet::new();
    for (number, queue) in queues {
        if !nodes.iter().any(|node| queue.rps.is_subset(node)) {
            wrong.push(format!("queue {number}: RPS {} crosses the nodes", queue.rps));
        }
        if queue.xps != queue.rps {
            wrong.push(format!("queue {number}: XPS {} is not RPS {}", queue.xps, queue.rps));
        }
        for (irq, cpus) in &queue.irqs {
            if cpus.len() != 1 || !cpus.is_subset(&queue.rps) {
                wrong.push(format!("queue {number}: IRQ {irq} on {cpus}"));
            }
        }
        for cpu in queue.rps.iter() {
            if !seen.insert(cpu) {
                wrong.push(format!("CPU {cpu} is in two groups"));
            }
        }
    }
    if seen != nic::online()? {
        wrong.push(format!("the groups have the CPUs {seen}"));
    }
    Ok(wrong)
}
