//! Which interrupt serves which queue: known, in doubt, or nothing to know.
//!
//! The ladder, the first step that finds interrupts wins:
//!
//! 1. `msi_irqs/` of the device, else of the one above it (virtio), without the vectors that have no
//!    `/proc/irq/N` because no handler was ever asked for, and the driver's naming rule for the number;
//! 2. the device's PCI address in the chip's name (`PCI-MSIX-0000:00:03.0`, printed by newer kernels);
//! 3. `irq` of the device, for one without MSI;
//! 4. the name alone. Names stay as they are when an interface is renamed, and two network namespaces may both have
//!    an `eth0`, so such a row is shown and never written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::driver_names::{self, Match, Numbers};
use super::nic::Device;
use super::{HostError, InterruptRow, Interrupts, Irq, Nic, QueueIndex};
use crate::cpu_set::CpuSet;
use crate::kernel_files::KernelFiles;

/// How it is known that an interrupt belongs to the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HowKnown {
    /// It is in `msi_irqs/` of the device; the number is read from the name as its driver writes it.
    MsiIrqs,
    /// The device's PCI address stands in the chip's name.
    ChipAddress,
    /// It is in the device's `irq` file.
    IrqFile,
    /// Only its name says so: a guess.
    NameOnly,
}

impl fmt::Display for HowKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MsiIrqs => "msi_irqs",
            Self::IrqFile => "irq file",
            Self::ChipAddress => "PCI address",
            Self::NameOnly => "name only",
        })
    }
}

/// The queues that an interrupt serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// An RX and a TX queue of the same number.
    Both(QueueIndex),
    /// An RX queue.
    Rx(QueueIndex),
    /// A TX queue.
    Tx(QueueIndex),
    /// Every queue of the interface.
    All,
}

impl Serves {
    /// True if it serves this RX queue.
    #[must_use]
    pub fn rx(self, queue: QueueIndex) -> bool {
        match self {
            Self::Both(own) | Self::Rx(own) => own == queue,
            Self::Tx(_) => false,
            Self::All => true,
        }
    }

    /// True if it serves this TX queue.
    #[must_use]
    pub fn tx(self, queue: QueueIndex) -> bool {
        match self {
            Self::Both(own) | Self::Tx(own) => own == queue,
            Self::Rx(_) => false,
            Self::All => true,
        }
    }
}

/// One interrupt of the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueIrq {
    /// Its number.
    pub irq: Irq,
    /// The handler's name in `/proc/interrupts`.
    pub name: String,
    /// The queues it serves.
    pub serves: Serves,
    /// How that is known.
    pub how: HowKnown,
}

/// The interrupts of an interface's queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueIrqs {
    /// In ascending order of queue, then interrupt. Empty for a virtual interface.
    pub rows: Vec<QueueIrq>,
    /// Why the rows must not be written, where they must not.
    pub doubt: Option<String>,
}

impl QueueIrqs {
    /// The interrupt of an RX queue.
    #[must_use]
    pub fn rx(&self, queue: QueueIndex) -> Option<&QueueIrq> {
        self.rows.iter().find(|row| row.serves.rx(queue))
    }

    /// The interrupt of a TX queue.
    #[must_use]
    pub fn tx(&self, queue: QueueIndex) -> Option<&QueueIrq> {
        self.rows.iter().find(|row| row.serves.tx(queue))
    }

    /// Climbs down the ladder. Where no step finds an interrupt of a queue, the first step that found any
    /// interrupt says why it is none.
    ///
    /// # Errors
    /// If a directory exists and cannot be read.
    pub fn read(files: &KernelFiles, nic: &Nic, interrupts: &Interrupts) -> Result<Self, HostError> {
        let Some(device) = &nic.device else { return Ok(Self::default()) };
        let all = || interrupts.rows.iter().filter_map(InterruptRow::irq).collect();
        let steps = [
            (HowKnown::MsiIrqs, msi_irqs(files, device)?),
            (HowKnown::ChipAddress, irqs_of_chip(interrupts, device)),
            (HowKnown::IrqFile, irq_file(files, device)?),
            (HowKnown::NameOnly, all()),
        ];
        let mut nothing = None;
        for (how, irqs) in steps {
            let candidates: Vec<Candidate> =
                irqs.into_iter().filter_map(|irq| candidate(interrupts.row(irq)?)).collect();
            let found = map(nic, device, &candidates, how);
            if !found.rows.is_empty() {
                return Ok(found);
            }
            if !candidates.is_empty() && how != HowKnown::NameOnly {
                nothing.get_or_insert(found);
            }
        }
        Ok(nothing.unwrap_or_else(|| map(nic, device, &[], HowKnown::NameOnly)))
    }
}

