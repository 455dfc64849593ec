//! The interface: its device, NUMA node and queues, from `/sys/class/net/IF/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::names::{self, InterfaceName, PciAddress};
use super::napi::{self, NapiFile};
use super::{HostError, parse_node, read_optional_as};
use crate::cpu_set::CpuSet;
use crate::kernel_files::KernelFiles;
use crate::netns;

const NET: &str = "/sys/class/net";

/// How many interfaces the kernel lets stand on each other (`MAX_NEST_DEV` in `include/linux/netdevice.h`).
const MAX_NESTING: usize = 8;

/// The number of an RX or a TX queue, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct QueueIndex(pub u32);

impl fmt::Display for QueueIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for QueueIndex {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// An RX queue's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxQueue {
    /// Its number.
    pub index: QueueIndex,
    /// `rps_cpus`; `None` on a kernel without RPS.
    pub rps_cpus: Option<CpuSet>,
    /// `rps_flow_cnt`; `None` on a kernel without RPS.
    pub rps_flow_cnt: Option<u32>,
}

/// A TX queue's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxQueue {
    /// Its number.
    pub index: QueueIndex,
    /// `xps_cpus`; `None` where the queue has no XPS: reading gives ENOENT on a device with one TX queue,
    /// EINVAL for a queue outside of all traffic classes (mqprio) and on a subordinate device
    /// (`xps_cpus_show()`).
    pub xps_cpus: Option<CpuSet>,
    /// `xps_rxqs`: the RX queues whose connections transmit on it, before `xps_cpus` is asked; `None` as
    /// above, but it is there with one TX queue.
    pub xps_rxqs: Option<CpuSet>,
}

/// The device under an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its resolved path, `/sys/devices/pci0000:00/0000:00:03.0/virtio2`.
    pub path: String,
    /// The device above it; a virtio device keeps its interrupts and NUMA node there.
    pub parent: String,
    /// The driver's name; `None` if no driver link is there.
    pub driver: Option<String>,
    /// The PCI function: the device itself or the one above it.
    pub pci: Option<PciAddress>,
}

impl Device {
    /// The device's own name, the last part of its path: `virtio2`, `0000:3b:00.0`.
    #[must_use]
    pub fn name(&self) -> &str {
        last_component(&self.path)
    }

    /// Where its interrupts are listed, and what stays the same when a driver is loaded again (`virtio2` may
    /// be `virtio3` then): the PCI function, else the device itself.
    #[must_use]
    pub fn interrupt_directory(&self) -> &str {
        let is_pci = |path: &&String| last_component(path).parse::<PciAddress>().is_ok();
        [&self.path, &self.parent].into_iter().find(is_pci).unwrap_or(&self.path)
    }
}

/// An interface and its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: InterfaceName,
    /// The device; `None` for a virtual interface such as veth.
    pub device: Option<Device>,
    /// For an interface that stands on others (the ports of a bond, team or bridge, what a VLAN or macvlan is
    /// on), which carry its packets: the lowest of them, without the ports of a bridge that have no device,
    /// which are those of guests. `None` for an interface that carries them itself.
    pub lower: Option<BTreeSet<InterfaceName>>,
    /// An interface that stands on this one and has a device of its own, as that of hv_netvsc on the virtual
    /// function that carries most of its packets; the others come through its own queues.
    pub paravirtual: Option<InterfaceName>,
    /// NUMA node of the device or of the one above it; `None` where the kernel says -1 or nothing.
    pub numa_node: Option<u32>,
    /// Speed of the link in Mbit/s; `None` where it is down, or the driver does not know it.
    pub speed: Option<u32>,
    /// How it polls, by those files that the kernel has.
    pub napi: BTreeMap<NapiFile, u64>,
    /// In ascending order of number.
    pub rx_queues: Vec<RxQueue>,
    /// In ascending order of number.
    pub tx_queues: Vec<TxQueue>,
}

