//! `explain(&NicHost, &Topology, wanted) -> Explanation`: the way of a packet, queue by queue, and what breaks it. Pure.
//!
//! ```text
//!  RX queue ─► NAPI instance (and its thread) ─► interrupt ─► CPU it is set to, and fires on ─► RPS
//!  TX queue ◄─ XPS ◄─ the CPU that sends
//! ```

mod breaks;

use serde::Serialize;

pub use breaks::Break;

use crate::cpu_set::{Cpu, CpuSet};
use crate::host::{
    Direction, HowKnown, Irq, Napi, NapiId, NicHost, QueueIndex, QueueIrq, RxQueue, Serves, Topology, TxQueue,
};
use crate::plan::Desired;
use crate::setting::{Setting, Value};

/// The queues of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Its name.
    pub interface: String,
    /// What holds for all of its queues: on what it stands, why its interrupts or NAPI instances are not
    /// known.
    pub notes: Vec<String>,
    /// In ascending order of queue. RX and TX of one number are one chain where one interrupt serves both, or
    /// none.
    pub chains: Vec<Chain>,
}

/// One queue, or one direction of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Number of the RX queue.
    pub rx: Option<QueueIndex>,
    /// Number of the TX queue.
    pub tx: Option<QueueIndex>,
    /// NAPI instance; null where the kernel does not say.
    pub napi: Option<NapiId>,
    /// The thread that polls it; null without one.
    pub thread: Option<Thread>,
    /// Interrupt.
    pub irq: Option<Irq>,
    /// Its handler's name.
    pub interrupt: Option<String>,
    /// How it is known that it serves the queue.
    pub known_by: Option<HowKnown>,
    /// Where the profile wants it; null without a profile, or where the profile leaves it.
    pub wanted: Option<CpuSet>,
    /// CPUs on which it may fire.
    pub set: Option<CpuSet>,
    /// CPUs on which it does.
    pub effective: Option<CpuSet>,
    /// `xps_cpus`; empty is off, null is not there.
    pub xps: Option<CpuSet>,
    /// What the profile wants `xps_cpus` to be.
    pub xps_wanted: Option<CpuSet>,
    /// `rps_cpus`; empty is off, null is not there.
    pub rps: Option<CpuSet>,
    /// What the profile wants `rps_cpus` to be.
    pub rps_wanted: Option<CpuSet>,
    /// What keeps a packet from staying on one CPU.
    pub breaks: Vec<Break>,
}

/// The thread of a NAPI instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Thread {
    /// Its number.
    pub pid: u32,
    /// Its name; null for one that is gone, or of another PID namespace.
    pub name: Option<String>,
    /// CPUs on which it may run.
    pub cpus: Option<CpuSet>,
    /// Where the profile wants it.
    pub wanted: Option<CpuSet>,
}

impl Chain {
    /// `3` for both directions of queue 3, else `rx-3` or `tx-3`.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.rx, self.tx) {
            (Some(rx), Some(_)) => rx.to_string(),
            (Some(rx), None) => format!("rx-{rx}"),
            (None, Some(tx)) => format!("tx-{tx}"),
            (None, None) => "-".to_owned(),
        }
    }

    /// The one CPU on which the interrupt fires; `None` if it is not one or not known.
    #[must_use]
    pub fn irq_cpu(&self) -> Option<Cpu> {
        let one = |cpus: &Option<CpuSet>| cpus.as_ref().filter(|cpus| cpus.len() == 1)?.first();
        one(&self.effective).or_else(|| one(&self.set))
    }

    /// The one CPU on which the queue is polled: that of the thread, where there is one.
    #[must_use]
    pub fn poll_cpu(&self) -> Option<Cpu> {
        match &self.thread {
            Some(thread) => thread.cpus.as_ref().filter(|cpus| cpus.len() == 1)?.first(),
            None => self.irq_cpu(),
        }
    }
}

/// Which of the queues: `3`, `rx-3` or `tx-3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueChoice {
    direction: Option<Direction>,
    index: QueueIndex,
}

impl QueueChoice {
    /// True if it is this one.
    #[must_use]
    pub fn is(self, chain: &Chain) -> bool {
        let (rx, tx) = (chain.rx == Some(self.index), chain.tx == Some(self.index));
        match self.direction {
            None => rx || tx,
            Some(Direction::Rx) => rx,
            Some(Direction::Tx) => tx,
        }
    }
}

impl std::str::FromStr for QueueChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (direction, number) = match text.split_once('-') {
            Some(("rx", number)) => (Some(Direction::Rx), number),
            Some(("tx", number)) => (Some(Direction::Tx), number),
            _ => (None, text),
        };
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let index = digits.then(|| number.parse().ok()).flatten();
        let index =
            index.ok_or_else(|| format!("\"{}\" is no queue; write 3, rx-3 or tx-3", text.escape_debug()))?;
        Ok(Self { direction, index })
    }
}