/// An interrupt with the names of its handlers.
struct Candidate {
    irq: Irq,
    names: Vec<String>,
}

fn candidate(row: &InterruptRow) -> Option<Candidate> {
    Some(Candidate { irq: row.irq()?, names: row.actions().map(str::to_owned).collect() })
}

/// The vectors in `msi_irqs/` of the device, else of the one above it, that have a `/proc/irq/N`.
fn msi_irqs(files: &KernelFiles, device: &Device) -> Result<BTreeSet<Irq>, HostError> {
    for directory in [&device.path, &device.parent] {
        let names = files.list_optional(&format!("{directory}/msi_irqs"))?.unwrap_or_default();
        let irqs = names.iter().filter_map(|name| name.parse().ok());
        let irqs: BTreeSet<Irq> = irqs.filter(|irq| exists(files, *irq)).collect();
        if !irqs.is_empty() {
            return Ok(irqs);
        }
    }
    Ok(BTreeSet::new())
}

/// The interrupt in the file `irq` of the device, else of the one above it; 0 is none.
fn irq_file(files: &KernelFiles, device: &Device) -> Result<BTreeSet<Irq>, HostError> {
    for directory in [&device.path, &device.parent] {
        let text = files.read_optional(&format!("{directory}/irq"))?.unwrap_or_default();
        if let Some(irq) = text.trim().parse().ok().filter(|irq| exists(files, *irq)) {
            return Ok(BTreeSet::from([irq]));
        }
    }
    Ok(BTreeSet::new())
}

fn exists(files: &KernelFiles, irq: Irq) -> bool {
    irq.0 != 0 && files.exists(&format!("/proc/irq/{irq}"))
}

fn irqs_of_chip(interrupts: &Interrupts, device: &Device) -> BTreeSet<Irq> {
    let Some(pci) = &device.pci else { return BTreeSet::new() };
    let chip_is_device = |row: &&InterruptRow| {
        let chip = row.description.split_whitespace().next().unwrap_or_default();
        chip.to_ascii_lowercase().ends_with(&format!("-{pci}"))
    };
    interrupts.rows.iter().filter(chip_is_device).filter_map(InterruptRow::irq).collect()
}

/// One interrupt whose name a rule reads.
struct Reading<'a> {
    irq: Irq,
    name: &'a str,
    numbers: Numbers,
    found: Match<'a>,
}

fn map(nic: &Nic, device: &Device, candidates: &[Candidate], how: HowKnown) -> QueueIrqs {
    let readings = read_names(nic, device, candidates, how);
    let mut rows: Vec<QueueIrq> = serve(nic, &readings, how);
    rows.sort_by_key(|row| (order(row.serves), row.irq));
    let doubt = doubt(nic, &rows, &readings, candidates);
    QueueIrqs { rows, doubt }
}

fn read_names<'a>(
    nic: &Nic,
    device: &Device,
    candidates: &'a [Candidate],
    how: HowKnown,
) -> Vec<Reading<'a>> {
    let read = |rules: &[&'static driver_names::Rule]| -> Vec<Reading<'a>> {
        let mut readings = Vec::new();
        for (candidate, name) in candidates.iter().flat_map(|c| c.names.iter().map(move |name| (c, name))) {
            let reading = rules.iter().find_map(|rule| {
                let found = rule.matches(name, &nic.name, device.name())?;
                let own = found.pci.is_none() || found.pci == device.pci;
                own.then_some(Reading { irq: candidate.irq, name, numbers: rule.numbers, found })
            });
            readings.extend(reading);
        }
        readings
    };
    let is_exact = |reading: &Reading| reading.found.interface.is_none_or(|name| name == nic.name.as_str());
    let mut readings = read(&driver_names::rules_for(nic.driver()));
    if how == HowKnown::NameOnly || readings.iter().any(is_exact) {
        readings.retain(is_exact);
    }
    if readings.is_empty() {
        readings = read(&[&driver_names::BARE]);
        readings.retain(is_exact);
    }
    readings
}

