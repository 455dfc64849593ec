//! `show`: one table for each interface.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::iter;

use serde::Serialize;

use super::table::write_table;
use super::{Format, SCHEMA, count, write_json};
use crate::cpu_set::CpuSet;
use crate::host::ethtool::{Ethtool, Knob};
use crate::host::names::list;
use crate::host::sriov::Function;
use crate::host::{
    Direction, Host, HowKnown, InterfaceName, Irq, Napi, NapiId, Nic, NicHost, QueueIndex, QueueIrq, RxQueue,
    Topology, TxQueue,
};

/// An interface as `show` prints it. CPUs are lists; a NUMA node that the kernel does not know is null.
#[derive(Debug, Serialize)]
struct InterfaceReport {
    /// Name.
    interface: String,
    /// Driver; null for a virtual interface.
    driver: Option<String>,
    /// The device's name in sysfs.
    device: Option<String>,
    /// PCI function.
    pci: Option<String>,
    /// For an interface on others, which carry its packets: the lowest of them; `apply` takes those and not
    /// this one. Null for one that carries them itself.
    lower: Option<BTreeSet<InterfaceName>>,
    /// For a virtual function of SR-IOV, the physical one.
    physical_function: Option<Function>,
    /// For a physical function of SR-IOV, the virtual ones.
    virtual_functions: Vec<Function>,
    /// NUMA node.
    numa_node: Option<u32>,
    /// Speed of the link in Mbit/s; null where it is down or not known.
    speed_mbit: Option<u32>,
    /// Number of RX queues.
    rx_queues: usize,
    /// Number of TX queues.
    tx_queues: usize,
    /// Channels, rings, RSS, coalescing and features, as far as ethtool tells.
    ethtool: Ethtool,
    /// Online CPUs.
    cpus: CpuSet,
    /// Why the interrupts would not be set; null if they may.
    doubt: Option<String>,
    /// Why the kernel does not tell NAPI instances; null where it does.
    netlink_unknown: Option<String>,
    /// Threads of which it is not known which queue they poll.
    threads_of_unknown_queues: Vec<ThreadReport>,
    /// One entry for each queue, or for each direction of it where they have interrupts of their own.
    queues: Vec<QueueReport>,
}

/// A queue as `show` prints it.
#[derive(Debug, Serialize)]
struct QueueReport {
    /// Number of the RX queue.
    rx: Option<QueueIndex>,
    /// Number of the TX queue.
    tx: Option<QueueIndex>,
    /// Interrupt.
    irq: Option<Irq>,
    /// Its handler's name.
    interrupt: Option<String>,
    /// CPUs on which it may fire.
    set: Option<CpuSet>,
    /// CPUs on which it does.
    effective: Option<CpuSet>,
    /// NUMA node of the interrupt, else of the interface.
    numa_node: Option<u32>,
    /// `rps_cpus`; empty is off, null is not there.
    rps: Option<CpuSet>,
    /// `xps_cpus`; empty is off, null is not there.
    xps: Option<CpuSet>,
    /// How the interrupt is known; null without one.
    known_by: Option<HowKnown>,
    /// NAPI instance; null where the kernel does not say.
    napi: Option<NapiId>,
    /// The thread that polls it; null without one.
    thread: Option<ThreadReport>,
}

/// A thread that polls a NAPI instance.
#[derive(Debug, Serialize)]
struct ThreadReport {
    /// Its number.
    pid: u32,
    /// Its name; null for one that is gone, or of another PID namespace.
    name: Option<String>,
    /// CPUs on which it may run.
    cpus: Option<CpuSet>,
}

#[derive(Serialize)]
struct ShowJson {
    schema: u32,
    command: &'static str,
    interfaces: Vec<InterfaceReport>,
}

/// Writes the tables of the host's interfaces.
///
/// # Errors
/// As `out` gives them.
pub fn show(out: &mut impl Write, format: Format, host: &Host) -> io::Result<()> {
    let interfaces: Vec<InterfaceReport> =
        host.nics.iter().map(|on| InterfaceReport::of(on, &host.topology)).collect();
    if format == Format::Json {
        return write_json(out, &ShowJson { schema: SCHEMA, command: "show", interfaces });
    }
    if interfaces.is_empty() {
        return writeln!(out, "no interface has a device or several queues; name one: tune show IFACE");
    }
    for (position, interface) in interfaces.iter().enumerate() {
        if position > 0 {
            writeln!(out)?;
        }
        write_interface(out, interface)?;
    }
    Ok(())
}

