//! Interrupts, XPS and RPS of the interfaces' queues. Pure.

use std::collections::BTreeSet;

use super::placement::{
    Ground, Layout, Occupancy, add_senders, extent_of, fold, for_cpus, layout, layout_on_functions,
};
use super::{Desired, PlanError, Skipped, cpus, napi_threads};
use crate::cpu_set::CpuSet;
use crate::host::ethtool::Knob;
use crate::host::{Direction, Host, IrqState, NicHost, QueueIndex, Serves, Topology};
use crate::profile::{IrqPolicy, Placement, Profile, Queues, RpsDefault, RpsPolicy, XpsPolicy};
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
        napi_threads::plan(profile, on, &laid.rx, &laid.tx, desired);
        laid.plan_xps(queues, desired);
        laid.plan_rps(queues, desired)?;
        laid.plan_rps_flow_cnt(queues.rps_flow_cnt, desired);
        note_idle_queues(on, desired);
    }
    plan_rps_default(queues.rps_default, host, workers, desired)
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
    let spread = queues.placement == Placement::Spread;
    let ground = Ground { topology, node: nic.numa_node, owner: "NIC", cpus: &cpus, spread };
    let others = workers.difference(&cpus);
    let lay = |direction: Direction| {
        let nodes = on.queue_nodes(direction);
        let mut layouts = if on.numa_nodes().len() > 1 {
            layout_on_functions(&ground, &nodes, taken)
        } else {
            layout(&ground, nodes.len(), taken)
        };
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

    fn plan_irqs(&self, queues: &Queues, desired: &mut Desired) -> Result<(), PlanError> {
        let Self { on, rx, tx, .. } = self;
        let nic = &on.nic;
        if queues.irq == IrqPolicy::Keep {
            // Fewer queues than CPUs spread over their groups wherever their interrupts fire.
            let auto = queues.rps == RpsPolicy::Auto && nic.device.is_some();
            return if auto && self.has_a_queue_for_each_cpu() {
                Err(PlanError::AutoRpsOfKeptIrqs(nic.name.clone()))
            } else {
                Ok(())
            };
        }
        if let Some(reason) = on.queue_irqs.doubt.clone() {
            return Err(PlanError::QueueMap { interface: nic.name.clone(), reason });
        }
        let rx = nic.rx_queues.iter().zip(rx);
        let rx = rx.filter_map(|(queue, layout)| Some((on.queue_irqs.rx(queue.index)?, queue.index, layout)));
        let tx = nic.tx_queues.iter().zip(tx);
        let tx = tx.filter_map(|(queue, layout)| Some((on.queue_irqs.tx(queue.index)?, queue.index, layout)));
        for (row, queue, layout) in rx.chain(tx) {
            let setting = Setting::IrqAffinity(row.irq);
            // An interrupt of all queues stays with the first.
            if !desired.settings.contains_key(&setting) {
                let serves = match row.serves {
                    Serves::Both(_) => format!("RX and TX queue {queue}"),
                    Serves::Rx(_) => format!("RX queue {queue}"),
                    Serves::Tx(_) => format!("TX queue {queue}"),
                    Serves::All => "all queues".to_owned(),
                };
                let reason = format!("{} ({serves} of {}) fires on {}", row.name, nic.name, layout.why);
                let wanted = CpuSet::from_iter([layout.cpu]);
                if let Some(IrqState { affinity, managed: true, .. }) = on.irqs.get(&row.irq)
                    && *affinity != wanted
                {
                    desired.notes.push(format!(
                        "{} is to be {wanted} and holds {affinity}, and it is read-only: the kernel manages \
                         this interrupt ({}), and apply will refuse; leave all of them with queues.irq \
                         = \"keep\" and, where there is a queue for each CPU, queues.rps set to a fixed \
                         choice",
                        setting.path(),
                        row.name
                    ));
                }
                desired.set(setting, Value::List(wanted), reason);
            }
        }
        Ok(())
    }

    /// A device with one TX queue has no `xps_cpus`. While `xps_rxqs` is not empty the kernel asks it first
    /// (`get_xps_queue()` in `net/core/dev.c`).
    fn plan_xps(&self, wishes: &Queues, desired: &mut Desired) {
        let policy = wishes.xps;
        if policy == XpsPolicy::Keep {
            return;
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
            desired.skipped.push(Skipped {
                wish: format!("queues.xps = \"rx-queue\" of {}", nic.name),
                reason: format!(
                    "there is no /sys/class/net/{}/queues/tx-*/xps_rxqs here; its queues \
                     are chosen by CPU",
                    nic.name
                ),
            });
        }
    }

    fn why_senders(&self, wishes: &Queues, queue: QueueIndex, layout: &Layout) -> String {
        let Layout { senders, group, cpu, .. } = layout;
        let own_irq = self.on.queue_irqs.tx(queue).is_some_and(|row| row.serves != Serves::All);
        let completes = if own_irq && wishes.irq == IrqPolicy::QueueCpu {
            format!("tx-{queue} completes on CPU {cpu}")
        } else {
            // A virtual interface has no completions; those of an interrupt that is kept come where it is.
            format!("tx-{queue} belongs to CPU {cpu}")
        };
        if senders.len() == 1 {
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

    fn plan_rps(&self, wishes: &Queues, desired: &mut Desired) -> Result<(), PlanError> {
        let nic = &self.on.nic;
        let housekeeping = &self.topology.housekeeping;
        let queues = nic.rx_queues.iter().zip(&self.rx).filter(|(queue, _)| queue.rps_cpus.is_some());
        for (queue, layout) in queues {
            let Some((cpus, reason)) = self.rps_of(wishes, queue.index, layout) else { continue };
            let usable = cpus.intersection(housekeeping);
            if usable.is_empty() && !cpus.is_empty() {
                let interface = nic.name.clone();
                return Err(PlanError::IsolatedCpus { interface, queue: queue.index, cpus });
            }
            let without = cpus.difference(&usable);
            let reason = if without.is_empty() {
                reason
            } else {
                format!("{reason}; without {without}, which are isolated: the kernel takes them out")
            };
            desired.set(Setting::RpsCpus(nic.name.clone(), queue.index), Value::Mask(usable), reason);
        }
        Ok(())
    }

    /// The CPUs of RPS before the kernel takes isolated ones out, and why; `None` to leave it.
    fn rps_of(&self, wishes: &Queues, queue: QueueIndex, layout: &Layout) -> Option<(CpuSet, String)> {
        let own_irq = self.on.queue_irqs.rx(queue).is_some_and(|row| row.serves != Serves::All);
        let counts = for_cpus(self.rx.len(), "RX queue", self.cpus);
        let fires_there = own_irq && wishes.irq == IrqPolicy::QueueCpu;
        Some(match wishes.rps {
            RpsPolicy::Auto if own_irq && self.has_a_queue_for_each_cpu() => (
                CpuSet::new(),
                format!(
                    "{counts}: each has an interrupt on a CPU of its own, and RPS would take new flows away \
                     from it"
                ),
            ),
            RpsPolicy::Auto if fires_there && layout.group.len() == 1 => (
                CpuSet::new(),
                format!("{counts}: its group is CPU {} alone, where its interrupt fires", layout.cpu),
            ),
            RpsPolicy::Auto if self.has_a_queue_for_each_cpu() => (
                layout.group.clone(),
                format!("{counts}, without an interrupt of its own: RPS takes the packets to {}", layout.why),
            ),
            RpsPolicy::Auto => (
                layout.group.clone(),
                format!(
                    "{counts}: its packets are spread over its group {} ({})",
                    layout.group,
                    extent_of(self.topology, &layout.group)
                ),
            ),
            RpsPolicy::QueueCpu => {
                let reason = format!("queues.rps = \"queue-cpu\": {}", layout.why);
                (CpuSet::from_iter([layout.cpu]), reason)
            }
            RpsPolicy::Off => (CpuSet::new(), "queues.rps = \"off\"".to_owned()),
            RpsPolicy::Keep => return None,
        })
    }

    fn plan_rps_flow_cnt(&self, count: Option<u32>, desired: &mut Desired) {
        let Some(count) = count else { return };
        let nic = &self.on.nic;
        let rounded = if count == 0 { 0 } else { count.next_power_of_two() };
        let reason = match count {
            0 => "queues.rps_flow_cnt = 0: no RFS".to_owned(),
            _ => format!("queues.rps_flow_cnt = {count}, which the kernel makes a power of two"),
        };
        for rx in nic.rx_queues.iter().filter(|rx| rx.rps_flow_cnt.is_some()) {
            let setting = Setting::RpsFlowCount(nic.name.clone(), rx.index);
            desired.set(setting, Value::Numbers(vec![i128::from(rounded)]), reason.clone());
        }
    }
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

/// What the kernel would refuse is refused here: it parses into the mask that is in force, so that a refused
/// write leaves it empty (`rps_default_mask_sysctl()` in `net/core/sysctl_net_core.c`).
fn plan_rps_default(
    wish: RpsDefault,
    host: &Host,
    workers: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let topology = &host.topology;
    let (cpus, reason) = match wish {
        RpsDefault::Keep => return Ok(()),
        RpsDefault::Off => (CpuSet::new(), "queues.rps_default = \"off\"".to_owned()),
        RpsDefault::Workers => (
            workers.intersection(&topology.housekeeping),
            format!("queues.rps_default = \"workers\": the workers' CPUs {workers} without isolated ones"),
        ),
    };
    if host.rps_default_mask.is_none() {
        let reason = if topology.prints_whole_mask() {
            "there is no /proc/sys/net/core/rps_default_mask (Linux 6.3 and later have it)".to_owned()
        } else {
            "with more than 448 possible CPUs the kernel prints only the end of it, so that it could not be \
             restored"
                .to_owned()
        };
        desired.skipped.push(Skipped { wish: "queues.rps_default".to_owned(), reason });
        return Ok(());
    }
    if cpus.is_empty() && wish == RpsDefault::Workers {
        return Err(PlanError::IsolatedDefault(workers.clone()));
    }
    desired.set(Setting::RpsDefaultMask, Value::Mask(cpus), reason);
    Ok(())
}

#[cfg(test)]
mod tests;