/// The queues that each reading serves; a number beyond the queues of the interface serves none (drivers ask for
/// as many vectors as the device has).
fn serve(nic: &Nic, readings: &[Reading], how: HowKnown) -> Vec<QueueIrq> {
    let has_rx = |queue| nic.rx_queues.iter().any(|rx| rx.index == queue);
    let has_tx = |queue| nic.tx_queues.iter().any(|tx| tx.index == queue);
    let blocks =
        readings.iter().filter_map(|reading| reading.found.number).max().map_or(0, |last| last.0 + 1);
    let serves = |reading: &Reading| {
        let Some(number) = reading.found.number else { return Some(Serves::All) };
        let (rx, tx) = match reading.numbers {
            Numbers::All => return Some(Serves::All),
            Numbers::Combined => (Some(number), Some(number)),
            Numbers::Rx => (Some(number), None),
            Numbers::Tx => (None, Some(number)),
            Numbers::TxThenRx => match number.0.checked_sub(blocks / 2) {
                Some(rx) => (Some(QueueIndex(rx)), None),
                None => (None, Some(number)),
            },
        };
        match (rx.filter(|&rx| has_rx(rx)), tx.filter(|&tx| has_tx(tx))) {
            (Some(rx), Some(_)) => Some(Serves::Both(rx)),
            (Some(rx), None) => Some(Serves::Rx(rx)),
            (None, Some(tx)) => Some(Serves::Tx(tx)),
            (None, None) => None,
        }
    };
    let row = |reading: &Reading| {
        Some(QueueIrq { irq: reading.irq, name: reading.name.to_owned(), serves: serves(reading)?, how })
    };
    readings.iter().filter_map(row).collect()
}

fn order(serves: Serves) -> (QueueIndex, u8) {
    match serves {
        Serves::All => (QueueIndex(0), 0),
        Serves::Both(queue) | Serves::Rx(queue) => (queue, 1),
        Serves::Tx(queue) => (queue, 2),
    }
}

/// What makes the map more than one possible map.
fn doubt(nic: &Nic, rows: &[QueueIrq], readings: &[Reading], candidates: &[Candidate]) -> Option<String> {
    let name = &nic.name;
    if rows.is_empty() {
        return Some(nothing_known(nic, candidates));
    }
    let interfaces: BTreeSet<&str> = readings.iter().filter_map(|reading| reading.found.interface).collect();
    if interfaces.len() > 1 {
        let names: Vec<&str> = interfaces.into_iter().collect();
        return Some(format!(
            "interrupts of its device carry the names of several interfaces: {}",
            names.join(", ")
        ));
    }
    let mut seen: BTreeMap<(&str, QueueIndex), &QueueIrq> = BTreeMap::new();
    for row in rows {
        let rx = nic.rx_queues.iter().map(|rx| ("RX", rx.index)).filter(|(_, queue)| row.serves.rx(*queue));
        let tx = nic.tx_queues.iter().map(|tx| ("TX", tx.index)).filter(|(_, queue)| row.serves.tx(*queue));
        for (kind, queue) in rx.chain(tx) {
            if let Some(other) = seen.insert((kind, queue), row) {
                return Some(format!(
                    "IRQ {} ({}) and IRQ {} ({}) both claim {kind} queue {queue}",
                    other.irq, other.name, row.irq, row.name
                ));
            }
        }
    }
    let unserved: Vec<QueueIndex> =
        nic.rx_queues.iter().map(|rx| rx.index).filter(|rx| !seen.contains_key(&("RX", *rx))).collect();
    if unserved.is_empty() {
        return None;
    }
    Some(format!("no interrupt is known for RX queues {} of {name}", ranges(&unserved)))
}

fn nothing_known(nic: &Nic, candidates: &[Candidate]) -> String {
    let driver = nic.driver().unwrap_or("an unknown driver");
    let names: Vec<&str> =
        candidates.iter().flat_map(|c| c.names.iter().map(String::as_str)).take(4).collect();
    if names.is_empty() {
        return format!("no interrupt of its device ({driver}) was found; is the interface up?");
    }
    format!("{driver} names its interrupts {}, …, which no rule reads", names.join(", "))
}

