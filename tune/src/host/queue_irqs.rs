//! Which interrupt serves which queue: known, in doubt, or nothing to know.
//!
//! The ladder, the first step that finds interrupts wins:
//!
//! 1. what the kernel says by netlink, if it says it of every queue ([`Netdev`]); what it says of some must
//!    agree with the step that wins;
//! 2. `msi_irqs/` of the device, else of the one above it (virtio), without the vectors that have no
//!    `/proc/irq/N` because no handler was ever asked for, and the driver's naming rule for the number;
//! 3. the device's PCI address in the chip's name (`PCI-MSIX-0000:00:03.0`, printed by newer kernels);
//! 4. `irq` of the device, for one without MSI;
//! 5. the device's own name (`virtio2`), which no other device has: a virtio device that is not on PCI;
//! 6. the interface's name alone. Names stay as they are when an interface is renamed, and two network
//!    namespaces may both have an `eth0`, so such a row is shown and never written.
//!
//! Where none gives a map that is certain, the user can tell it (`--map`, [`ToldMap`]).
//!
//! A driver that no naming rule is known for is read as others write their names; that, too, is shown and
//! never written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::driver_names;
use super::netdev::Direction;
use super::nic::{self, Device};
use super::queue_map::{Candidate, claimed_twice_or_not_at_all, map};
use super::told_map::{Known, ToldMap, against_netlink, netlink_rows};
use super::{HostError, InterfaceName, InterruptRow, Interrupts, Irq, Netdev, Nic, QueueIndex};
use crate::kernel_files::KernelFiles;

/// How it is known that an interrupt belongs to the queues of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HowKnown {
    /// The kernel says so by netlink.
    Netlink,
    /// It is in `msi_irqs/` of the device; the number is read from the name as its driver writes it.
    MsiIrqs,
    /// The device's PCI address stands in the chip's name.
    ChipAddress,
    /// It is in the device's `irq` file.
    IrqFile,
    /// Its name is the device's own, which no other device has.
    DeviceName,
    /// The user says so (`--map`).
    Told,
    /// Only its name says so, or which queues it serves: a guess.
    NameOnly,
}

impl fmt::Display for HowKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Netlink => "netlink",
            Self::Told => "--map",
            Self::MsiIrqs => "msi_irqs",
            Self::IrqFile => "irq file",
            Self::ChipAddress => "PCI address",
            Self::DeviceName => "device name",
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
    /// The handler's name in `/proc/interrupts`; empty where that is masked.
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
    /// The handlers of other devices on the same interrupts.
    pub shared: BTreeMap<Irq, Vec<String>>,
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

    /// The interrupt of a queue.
    #[must_use]
    pub fn of(&self, direction: Direction, queue: QueueIndex) -> Option<&QueueIrq> {
        match direction {
            Direction::Rx => self.rx(queue),
            Direction::Tx => self.tx(queue),
        }
    }

    /// Climbs down the ladder; `/proc/interrupts` is only read if the device may have interrupts. What was
    /// told must agree with what is certain, and completes what is not.
    ///
    /// # Errors
    /// If a directory exists and cannot be read, `/proc/interrupts` is not understood, or what was told
    /// contradicts the host.
    pub fn read<'a>(
        files: &KernelFiles,
        nic: &Nic,
        netdev: &Netdev,
        told: &ToldMap,
        interrupts: impl FnOnce() -> Result<&'a Interrupts, HostError>,
    ) -> Result<Self, HostError> {
        let Some(device) = &nic.device else {
            return match told.is_empty() {
                true => Ok(Self::default()),
                false => Err(HostError::MapOfVirtual(nic.name.clone())),
            };
        };
        let unserved = driver_names::served_by(device).map(|_| map(nic, device, &[], HowKnown::NameOnly));
        if let Some(unserved) = unserved.filter(|_| told.is_empty()) {
            return Ok(unserved);
        }
        let interrupts = match interrupts() {
            // A container may mask the names of handlers, and netlink does without them.
            Err(masked @ HostError::NoInterrupts) if told.is_empty() => {
                let rows = netlink_rows(nic, netdev, |irq| exists(files, irq), |_| None);
                let doubt = (!is_whole(nic, &rows)).then(|| masked.to_string());
                let rows = if doubt.is_none() { rows } else { Vec::new() };
                return Ok(Self { rows, doubt, ..Self::default() });
            }
            interrupts => interrupts?,
        };
        let mut found = climb(files, nic, device, netdev, interrupts)?;
        if !told.is_empty() {
            let known = OfHost { files, interrupts, interface: &nic.name };
            found = told.complete(nic, found, netdev, &known).map_err(HostError::Map)?;
        }
        found.shared = found.others(interrupts);
        Ok(found)
    }

    /// The other handlers of the interrupts: all but those that are in a row themselves.
    fn others(&self, interrupts: &Interrupts) -> BTreeMap<Irq, Vec<String>> {
        let mut shared = BTreeMap::new();
        for row in &self.rows {
            let is_other = |name: &&str| !self.rows.iter().any(|own| own.irq == row.irq && own.name == *name);
            let names = interrupts.row(row.irq).map(|line| line.actions().filter(is_other));
            let names: Vec<String> = names.into_iter().flatten().map(str::to_owned).collect();
            if !names.is_empty() {
                shared.insert(row.irq, names);
            }
        }
        shared
    }
}