impl Nic {
    /// Reads `/sys/class/net/IF/`.
    ///
    /// # Errors
    /// If there is no such interface in this network namespace, or a file of it is not understood.
    pub fn read(files: &KernelFiles, name: &InterfaceName) -> Result<Self, HostError> {
        check_exists(files, name)?;
        let device = read_device(files, name)?;
        let numa_node = match &device {
            Some(device) => read_node(files, device)?,
            None => None,
        };
        let (rx, tx) = list_queues(files, name)?;
        let queue = |kind: &str, index, file: &str| format!("{NET}/{name}/queues/{kind}-{index}/{file}");
        let rx_queues = rx.into_iter().map(|index| -> Result<_, HostError> {
            let rps_cpus = read_optional_as(files, &queue("rx", index, "rps_cpus"), CpuSet::parse_mask)?;
            let flows = queue("rx", index, "rps_flow_cnt");
            let rps_flow_cnt = read_optional_as(files, &flows, |text| text.trim().parse::<u32>())?;
            Ok(RxQueue { index, rps_cpus, rps_flow_cnt })
        });
        let tx_queues = tx.into_iter().map(|index| -> Result<_, HostError> {
            let read = |file| match read_optional_as(files, &queue("tx", index, file), CpuSet::parse_mask) {
                Err(HostError::File(error)) if error.is_invalid() => Ok(None),
                mask => mask,
            };
            Ok(TxQueue { index, xps_cpus: read("xps_cpus")?, xps_rxqs: read("xps_rxqs")? })
        });
        Ok(Self {
            name: name.clone(),
            device,
            lower: lowest(files, name)?,
            paravirtual: linked(files, name, "upper_")?.into_iter().find(|upper| has_device(files, upper)),
            numa_node,
            speed: read_speed(files, name)?,
            napi: napi::read(files, name)?,
            rx_queues: rx_queues.collect::<Result<_, _>>()?,
            tx_queues: tx_queues.collect::<Result<_, _>>()?,
        })
    }

    /// The RX queue of this number, if `interface` is this interface.
    #[must_use]
    pub fn rx_queue(&self, interface: &InterfaceName, index: QueueIndex) -> Option<&RxQueue> {
        self.rx_queues.iter().find(|queue| queue.index == index && self.name == *interface)
    }

    /// The TX queue of this number, if `interface` is this interface.
    #[must_use]
    pub fn tx_queue(&self, interface: &InterfaceName, index: QueueIndex) -> Option<&TxQueue> {
        self.tx_queues.iter().find(|queue| queue.index == index && self.name == *interface)
    }

    /// The driver's name; `None` for a virtual interface.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        self.device.as_ref()?.driver.as_deref()
    }
}