fn write_interface(out: &mut impl Write, report: &InterfaceReport) -> io::Result<()> {
    let device = match (&report.driver, &report.device, &report.pci) {
        (None, None, _) => "virtual".to_owned(),
        (driver, device, pci) => {
            let driver = driver.as_deref().unwrap_or("no driver");
            let device = device.as_deref().filter(|device| pci.as_deref() != Some(device));
            let names: Vec<&str> = [device, pci.as_deref()].into_iter().flatten().collect();
            format!("{driver} ({})", names.join(" at "))
        }
    };
    let node = report.numa_node.map_or_else(|| "none".to_owned(), |node| node.to_string());
    writeln!(
        out,
        "{}: {device}, NUMA node {node}, {}, {}, {}, online CPUs {}",
        report.interface,
        speed(report.speed_mbit),
        count(report.rx_queues, "RX queue"),
        count(report.tx_queues, "TX queue"),
        report.cpus
    )?;
    if let Some(line) = ethtool_line(&report.ethtool) {
        writeln!(out, "{line}")?;
    }
    let head = ["QUEUE", "IRQ", "SET", "EFFECTIVE", "NODE", "RPS", "XPS", "KNOWN BY", "INTERRUPT"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(report.queues.iter().map(cells));
    if report.queues.iter().any(|queue| queue.thread.is_some()) {
        let thread = |queue: &QueueReport| queue.thread.as_ref().map_or_else(|| "-".to_owned(), describe);
        let threads = iter::once("NAPI THREAD".to_owned()).chain(report.queues.iter().map(thread));
        let rows: Vec<[String; 10]> = rows.into_iter().zip(threads).map(with_cell).collect();
        write_table(out, &rows)?;
    } else {
        write_table(out, &rows)?;
    }
    for thread in &report.threads_of_unknown_queues {
        writeln!(out, "NAPI thread {} polls a queue that is not known", describe(thread))?;
    }
    match report.lower.as_ref().map(list).as_deref() {
        None => {}
        Some("") => {
            writeln!(out, "it stands on others, of which none has a device: there is nothing to tune")?;
        }
        Some(lower) => writeln!(out, "it stands on {lower}: plan and apply take those")?,
    }
    if let Some(physical) = &report.physical_function {
        writeln!(out, "it is a virtual function of {}", name_of(physical))?;
    }
    if !report.virtual_functions.is_empty() {
        let names: Vec<String> = report.virtual_functions.iter().map(name_of).collect();
        writeln!(out, "its virtual functions are {}", names.join(", "))?;
    }
    if let Some(doubt) = &report.doubt {
        writeln!(out, "its interrupts are not set, since {doubt}")?;
    }
    Ok(())
}

/// As on the box: `40 Gbit/s`, `2.5 Gbit/s`, `100 Mbit/s`.
fn speed(mbit: Option<u32>) -> String {
    match mbit {
        None => "link speed not known".to_owned(),
        Some(mbit) if mbit < 1000 => format!("{mbit} Mbit/s"),
        Some(mbit) => format!("{} Gbit/s", f64::from(mbit) / 1000.0),
    }
}

/// What can be set by ethtool, on one line; `None` where nothing is known.
fn ethtool_line(ethtool: &Ethtool) -> Option<String> {
    let name = |knob: Knob| match knob {
        Knob::Coalesce(field) => field.name().to_owned(),
        Knob::Hash(flow) => flow.name().to_owned(),
        other => other.name(),
    };
    let parts: Vec<String> =
        Knob::all().filter_map(|knob| Some(format!("{} {}", name(knob), ethtool.text(knob)?))).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// A row with one more cell, before the last.
fn with_cell((row, cell): ([String; 9], String)) -> [String; 10] {
    let [a, b, c, d, e, f, g, h, last] = row;
    [a, b, c, d, e, f, g, h, cell, last]
}

fn describe(thread: &ThreadReport) -> String {
    let cpus = thread.cpus.as_ref().map_or_else(|| "is gone".to_owned(), |cpus| format!("on {cpus}"));
    format!("{} {cpus}", thread.pid)
}

fn name_of(function: &Function) -> String {
    match list(&function.interfaces).as_str() {
        "" => format!("{} (no interface here)", function.pci),
        names => format!("{} ({names})", function.pci),
    }
}

fn cells(queue: &QueueReport) -> [String; 9] {
    fn or_dash<T: ToString>(value: Option<&T>) -> String {
        value.map_or_else(|| "-".to_owned(), T::to_string)
    }
    let steering = |cpus: &Option<CpuSet>| match cpus {
        Some(cpus) if cpus.is_empty() => "off".to_owned(),
        cpus => or_dash(cpus.as_ref()),
    };
    let name = match (queue.rx, queue.tx) {
        (Some(rx), Some(_)) => rx.to_string(),
        (Some(rx), None) => format!("rx-{rx}"),
        (None, tx) => format!("tx-{}", or_dash(tx.as_ref())),
    };
    [
        name,
        or_dash(queue.irq.as_ref()),
        or_dash(queue.set.as_ref()),
        or_dash(queue.effective.as_ref()),
        or_dash(queue.numa_node.as_ref()),
        steering(&queue.rps),
        steering(&queue.xps),
        queue.known_by.map_or_else(|| "no interrupt".to_owned(), |how| how.to_string()),
        or_dash(queue.interrupt.as_ref()),
    ]
}

impl InterfaceReport {
    fn of(host: &NicHost, topology: &Topology) -> Self {
        let nic = &host.nic;
        let device = nic.device.as_ref();
        Self {
            interface: nic.name.to_string(),
            driver: nic.driver().map(str::to_owned),
            device: device.map(|device| device.name().to_owned()),
            pci: device.and_then(|device| device.pci.as_ref()).map(ToString::to_string),
            lower: nic.lower.clone(),
            physical_function: host.sriov.physical.clone(),
            virtual_functions: host.sriov.virtuals.clone(),
            numa_node: nic.numa_node,
            speed_mbit: nic.speed,
            rx_queues: nic.rx_queues.len(),
            tx_queues: nic.tx_queues.len(),
            ethtool: host.ethtool.clone(),
            cpus: topology.online.clone(),
            doubt: host.queue_irqs.doubt.clone(),
            netlink_unknown: host.netdev.unknown.clone(),
            threads_of_unknown_queues: idle_threads(host),
            queues: queue_reports(host),
        }
    }
}

fn queue_reports(host: &NicHost) -> Vec<QueueReport> {
    let Nic { rx_queues, tx_queues, .. } = &host.nic;
    let mut indexes: Vec<QueueIndex> =
        rx_queues.iter().map(|rx| rx.index).chain(tx_queues.iter().map(|tx| tx.index)).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let mut reports = Vec::new();
    for index in indexes {
        let rx = rx_queues.iter().find(|rx| rx.index == index);
        let tx = tx_queues.iter().find(|tx| tx.index == index);
        let rx_irq = rx.and_then(|rx| host.queue_irqs.rx(rx.index));
        let tx_irq = tx.and_then(|tx| host.queue_irqs.tx(tx.index));
        if rx_irq.map(|row| row.irq) == tx_irq.map(|row| row.irq) {
            reports.push(queue_report(host, rx, tx, rx_irq));
        } else {
            reports.extend(rx.map(|rx| queue_report(host, Some(rx), None, rx_irq)));
            reports.extend(tx.map(|tx| queue_report(host, None, Some(tx), tx_irq)));
        }
    }
    reports
}

/// The threads of NAPI instances of which no queue is known.
fn idle_threads(host: &NicHost) -> Vec<ThreadReport> {
    let unserved = |napi: &&Napi| !host.netdev.queues.iter().any(|queue| queue.napi == Some(napi.id));
    host.netdev.napis.iter().filter(unserved).filter_map(thread_report).collect()
}

fn thread_report(napi: &Napi) -> Option<ThreadReport> {
    let thread = napi.thread.as_ref();
    Some(ThreadReport {
        pid: napi.pid.or(thread.map(|thread| thread.pid))?,
        name: thread.map(|thread| thread.name.clone()),
        cpus: thread.map(|thread| thread.cpus.clone()),
    })
}

fn queue_report(
    host: &NicHost,
    rx: Option<&RxQueue>,
    tx: Option<&TxQueue>,
    row: Option<&QueueIrq>,
) -> QueueReport {
    let state = row.and_then(|row| host.irqs.get(&row.irq));
    let rx_napi = rx.and_then(|rx| host.netdev.of_queue(Direction::Rx, rx.index));
    let napi = rx_napi.or_else(|| host.netdev.of_queue(Direction::Tx, tx?.index));
    QueueReport {
        rx: rx.map(|rx| rx.index),
        tx: tx.map(|tx| tx.index),
        irq: row.map(|row| row.irq),
        interrupt: row.map(|row| row.name.clone()),
        set: state.map(|state| state.affinity.clone()),
        effective: state.and_then(|state| state.effective.clone()),
        numa_node: state.and_then(|state| state.node).or(host.nic.numa_node),
        rps: rx.and_then(|rx| rx.rps_cpus.clone()),
        xps: tx.and_then(|tx| tx.xps_cpus.clone()),
        known_by: row.map(|row| row.how),
        napi: napi.map(|napi| napi.id),
        thread: napi.and_then(thread_report),
    }
}
