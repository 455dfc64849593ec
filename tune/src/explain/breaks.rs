//! What keeps a packet from staying on one CPU. Pure.

use serde::Serialize;

use super::Chain;
use crate::cpu_set::{Cpu, CpuSet};
use crate::host::{HowKnown, NicHost, QueueIndex, Topology};
use crate::verify::PendingMove;

/// One thing that breaks a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// Which, for programs: `irq_on_several_cpus`.
    pub kind: &'static str,
    /// A sentence for people.
    pub says: String,
}

fn broken(kind: &'static str, says: String) -> Option<Break> {
    Some(Break { kind, says })
}

/// Fills in what breaks each of the chains.
pub(super) fn find(host: &NicHost, topology: &Topology, chains: &mut [Chain]) {
    let tx_cpus: Vec<(QueueIndex, Option<Cpu>)> = chains
        .iter()
        .filter(|chain| chain.rx.is_none())
        .filter_map(|chain| Some((chain.tx?, chain.irq_cpu())))
        .collect();
    let near = host.near_cpus(topology);
    let is_near = |chain: &Chain| chain.poll_cpu().is_some_and(|cpu| near.contains(cpu));
    let is_foreign = !near.is_empty() && !chains.iter().any(is_near);
    for chain in chains {
        let tx_apart = chain
            .rx
            .filter(|_| chain.tx.is_none())
            .and_then(|rx| tx_cpus.iter().find(|(tx, _)| *tx == rx).and_then(|(_, cpu)| *cpu));
        let found = [
            unknown_interrupt(host, chain),
            guessed(chain),
            several_cpus(chain),
            effective_differs(chain),
            wanted_differs(chain),
            shared(host, chain),
            thread(chain),
            rps(chain),
            xps(host, chain),
            directions_apart(chain, tx_apart),
            foreign_node(host, chain, &near).filter(|_| is_foreign),
        ];
        chain.breaks = found.into_iter().flatten().collect();
    }
}

fn unknown_interrupt(host: &NicHost, chain: &Chain) -> Option<Break> {
    let device = host.nic.device.as_ref().filter(|_| chain.irq.is_none())?;
    let why = host.queue_irqs.doubt.as_deref().unwrap_or("no step of the ladder found one");
    let next = if device.is_served_by_another() { "" } else { "; tell it with --map" };
    broken("interrupt_not_known", format!("its interrupt is not known: {why}{next}"))
}

fn guessed(chain: &Chain) -> Option<Break> {
    let irq = chain.irq.filter(|_| chain.known_by == Some(HowKnown::NameOnly))?;
    broken(
        "interrupt_guessed",
        format!("that IRQ {irq} serves it is a guess by its name; tell it with --map"),
    )
}

fn several_cpus(chain: &Chain) -> Option<Break> {
    let set = chain.set.as_ref().filter(|set| set.len() > 1)?;
    let now = chain.effective.as_ref().map_or_else(String::new, |effective| format!(", now on {effective}"));
    let irq = chain.irq?;
    broken("irq_on_several_cpus", format!("IRQ {irq} may fire on each of the CPUs {set}{now}"))
}

fn effective_differs(chain: &Chain) -> Option<Break> {
    let (affinity, effective) = (chain.set.clone()?, chain.effective.clone()?);
    if effective.is_subset(&affinity) {
        return None;
    }
    let pending = PendingMove { irq: chain.irq?, affinity, effective };
    broken("effective_differs", format!("{pending}; it moves when it fires next"))
}

fn wanted_differs(chain: &Chain) -> Option<Break> {
    let wanted = chain.wanted.as_ref()?;
    let set = chain.set.as_ref().filter(|set| *set != wanted)?;
    let irq = chain.irq?;
    broken("not_as_wanted", format!("the profile wants IRQ {irq} on CPU {wanted}, and it is set to {set}"))
}

fn shared(host: &NicHost, chain: &Chain) -> Option<Break> {
    let irq = chain.irq?;
    let others = host.queue_irqs.shared.get(&irq)?.join(", ");
    broken("interrupt_shared", format!("IRQ {irq} is shared with {others}, which move with it"))
}

fn thread(chain: &Chain) -> Option<Break> {
    let thread = chain.thread.as_ref()?;
    let pid = thread.pid;
    let Some(cpus) = &thread.cpus else {
        return broken(
            "napi_thread_gone",
            format!("its NAPI thread {pid} is gone, or of another PID namespace"),
        );
    };
    if cpus.len() > 1 {
        return broken(
            "napi_thread_on_several_cpus",
            format!("its NAPI thread {pid} may run on each of the CPUs {cpus}"),
        );
    }
    let irq_cpu = chain.irq_cpu().filter(|cpu| !cpus.contains(*cpu))?;
    broken(
        "napi_thread_elsewhere",
        format!("its NAPI thread {pid} runs on CPU {cpus}, and its interrupt fires on {irq_cpu}"),
    )
}

fn rps(chain: &Chain) -> Option<Break> {
    let rps = chain.rps.as_ref().filter(|rps| !rps.is_empty())?;
    match chain.poll_cpu() {
        Some(cpu) if *rps == CpuSet::from_iter([cpu]) => None,
        Some(cpu) => broken(
            "rps_moves_packets",
            format!("RPS hands its packets to the CPUs {rps} by hash, and it is polled on {cpu}"),
        ),
        // Without an interrupt one CPU in it is the chain.
        None if rps.len() == 1 && chain.irq.is_none() => None,
        None => broken("rps_moves_packets", format!("RPS hands its packets to the CPUs {rps} by hash")),
    }
}

fn xps(host: &NicHost, chain: &Chain) -> Option<Break> {
    let xps = chain.xps.as_ref()?;
    if xps.is_empty() {
        let several = host.nic.tx_queues.len() > 1;
        let says = "XPS is off: a hash of the flow and not the sending CPU chooses the TX queue";
        return several.then(|| Break { kind: "xps_off", says: says.to_owned() });
    }
    let cpu = chain.irq_cpu().filter(|cpu| !xps.contains(*cpu))?;
    broken(
        "xps_elsewhere",
        format!("the CPUs {xps} transmit on it (XPS), and their completions come to CPU {cpu}"),
    )
}

fn directions_apart(chain: &Chain, tx_cpu: Option<Cpu>) -> Option<Break> {
    let (rx_cpu, tx_cpu) = (chain.irq_cpu()?, tx_cpu?);
    let says = format!("it receives on CPU {rx_cpu}, and the TX queue of its number completes on {tx_cpu}");
    (rx_cpu != tx_cpu).then_some(Break { kind: "rx_and_tx_apart", says })
}

fn foreign_node(host: &NicHost, chain: &Chain, near: &CpuSet) -> Option<Break> {
    let (cpu, interface) = (chain.poll_cpu()?, &host.nic.name);
    broken(
        "foreign_node",
        format!(
            "it is polled on CPU {cpu}, and no queue of {interface} on the CPUs of its NUMA node, {near}"
        ),
    )
}