/// The interfaces that have a device under them or more than one queue: those worth showing unasked.
///
/// # Errors
/// If `/sys/class/net` cannot be read.
pub fn interesting(files: &KernelFiles) -> Result<Vec<InterfaceName>, HostError> {
    let mut names = Vec::new();
    for name in list_interfaces(files)? {
        let (rx, tx) = list_queues(files, &name)?;
        if rx.len() > 1 || tx.len() > 1 || (has_device(files, &name) && !rx.is_empty()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Every interface in `/sys/class/net`; other files there (`bonding_masters`) are no directories and are not.
///
/// # Errors
/// If `/sys/class/net` cannot be read.
pub(super) fn list_interfaces(files: &KernelFiles) -> Result<Vec<InterfaceName>, HostError> {
    let names = files.list(NET)?.into_iter().filter_map(|name| name.parse().ok());
    Ok(names.filter(|name: &InterfaceName| files.list(&format!("{NET}/{name}")).is_ok()).collect())
}

fn check_exists(files: &KernelFiles, name: &InterfaceName) -> Result<(), HostError> {
    netns::check_sysfs(files, name)?;
    if files.exists(&format!("{NET}/{name}")) {
        return Ok(());
    }
    if let Some(real) = netns::real_name(files, name)? {
        return Err(HostError::AlternativeName { name: name.clone(), real });
    }
    Err(HostError::NoInterface { name: name.clone(), found: names::list(&list_interfaces(files)?) })
}

fn has_device(files: &KernelFiles, name: &InterfaceName) -> bool {
    files.exists(&format!("{NET}/{name}/device"))
}

/// The interfaces at the end of the `lower_*` links that begin at this one; `None` if there is no such link.
/// Beside a NIC a bridge has the virtual interfaces of guests as ports: those are left out.
pub(super) fn lowest(
    files: &KernelFiles,
    name: &InterfaceName,
) -> Result<Option<BTreeSet<InterfaceName>>, HostError> {
    let mut found = BTreeSet::new();
    let mut level = BTreeSet::from([name.clone()]);
    let mut stands_on_others = false;
    for _ in 0..=MAX_NESTING {
        let mut below = BTreeSet::new();
        for interface in level {
            let links = linked(files, &interface, "lower_")?;
            stands_on_others |= !links.is_empty();
            let is_bridge = files.exists(&format!("{NET}/{interface}/bridge"));
            for link in links {
                if linked(files, &link, "lower_")?.is_empty() {
                    if !is_bridge || has_device(files, &link) {
                        found.insert(link);
                    }
                } else {
                    below.insert(link);
                }
            }
        }
        level = below;
    }
    Ok(stands_on_others.then_some(found))
}

/// The interfaces that it has links of this kind to: `lower_` or `upper_`.
fn linked(files: &KernelFiles, name: &InterfaceName, kind: &str) -> Result<Vec<InterfaceName>, HostError> {
    let names = files.list_optional(&format!("{NET}/{name}"))?.unwrap_or_default();
    Ok(names.iter().filter_map(|file| file.strip_prefix(kind)?.parse().ok()).collect())
}

fn read_device(files: &KernelFiles, name: &InterfaceName) -> Result<Option<Device>, HostError> {
    let link = format!("{NET}/{name}/device");
    if files.link_text(&link).is_none() && !files.exists(&link) {
        return Ok(None);
    }
    let path = files.resolve(&link)?;
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    let driver = files.link_name(&format!("{path}/driver"));
    let pci = [&path, &parent].into_iter().find_map(|path| last_component(path).parse().ok());
    Ok(Some(Device { path, parent, driver, pci }))
}

fn read_node(files: &KernelFiles, device: &Device) -> Result<Option<u32>, HostError> {
    for directory in [&device.path, &device.parent] {
        let path = format!("{directory}/numa_node");
        if let Some(node) = read_optional_as(files, &path, parse_node)? {
            return Ok(node);
        }
    }
    Ok(None)
}

/// Reading gives EINVAL while the interface is down or where the driver has no settings of a link, and -1
/// where the driver knows no speed (`speed_show()` in `net/core/net-sysfs.c`, `SPEED_UNKNOWN`).
fn read_speed(files: &KernelFiles, name: &InterfaceName) -> Result<Option<u32>, HostError> {
    let parse = |text: &str| text.trim().parse::<i64>().map(|speed| u32::try_from(speed).ok());
    match read_optional_as(files, &format!("{NET}/{name}/speed"), parse) {
        Err(HostError::File(error)) if error.is_invalid() => Ok(None),
        speed => Ok(speed?.flatten()),
    }
}

/// The RX and TX queues of an interface, each in ascending order; empty without `queues/`.
fn list_queues(
    files: &KernelFiles,
    name: &InterfaceName,
) -> Result<(Vec<QueueIndex>, Vec<QueueIndex>), HostError> {
    let names = files.list_optional(&format!("{NET}/{name}/queues"))?.unwrap_or_default();
    let indexes = |prefix| {
        let mut found: Vec<QueueIndex> =
            names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
        found.sort_unstable();
        found
    };
    Ok((indexes("rx-"), indexes("tx-")))
}

fn last_component(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
