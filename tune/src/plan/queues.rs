//! Interrupts, XPS and RPS of the interfaces' queues. Pure.

mod irqs;
mod rps;

use std::collections::BTreeSet;

use irqs::{Fires, fires, given};
use rps::plan_rps_default;

use super::placement::{
    Ground, Layout, Occupancy, add_senders, fold, follow, for_cpus, layout, layout_on_functions,
};
use super::{Desired, PlanError, cpus, napi_threads};
use crate::cpu_set::CpuSet;
use crate::host::ethtool::Knob;
use crate::host::{Direction, Host, NicHost, QueueIndex, Serves, Topology};
use crate::profile::{Placement, Profile, Queues, XpsPolicy};
use crate::setting::{Setting, Value};

/// One interface with its queues laid out.
struct Laid<'a> {
    on: &'a NicHost,
    topology: &'a Topology,
    /// By position in `Nic::rx_queues`.
    rx: Vec<Layout>,
    /// By position in `Nic::tx_queues`.
    tx: Vec<Layout>,
    /// Number of CPUs that the queues are laid on.
    cpus: usize,
}

pub(super) fn plan(
    profile: &Profile,
    host: &Host,
    workers: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let queues = &profile.queues;
    let mut taken = Occupancy::default();
    for on in &host.nics {
        let laid = lay_out(queues, on, &host.topology, workers, &mut taken, desired)?;
        laid.plan_irqs(queues, desired)?;
        napi_threads::plan(profile, on, &laid.rx, &laid.tx, desired)?;
        laid.plan_xps(queues, desired)?;
        laid.plan_rps(queues, desired)?;
        laid.plan_rps_flow_cnt(queues.rps_flow_cnt, desired);
        note_idle_queues(on, desired);
        note_paravirtual(on, desired);
    }
    plan_rps_default(queues, host, workers, desired)
}

/// RX and TX queues are laid out each for themselves, except where one interrupt serves both of a number: the
/// larger number of queues then decides, and the fewer queues of the other direction share its CPUs.
fn lay_out<'a>(
    queues: &Queues,
    on: &'a NicHost,
    topology: &'a Topology,
    workers: &CpuSet,
    taken: &mut Occupancy,
    desired: &mut Desired,
) -> Result<Laid<'a>, PlanError> {
    let nic = &on.nic;
    if let Some(lower) = nic.lower.clone() {
        return Err(PlanError::Stacked { interface: nic.name.clone(), lower });
    }
    if nic.rx_queues.is_empty() || nic.tx_queues.is_empty() {
        return Err(PlanError::NoQueues(nic.name.clone()));
    }
    let cpus = cpus::of_interface(&queues.placement, on, topology, workers)?;
    cpus::note_unreached(&queues.placement, nic, workers, &cpus, desired);
    cpus::note_foreign_node(on, topology, workers, desired);
    let spread = queues.placement == Placement::Spread;
    let ground = Ground { topology, node: nic.numa_node, owner: "NIC", cpus: &cpus, spread };
    let others = workers.difference(&cpus);
    let lay = |direction: Direction| {
        let nodes = on.queue_nodes(direction);
        let layouts = if on.numa_nodes().len() > 1 {
            layout_on_functions(&ground, &nodes, taken)
        } else {
            layout(&ground, nodes.len(), taken)
        };
        let mut layouts = follow(layouts, &given(queues.irq, on, topology, direction));
        add_senders(&mut layouts, topology, &others);
        layouts
    };
    let (rx, tx) = (nic.rx_queues.len(), nic.tx_queues.len());
    let combined = on.queue_irqs.rows.iter().any(|row| matches!(row.serves, Serves::Both(_)));
    let most = lay(if combined && tx > rx { Direction::Tx } else { Direction::Rx });
    let (rx, tx) =
        if combined { (fold(&most, rx), fold(&most, tx)) } else { (most.clone(), lay(Direction::Tx)) };
    taken.add(topology, &most);
    Ok(Laid { on, topology, rx, tx, cpus: cpus.len() })
}

