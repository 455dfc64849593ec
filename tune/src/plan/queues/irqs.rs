//! Which interrupts are placed, which stay where they are, and where that is. Pure.

use std::collections::BTreeSet;

use super::Laid;
use crate::cpu_set::{Cpu, CpuSet};
use crate::host::{Direction, Irq, IrqState, NicHost, QueueIndex, QueueIrq, Serves, Topology};
use crate::plan::placement::Layout;
use crate::plan::{Desired, PlanError};
use crate::profile::{IrqPolicy, Queues, RpsPolicy};
use crate::setting::{Setting, Value};

/// Where an interrupt fires once the profile is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fires {
    /// On the CPU of the queue, where it is set to.
    Placed,
    /// On this CPU, where it stays: the kernel manages it, or the profile has queues follow it.
    Stays(Cpu),
    /// Who knows.
    Anywhere,
}

/// Where the interrupt of a queue fires; `None` if it has none of its own.
pub(super) fn fires(
    policy: IrqPolicy,
    on: &NicHost,
    topology: &Topology,
    direction: Direction,
    queue: QueueIndex,
) -> Option<Fires> {
    let row = on.queue_irqs.of(direction, queue).filter(|row| row.serves != Serves::All)?;
    let state = on.irqs.get(&row.irq);
    Some(match policy {
        IrqPolicy::Keep => Fires::Anywhere,
        IrqPolicy::QueueCpu if !is_managed(state) => Fires::Placed,
        IrqPolicy::QueueCpu | IrqPolicy::Follow => {
            let cpu = state.and_then(IrqState::cpu).filter(|cpu| topology.online.contains(*cpu));
            cpu.map_or(Fires::Anywhere, Fires::Stays)
        }
    })
}

/// The CPUs where the interrupts of the queues of one direction stay, by position.
pub(super) fn given(
    policy: IrqPolicy,
    on: &NicHost,
    topology: &Topology,
    direction: Direction,
) -> Vec<Option<Cpu>> {
    let stays = |queue| match fires(policy, on, topology, direction, queue) {
        Some(Fires::Stays(cpu)) => Some(cpu),
        _ => None,
    };
    match direction {
        Direction::Rx => on.nic.rx_queues.iter().map(|queue| stays(queue.index)).collect(),
        Direction::Tx => on.nic.tx_queues.iter().map(|queue| stays(queue.index)).collect(),
    }
}

fn is_managed(state: Option<&IrqState>) -> bool {
    state.is_some_and(|state| state.managed)
}

impl Laid<'_> {
    pub(super) fn plan_irqs(&self, wishes: &Queues, desired: &mut Desired) -> Result<(), PlanError> {
        let nic = &self.on.nic;
        if wishes.irq == IrqPolicy::Keep {
            // Fewer queues than CPUs spread over their groups wherever their interrupts fire.
            let auto = wishes.rps == RpsPolicy::Auto && nic.device.is_some();
            return if auto && self.has_a_queue_for_each_cpu() {
                Err(PlanError::AutoRpsOfKeptIrqs(nic.name.clone()))
            } else {
                Ok(())
            };
        }
        if let Some(reason) = self.on.queue_irqs.doubt.clone() {
            return Err(PlanError::QueueMap { interface: nic.name.clone(), reason });
        }
        if wishes.irq == IrqPolicy::Follow {
            return Ok(());
        }
        let mut managed = Vec::new();
        for (row, queue, layout) in self.rows() {
            let state = self.on.irqs.get(&row.irq);
            if !is_managed(state) {
                let reason = self.why_irq(row, queue, layout);
                let cpu = Value::List(CpuSet::from_iter([layout.cpu]));
                desired.set(Setting::IrqAffinity(row.irq), cpu, reason);
            } else if let Some(state) = state
                && !state.affinity.is_subset(&layout.group)
            {
                managed.push((row.irq, &state.affinity));
            }
        }
        if managed.is_empty() {
            return Ok(());
        }
        let cpus: CpuSet = managed.iter().flat_map(|(_, affinity)| affinity.iter()).collect();
        managed.sort_by_key(|(irq, _)| *irq);
        let irqs: Vec<String> = managed.iter().map(|(irq, _)| irq.to_string()).collect();
        let reason = format!(
            "the kernel manages IRQ {} and keeps them on CPU {cpus} (smp_affinity_list is read-only); queues \
             are laid out where they fire; queues.irq = \"follow\" asks for no more",
            irqs.join(", ")
        );
        desired.cannot(wishes.require, format!("queues.irq of {}", nic.name), reason)
    }

    /// The interrupts, each once, with the queue that decides about it: one of all queues goes with the
    /// first.
    fn rows(&self) -> Vec<(&QueueIrq, QueueIndex, &Layout)> {
        let Self { on, rx, tx, .. } = self;
        let rx = on.nic.rx_queues.iter().map(|queue| (Direction::Rx, queue.index)).zip(rx);
        let tx = on.nic.tx_queues.iter().map(|queue| (Direction::Tx, queue.index)).zip(tx);
        let mut seen: BTreeSet<Irq> = BTreeSet::new();
        let queues = rx.chain(tx);
        let rows = queues.filter_map(|((direction, queue), layout)| {
            Some((on.queue_irqs.of(direction, queue)?, queue, layout))
        });
        rows.filter(|(row, ..)| seen.insert(row.irq)).collect()
    }

    fn why_irq(&self, row: &QueueIrq, queue: QueueIndex, layout: &Layout) -> String {
        let serves = match row.serves {
            Serves::Both(_) => format!("RX and TX queue {queue}"),
            Serves::Rx(_) => format!("RX queue {queue}"),
            Serves::Tx(_) => format!("TX queue {queue}"),
            Serves::All => "all queues".to_owned(),
        };
        format!("{} ({serves} of {}) fires on {}", row.name, self.on.nic.name, layout.why)
    }
}