/// Queue numbers in list form.
fn ranges(queues: &[QueueIndex]) -> String {
    let small = queues.iter().map(|queue| queue.0).filter(|&queue| queue < crate::cpu_set::MAX_CPUS);
    small.collect::<CpuSet>().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{RxQueue, TxQueue};

    fn nic(driver: &str, device: &str, rx: u32, tx: u32) -> Nic {
        let parent = "/sys/devices/pci0000:3a/0000:3b:00.0";
        Nic {
            name: "eth0".parse().unwrap(),
            device: Some(Device {
                path: if device.starts_with("virtio") { format!("{parent}/{device}") } else { parent.into() },
                parent: parent.into(),
                driver: Some(driver.into()),
                pci: Some("0000:3b:00.0".parse().unwrap()),
            }),
            numa_node: None,
            rx_queues: (0..rx)
                .map(|index| RxQueue { index: QueueIndex(index), rps_cpus: None, rps_flow_cnt: None })
                .collect(),
            tx_queues: (0..tx).map(|index| TxQueue { index: QueueIndex(index), xps_cpus: None }).collect(),
        }
    }

    fn map_names(nic: &Nic, names: &[&str], how: HowKnown) -> QueueIrqs {
        let candidates: Vec<Candidate> = (40..)
            .zip(names)
            .map(|(irq, name)| Candidate { irq: Irq(irq), names: vec![(*name).into()] })
            .collect();
        map(nic, nic.device.as_ref().unwrap(), &candidates, how)
    }

    fn served(map: &QueueIrqs) -> Vec<(u32, Serves)> {
        map.rows.iter().map(|row| (row.irq.0, row.serves)).collect()
    }

    #[test]
    fn virtio_has_an_interrupt_per_direction_and_its_own_number() {
        let nic = nic("virtio_net", "virtio2", 2, 2);
        let names =
            ["virtio2-config", "virtio2-input.0", "virtio2-output.0", "virtio2-input.1", "virtio2-output.1"];
        let map = map_names(&nic, &names, HowKnown::MsiIrqs);
        let (q0, q1) = (QueueIndex(0), QueueIndex(1));
        assert_eq!(
            served(&map),
            [(41, Serves::Rx(q0)), (42, Serves::Tx(q0)), (43, Serves::Rx(q1)), (44, Serves::Tx(q1))]
        );
        assert_eq!(map.doubt, None);
        let other = map_names(&nic, &["virtio4-input.0", "virtio4-input"], HowKnown::MsiIrqs);
        assert!(other.rows.is_empty());
        assert!(other.doubt.unwrap().contains("virtio_net names its interrupts virtio4-input.0"));
    }

    #[test]
    fn queue_10_comes_after_queue_2() {
        let nic = nic("mlx5_core", "", 12, 12);
        let names: Vec<String> = [10, 2, 0, 1, 11, 3, 4, 5, 6, 7, 8, 9, 12, 13]
            .iter()
            .map(|n| format!("mlx5_comp{n}@pci:0000:3b:00.0"))
            .chain(["mlx5_async0@pci:0000:3b:00.0".into(), "mlx5_comp0@pci:0000:3b:00.1".into()])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let map = map_names(&nic, &names, HowKnown::MsiIrqs);
        let queues: Vec<Serves> = map.rows.iter().map(|row| row.serves).collect();
        assert_eq!(queues, (0..12).map(|n| Serves::Both(QueueIndex(n))).collect::<Vec<_>>());
        assert_eq!(map.rows[2].irq, Irq(41));
        assert_eq!(map.doubt, None);
    }

    #[test]
    fn gve_counts_rx_blocks_from_the_middle() {
        let nic = nic("gve", "", 2, 2);
        let names: Vec<String> = (0..8).map(|n| format!("gve-ntfy-blk{n}@pci:0000:3b:00.0")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let map = map_names(&nic, &names, HowKnown::MsiIrqs);
        assert_eq!(map.rx(QueueIndex(0)).unwrap().irq, Irq(44));
        assert_eq!(map.rx(QueueIndex(1)).unwrap().irq, Irq(45));
        assert_eq!(map.tx(QueueIndex(1)).unwrap().irq, Irq(41));
        assert_eq!(map.rows.len(), 4);
    }

    #[test]
    fn a_name_from_before_a_rename_is_taken_when_the_device_owns_the_interrupt() {
        let nic = nic("ixgbe", "", 2, 2);
        let map = map_names(&nic, &["eno1-TxRx-0", "eno1-TxRx-1", "eno1"], HowKnown::MsiIrqs);
        assert_eq!((map.rows.len(), map.doubt), (2, None));
        let guess = map_names(&nic, &["eno1-TxRx-0", "eno1-TxRx-1"], HowKnown::NameOnly);
        assert!(guess.rows.is_empty());
        let guess = map_names(&nic, &["eth0-TxRx-0", "eth0-TxRx-1", "eno1-TxRx-0"], HowKnown::NameOnly);
        assert_eq!((guess.rows.len(), guess.rows[0].how), (2, HowKnown::NameOnly));
    }

    #[test]
    fn maps_that_could_be_read_in_two_ways_are_in_doubt() {
        let nic = nic("ixgbe", "", 2, 2);
        for (names, reason) in [
            (&["eth0-TxRx-0", "eth0-TxRx-0", "eth0-TxRx-1"][..], "both claim RX queue 0"),
            (&["eth0-TxRx-0"], "no interrupt is known for RX queues 1 of eth0"),
            (&["a-TxRx-0", "b-TxRx-1"], "names of several interfaces: a, b"),
            (&["eth0", "eth0"], "both claim RX queue 0"),
            (&["xyz"], "ixgbe names its interrupts xyz"),
            (&[], "no interrupt of its device (ixgbe) was found"),
        ] {
            let doubt = map_names(&nic, names, HowKnown::MsiIrqs).doubt.unwrap();
            assert!(doubt.contains(reason), "{names:?}: {doubt}");
        }
    }

    /// virtio2 of the PCI function 0000:3b:00.0; `msi_irqs` of that function, and chips that name it or do not.
    fn read_tree(msi_irqs: &[u32], irq_file: &str, chip: &str) -> QueueIrqs {
        let dir = tempfile::tempdir().unwrap();
        let pci = dir.path().join("sys/devices/pci0000:3a/0000:3b:00.0");
        let make = |path: std::path::PathBuf| std::fs::create_dir_all(path).unwrap();
        make(pci.join("virtio2"));
        make(pci.join("msi_irqs"));
        msi_irqs
            .iter()
            .for_each(|irq| std::fs::write(pci.join(format!("msi_irqs/{irq}")), "msix\n").unwrap());
        std::fs::write(pci.join("irq"), irq_file).unwrap();
        [38, 39].iter().for_each(|irq| make(dir.path().join(format!("proc/irq/{irq}"))));
        let text = format!(
            "CPU0\n 38: 1 {chip} 1-edge      virtio2-input.0\n 39: 1 {chip} 2-edge      virtio2-output.0\n"
        );
        let files = KernelFiles::open(dir.path()).unwrap();
        let nic = nic("virtio_net", "virtio2", 1, 1);
        QueueIrqs::read(&files, &nic, &Interrupts::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn the_ladder_is_climbed_down_step_by_step() {
        let how = |map: &QueueIrqs| map.rows.iter().map(|row| (row.irq.0, row.how)).collect::<Vec<_>>();
        let both = |step| vec![(38, step), (39, step)];
        let address = "PCI-MSIX-0000:3b:00.0";
        assert_eq!(how(&read_tree(&[38, 39, 40], "0", address)), both(HowKnown::MsiIrqs), "no /proc/irq/40");
        assert_eq!(how(&read_tree(&[40], "38", address)), both(HowKnown::ChipAddress));
        assert_eq!(how(&read_tree(&[], "38", "PCI-MSI")), [(38, HowKnown::IrqFile)]);
        assert_eq!(how(&read_tree(&[], "0", "PCI-MSIX-0000:3c:00.0")), both(HowKnown::NameOnly));
    }

    #[test]
    fn the_bare_name_counts_only_where_no_numbered_one_is() {
        let single = nic("e1000", "", 1, 1);
        let map = map_names(&single, &["eth0"], HowKnown::IrqFile);
        assert_eq!((served(&map), map.doubt), (vec![(40, Serves::All)], None));
        let igb = nic("igb", "", 1, 1);
        let map = map_names(&igb, &["eth0", "eth0-TxRx-0"], HowKnown::MsiIrqs);
        assert_eq!(served(&map), [(41, Serves::Both(QueueIndex(0)))]);
    }
}