impl Laid<'_> {
    /// True if each CPU has an RX queue of its own.
    fn has_a_queue_for_each_cpu(&self) -> bool {
        self.rx.len() >= self.cpus
    }

    /// A device with one TX queue has no `xps_cpus`. While `xps_rxqs` is not empty the kernel asks it first
    /// (`get_xps_queue()` in `net/core/dev.c`).
    fn plan_xps(&self, wishes: &Queues, desired: &mut Desired) -> Result<(), PlanError> {
        let policy = wishes.xps;
        if policy == XpsPolicy::Keep {
            return Ok(());
        }
        let nic = &self.on.nic;
        for (position, (queue, layout)) in nic.tx_queues.iter().zip(&self.tx).enumerate() {
            if queue.xps_cpus.is_some() {
                let setting = Setting::XpsCpus(nic.name.clone(), queue.index);
                let (cpus, reason) = match policy {
                    XpsPolicy::Off => (CpuSet::new(), "queues.xps = \"off\"".to_owned()),
                    _ => (layout.senders.clone(), self.why_senders(wishes, queue.index, layout)),
                };
                desired.set(setting, Value::Mask(cpus), reason);
            }
            if queue.xps_rxqs.is_some() {
                let setting = Setting::XpsRxqs(nic.name.clone(), queue.index);
                let (queues, reason) = match policy {
                    XpsPolicy::RxQueue => (
                        self.received_with(position),
                        "queues.xps = \"rx-queue\": a connection \
                        sends on the TX queue of the RX queue that it is received on",
                    ),
                    _ => (
                        CpuSet::new(),
                        "queues.xps chooses by CPU or not at all, and the kernel asks xps_rxqs first",
                    ),
                };
                desired.set(setting, Value::Queues(queues), reason);
            }
        }
        if policy == XpsPolicy::RxQueue && nic.tx_queues.iter().all(|queue| queue.xps_rxqs.is_none()) {
            let reason = format!(
                "there is no /sys/class/net/{}/queues/tx-*/xps_rxqs here; its queues are chosen by CPU",
                nic.name
            );
            return desired.cannot(
                wishes.require,
                format!("queues.xps = \"rx-queue\" of {}", nic.name),
                reason,
            );
        }
        Ok(())
    }

    fn why_senders(&self, wishes: &Queues, queue: QueueIndex, layout: &Layout) -> String {
        let Layout { senders, group, cpu, .. } = layout;
        let completes = match fires(wishes.irq, self.on, self.topology, Direction::Tx, queue) {
            Some(Fires::Placed | Fires::Stays(_)) => format!("tx-{queue} completes on CPU {cpu}"),
            // A virtual interface has no completions; those of an interrupt that is kept come where it is.
            Some(Fires::Anywhere) | None => format!("tx-{queue} belongs to CPU {cpu}"),
        };
        if senders.is_empty() {
            format!(
                "{completes}, where its interrupt stays; CPUs {group} send on a queue that completes there"
            )
        } else if !group.contains(*cpu) {
            format!("{completes}, where its interrupt stays, and CPUs {senders} send on it")
        } else if senders.len() == 1 {
            format!("{completes}, which sends on it alone")
        } else if senders == group {
            format!(
                "{completes}, and its group {group} sends on it: {}",
                for_cpus(self.tx.len(), "TX queue", self.cpus)
            )
        } else {
            let more = senders.difference(group);
            format!(
                "{completes}; CPUs {more}, which have no queue of their own, send on it as one of the nearest"
            )
        }
    }

    /// The RX queues whose connections send on the TX queue of this position: those of its number, and where
    /// one direction has fewer queues its numbers go round.
    fn received_with(&self, position: usize) -> CpuSet {
        let rx = &self.on.nic.rx_queues;
        let tx = self.tx.len();
        let goes_round =
            |other: usize| if rx.len() > tx { other % tx == position } else { position % rx.len() == other };
        let own = rx.iter().enumerate().filter(|(other, _)| goes_round(*other));
        own.map(|(_, queue)| queue.index.0).collect()
    }
}

/// The queues of a paravirtual interface are another device's, and take what its virtual function does not.
fn note_paravirtual(on: &NicHost, desired: &mut Desired) {
    let name = &on.nic.name;
    desired.notes.extend(on.nic.paravirtual.as_ref().map(|upper| {
        format!(
            "{upper} stands on {name} and has queues of its own, which take what {name} does not, and all \
             while it is away: they are left as they are"
        )
    }));
}

/// Queues that RSS leaves out get only what a flow director sends them, and new connections never.
fn note_idle_queues(on: &NicHost, desired: &mut Desired) {
    let (nic, table) = (&on.nic, on.ethtool.rss.as_ref().map(|rss| &rss.table));
    let used: BTreeSet<u32> = table.into_iter().flatten().copied().collect();
    let sets = |knob| desired.settings.contains_key(&Setting::Ethtool(nic.name.clone(), knob));
    if used.is_empty() || used.len() >= nic.rx_queues.len() || sets(Knob::Rss) || sets(Knob::Channels) {
        return;
    }
    desired.notes.push(format!(
        "RSS of {} spreads new connections over {} of its {} receive queues: the workers on the CPUs of the \
         others get none where listeners are chosen by CPU; [channels] and [rss] in the profile change that",
        nic.name,
        used.len(),
        nic.rx_queues.len()
    ));
}

#[cfg(test)]
mod tests;