/// The first step that gives every queue its interrupt, or else finds any. Where no step finds an interrupt
/// of a queue, the first that found any interrupt says why it is none.
fn climb(
    files: &KernelFiles,
    nic: &Nic,
    device: &Device,
    netdev: &Netdev,
    interrupts: &Interrupts,
) -> Result<QueueIrqs, HostError> {
    let name = |irq| interrupts.row(irq)?.actions().next().map(str::to_owned);
    let rows = netlink_rows(nic, netdev, |irq| exists(files, irq), name);
    if is_whole(nic, &rows) {
        return Ok(QueueIrqs { rows, ..QueueIrqs::default() });
    }
    let mut found = climb_names(files, nic, device, interrupts)?;
    found.doubt = against_netlink(&rows, &found).or(found.doubt);
    Ok(found)
}

/// True if every queue has its interrupt, and one.
fn is_whole(nic: &Nic, rows: &[QueueIrq]) -> bool {
    !rows.is_empty() && claimed_twice_or_not_at_all(nic, rows).is_none()
}

fn climb_names(
    files: &KernelFiles,
    nic: &Nic,
    device: &Device,
    interrupts: &Interrupts,
) -> Result<QueueIrqs, HostError> {
    let all = || interrupts.rows.iter().map(|row| row.irq).collect();
    let mut nothing = None;
    for how in [HowKnown::MsiIrqs, HowKnown::ChipAddress, HowKnown::IrqFile, HowKnown::NameOnly] {
        let irqs: BTreeSet<Irq> = match how {
            HowKnown::MsiIrqs => msi_irqs(files, device)?,
            HowKnown::ChipAddress => irqs_of_chip(interrupts, device),
            HowKnown::IrqFile => irq_file(files, device)?,
            _ => all(),
        };
        let irqs = irqs.into_iter().filter(|irq| exists(files, *irq));
        let candidates: Vec<Candidate> = irqs.filter_map(|irq| interrupts.row(irq).map(candidate)).collect();
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

/// What a told map is checked against.
struct OfHost<'a> {
    files: &'a KernelFiles,
    interrupts: &'a Interrupts,
    interface: &'a InterfaceName,
}

impl Known for OfHost<'_> {
    fn name(&self, irq: Irq) -> Option<String> {
        self.interrupts.row(irq)?.actions().next().map(str::to_owned)
    }

    fn exists(&self, irq: Irq) -> bool {
        exists(self.files, irq)
    }

    fn other_owner(&self, irq: Irq) -> Option<String> {
        let interfaces = nic::list_interfaces(self.files).unwrap_or_default();
        let others = interfaces.into_iter().filter(|name| name != self.interface);
        let mut owners = others.filter(|name| {
            ["device", "device/.."]
                .iter()
                .any(|device| self.files.exists(&format!("/sys/class/net/{name}/{device}/msi_irqs/{irq}")))
        });
        owners.next().map(|name| name.to_string())
    }
}

fn candidate(row: &InterruptRow) -> Candidate {
    Candidate { irq: row.irq, names: row.actions().map(str::to_owned).collect() }
}

/// The vectors in `msi_irqs/` of the device, else of the one above it.
fn msi_irqs(files: &KernelFiles, device: &Device) -> Result<BTreeSet<Irq>, HostError> {
    for directory in [&device.path, &device.parent] {
        let names = files.list_optional(&format!("{directory}/msi_irqs"))?.unwrap_or_default();
        let irqs: BTreeSet<Irq> = names.iter().filter_map(|name| name.parse().ok()).collect();
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
        if let Some(irq) = text.trim().parse().ok().filter(|irq| *irq != Irq(0)) {
            return Ok(BTreeSet::from([irq]));
        }
    }
    Ok(BTreeSet::new())
}

fn exists(files: &KernelFiles, irq: Irq) -> bool {
    files.exists(&format!("/proc/irq/{irq}"))
}

fn irqs_of_chip(interrupts: &Interrupts, device: &Device) -> BTreeSet<Irq> {
    let Some(pci) = &device.pci else { return BTreeSet::new() };
    let of_device = interrupts.rows.iter().filter(|row| row.pci().as_ref() == Some(pci));
    of_device.map(|row| row.irq).collect()
}

#[cfg(test)]
mod tests;