/// Explains every queue of an interface of a host with this topology; `wanted` is what a profile wants there.
#[must_use]
pub fn explain(host: &NicHost, topology: &Topology, wanted: Option<&Desired>) -> Explanation {
    let mut chains = Vec::new();
    let mut tx_queues = host.nic.tx_queues.iter().peekable();
    for rx in &host.nic.rx_queues {
        while let Some(tx) = tx_queues.next_if(|tx| tx.index < rx.index) {
            chains.push(chain(host, wanted, None, Some(tx)));
        }
        let tx = tx_queues.next_if(|tx| tx.index == rx.index);
        let irq = |row: Option<&QueueIrq>| row.map(|row| row.irq);
        let rx_irq = irq(host.queue_irqs.rx(rx.index));
        if tx.is_none_or(|tx| irq(host.queue_irqs.tx(tx.index)) == rx_irq) {
            chains.push(chain(host, wanted, Some(rx), tx));
        } else {
            chains.push(chain(host, wanted, Some(rx), None));
            chains.push(chain(host, wanted, None, tx));
        }
    }
    chains.extend(tx_queues.map(|tx| chain(host, wanted, None, Some(tx))));
    breaks::find(host, topology, &mut chains);
    Explanation { interface: host.nic.name.to_string(), notes: notes(host), chains }
}

fn chain(host: &NicHost, wanted: Option<&Desired>, rx: Option<&RxQueue>, tx: Option<&TxQueue>) -> Chain {
    let name = &host.nic.name;
    let want = |setting: Setting| wanted?.settings.get(&setting).and_then(Value::cpus).cloned();
    let row = rx.and_then(|rx| host.queue_irqs.rx(rx.index));
    let row = row.or_else(|| host.queue_irqs.tx(tx?.index));
    let state = row.and_then(|row| host.irqs.get(&row.irq));
    let napi = rx.and_then(|rx| host.netdev.of_queue(Direction::Rx, rx.index));
    let napi = napi.or_else(|| host.netdev.of_queue(Direction::Tx, tx?.index));
    let thread = |napi: &Napi| {
        let found = napi.thread.as_ref();
        Some(Thread {
            pid: napi.pid.or(found.map(|thread| thread.pid))?,
            name: found.map(|thread| thread.name.clone()),
            cpus: found.map(|thread| thread.cpus.clone()),
            wanted: want(Setting::NapiThread(name.clone(), napi.id)),
        })
    };
    Chain {
        rx: rx.map(|rx| rx.index),
        tx: tx.map(|tx| tx.index),
        napi: napi.map(|napi| napi.id),
        thread: napi.and_then(thread),
        irq: row.map(|row| row.irq),
        interrupt: row.map(|row| row.name.clone()),
        known_by: row.map(|row| row.how),
        wanted: row.and_then(|row| want(Setting::IrqAffinity(row.irq))),
        set: state.map(|state| state.affinity.clone()),
        effective: state.and_then(|state| state.effective.clone()),
        xps: tx.and_then(|tx| tx.xps_cpus.clone()),
        xps_wanted: tx.and_then(|tx| want(Setting::XpsCpus(name.clone(), tx.index))),
        rps: rx.and_then(|rx| rx.rps_cpus.clone()),
        rps_wanted: rx.and_then(|rx| want(Setting::RpsCpus(name.clone(), rx.index))),
        breaks: Vec::new(),
    }
}

fn notes(host: &NicHost) -> Vec<String> {
    let nic = &host.nic;
    let mut notes = Vec::new();
    match nic.lower.as_ref().map(crate::host::names::list).as_deref() {
        None => {}
        Some("") => notes.push("it stands on others, of which none has a device".to_owned()),
        Some(lower) => {
            notes.push(format!("it stands on {lower}, whose queues carry its packets: explain those"));
        }
    }
    if nic.device.is_none() && nic.lower.is_none() {
        notes.push(
            "it is virtual and has no interrupt: its packets are received on the CPU that sends them, unless \
             a NAPI thread or RPS takes them elsewhere"
                .to_owned(),
        );
    }
    if let Some(doubt) = &host.queue_irqs.doubt {
        notes.push(format!("its interrupts are not known for certain, since {doubt}"));
    }
    if let Some(unknown) = &host.netdev.unknown {
        notes.push(format!("its NAPI instances are not known: {unknown}"));
    }
    let every = host.queue_irqs.rows.iter().find(|row| row.serves == Serves::All);
    if let Some(row) = every.filter(|_| nic.rx_queues.len() > 1) {
        notes.push(format!("IRQ {} serves all of its queues, which are then on one CPU", row.irq));
    }
    notes
}

#[cfg(test)]
mod tests;
