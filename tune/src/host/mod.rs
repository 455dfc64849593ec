//! `Host`: what the machine looks like, as plain data read once.
//!
//! Every part has a parser that takes text and a reader that opens files through [`KernelFiles`] and adds the
//! path to the error.

pub mod allowed;
mod carriers;
mod default_route;
mod driver_names;
pub mod ethtool;
#[cfg(test)]
pub(crate) mod fixture;
pub mod governors;
mod interrupts;
mod irq;
pub mod irq_owner;
pub mod names;
mod napi;
pub mod netdev;
pub mod nic;
mod nic_reader;
mod nodes;
mod queue_irqs;
mod queue_map;
mod resize;
mod settings;
pub mod sriov;
mod sysctls;
mod told_map;
mod topology;
#[cfg(test)]
mod vector_sets;

use std::collections::BTreeMap;

pub use ethtool::Ethtool;
pub use governors::Governor;
pub use interrupts::{InterruptRow, Interrupts};
pub use irq::{Irq, IrqState};
pub use names::{InterfaceChoice, InterfaceName, InterfaceNameError, PciAddress};
pub use napi::NapiFile;
pub use netdev::{Direction, Napi, NapiId, NapiThread, Netdev};
pub use nic::{Nic, QueueIndex, RxQueue, TxQueue};
pub use nic_reader::NicReader;
pub use queue_irqs::{HowKnown, QueueIrq, QueueIrqs, Serves};
pub use sriov::Sriov;
pub use sysctls::{SysctlName, SysctlNameError, Sysctls};
pub use told_map::{ToldMap, ToldMapError};
pub use topology::{CpuPlace, Topology};

use crate::cpu_set::{Cpu, CpuSet};
use crate::irqbalance::Irqbalance;
use crate::kernel_files::{KernelFileError, KernelFiles};
use crate::setting::{Setting, Value};

/// A snapshot of the interfaces that were asked for, the CPUs, and the sysctls that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// CPUs, cores, caches and NUMA nodes.
    pub topology: Topology,
    /// The interfaces, each once, in the order in which they were asked for.
    pub nics: Vec<NicHost>,
    /// The CPU governors, if they were asked for ([`Host::with_governors`]).
    pub governors: BTreeMap<Cpu, Governor>,
    /// What would move the interrupts again.
    pub irqbalance: Irqbalance,
    /// The sysctls that were asked for and exist.
    pub sysctls: Sysctls,
    /// `net.core.rps_default_mask`: the `rps_cpus` of queues that are made from now on, in this network
    /// namespace. `None` where it does not exist (before Linux 6.3), or the kernel prints only the end of it
    /// (see [`Topology::prints_whole_mask`]).
    pub rps_default_mask: Option<CpuSet>,
}

/// What the snapshot holds of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicHost {
    /// The interface and its queues.
    pub nic: Nic,
    /// Its channels, rings, RSS, coalescing and features.
    pub ethtool: Ethtool,
    /// What the kernel says of its queues and NAPI instances.
    pub netdev: Netdev,
    /// Which interrupt serves which queue, and how that is known.
    pub queue_irqs: QueueIrqs,
    /// Affinity of the interrupts in `queue_irqs`.
    pub irqs: BTreeMap<Irq, IrqState>,
    /// Its physical or virtual functions.
    pub sriov: Sriov,
}

impl Host {
    /// Reads the snapshot of the interfaces that carry what is asked for: an interface that stands on others
    /// (bond, team, bridge, VLAN, macvlan) gives way to the lowest of them. `sysctls` are the names that the
    /// profile sets; one that does not exist is left out. `told` is what the user says of the queue map, of
    /// one interface only.
    ///
    /// # Errors
    /// If an interface or a default route does not exist, a file that every supported kernel has cannot be
    /// read or understood, or what was told contradicts the host.
    pub fn read(
        files: &KernelFiles,
        interface: &InterfaceChoice,
        sysctls: &[SysctlName],
        told: &ToldMap,
    ) -> Result<Self, HostError> {
        let topology = Topology::read(files)?;
        Self::with(files, topology, &carriers::find(files, interface)?, sysctls, told)
    }

    /// Reads the snapshot of these interfaces, whatever they stand on.
    ///
    /// # Errors
    /// As [`Host::read`].
    pub fn read_nics(
        files: &KernelFiles,
        interfaces: &[InterfaceName],
        sysctls: &[SysctlName],
        told: &ToldMap,
    ) -> Result<Self, HostError> {
        Self::with(files, Topology::read(files)?, interfaces, sysctls, told)
    }

    fn with(
        files: &KernelFiles,
        topology: Topology,
        interfaces: &[InterfaceName],
        sysctls: &[SysctlName],
        told: &ToldMap,
    ) -> Result<Self, HostError> {
        if !told.is_empty() && interfaces.len() != 1 {
            return Err(HostError::MapOfSeveral(names::list(interfaces)));
        }
        let reader = NicReader::new(files, told.clone());
        let nics = interfaces.iter().map(|name| reader.read(name)).collect::<Result<_, _>>()?;
        let sysctls = sysctls::read(files, sysctls)?;
        let mut rps_default_mask = None;
        if topology.prints_whole_mask() {
            rps_default_mask = read_optional_as(files, &Setting::RpsDefaultMask.path(), CpuSet::parse_mask)?;
        }
        let irqbalance = Irqbalance::read(files);
        Ok(Self { topology, nics, governors: BTreeMap::new(), irqbalance, sysctls, rps_default_mask })
    }

    /// Adds the governors of the online CPUs, which only a profile that sets them asks for: on a large host
    /// they are thousands of files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn with_governors(mut self, files: &KernelFiles) -> Result<Self, HostError> {
        self.governors = governors::read(files, &self.topology.online)?;
        Ok(self)
    }

    /// The names of its interfaces.
    #[must_use]
    pub fn interfaces(&self) -> Vec<InterfaceName> {
        self.nics.iter().map(|on| on.nic.name.clone()).collect()
    }

    /// What a setting holds in this snapshot; `None` if the snapshot has no such file.
    #[must_use]
    pub fn value(&self, setting: &Setting) -> Option<Value> {
        match setting {
            Setting::IrqbalanceBan => self.irqbalance.banned().map(|irqs| Value::from_irqs(&irqs)),
            Setting::Governor(cpu) => self.governors.get(cpu).map(|found| Value::Words(found.name.clone())),
            Setting::Sysctl(name) => self.sysctls.get(name).cloned(),
            Setting::RpsDefaultMask => self.rps_default_mask.clone().map(Value::Mask),
            _ => self.nics.iter().find_map(|on| on.value(setting)),
        }
    }

    /// The state of an interrupt of one of its interfaces.
    #[must_use]
    pub fn irq(&self, irq: Irq) -> Option<&IrqState> {
        self.nics.iter().find_map(|on| on.irqs.get(&irq))
    }
}

impl NicHost {
    /// What a setting of this interface holds; `None` if it is of another one, or of none.
    #[must_use]
    pub fn value(&self, setting: &Setting) -> Option<Value> {
        match setting {
            Setting::Ethtool(interface, knob) if *interface == self.nic.name => self.ethtool.value(*knob),
            Setting::Napi(interface, file) => {
                let value = self.nic.napi.get(file).filter(|_| self.nic.name == *interface)?;
                Some(Value::Numbers(vec![i128::from(*value)]))
            }
            Setting::IrqAffinity(irq) => self.irqs.get(irq).map(|state| Value::List(state.affinity.clone())),
            Setting::NapiThread(interface, id) => {
                let napi = self.netdev.napi(*id).filter(|_| self.nic.name == *interface)?;
                napi.thread.as_ref().map(|thread| Value::List(thread.cpus.clone()))
            }
            Setting::XpsCpus(interface, queue) => {
                let queue = self.nic.tx_queue(interface, *queue)?;
                queue.xps_cpus.clone().map(Value::Mask)
            }
            Setting::XpsRxqs(interface, queue) => {
                let queue = self.nic.tx_queue(interface, *queue)?;
                queue.xps_rxqs.clone().map(Value::Queues)
            }
            Setting::RpsCpus(interface, queue) => {
                let queue = self.nic.rx_queue(interface, *queue)?;
                queue.rps_cpus.clone().map(Value::Mask)
            }
            Setting::RpsFlowCount(interface, queue) => {
                let queue = self.nic.rx_queue(interface, *queue)?;
                queue.rps_flow_cnt.map(|count| Value::Numbers(vec![i128::from(count)]))
            }
            Setting::Ethtool(..)
            | Setting::IrqbalanceBan
            | Setting::Governor(_)
            | Setting::RpsDefaultMask
            | Setting::Sysctl(_) => None,
        }
    }
}

/// Why the host could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A kernel file that could not be read.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// A kernel file that was read and not understood.
    #[error("read {path}: not understood: {reason}")]
    Text {
        /// The kernel path.
        path: String,
        /// What was expected and what was there.
        reason: String,
    },
    /// No `/sys/devices/system/cpu/online`.
    #[error(
        "read /sys/devices/system/cpu/online: there is none below the root; mount sysfs, or name a tree that \
         \"tune capture\" wrote with --root"
    )]
    NoSysfs,
    /// The interface is not in `/sys/class/net`.
    #[error("interface {name} does not exist; there are: {found}")]
    NoInterface {
        /// The interface that was asked for.
        name: InterfaceName,
        /// The interfaces in `/sys/class/net`.
        found: String,
    },
    /// The interface has another name, and this is an alternative one.
    #[error("interface {name} is called {real} here, and {name} is an alternative name of it; write {real}")]
    AlternativeName {
        /// The name that was given.
        name: InterfaceName,
        /// The interface's own.
        real: InterfaceName,
    },
    /// `/proc/interrupts` is empty.
    #[error("/proc/interrupts is empty here, as where a container masks it; run tune on the host")]
    NoInterrupts,
    /// `--map` contradicts the host, or itself.
    #[error("{0}")]
    Map(ToldMapError),
    /// `--map` for several interfaces.
    #[error("--map is of one interface, and these are asked for: {0}; name one with --interface")]
    MapOfSeveral(String),
    /// `--map` for an interface without a device.
    #[error("interface {0} is virtual and has no interrupts; --map is for one with a device")]
    MapOfVirtual(InterfaceName),
    /// `/sys/class/net` and the network namespace of this process do not have the same interface under this
    /// name.
    #[error(
        "/sys/class/net/{0} is not interface {0} of this process: /sys was mounted in another network \
         namespace; enter a named one with \"ip netns exec NAME\", a container's with \"nsenter -t PID -n \
         -m\", or mount its own: \"unshare -m\", then \"mount -t sysfs sysfs /sys\""
    )]
    OtherNamespace(InterfaceName),
    /// The kernel did not say which interface this process has under a name.
    #[error("ask rtnetlink for interface {name}: {reason}")]
    Link {
        /// The interface.
        name: InterfaceName,
        /// The errno.
        reason: String,
    },
    /// The kernel did not list the interfaces of this process's network namespace.
    #[error("list the interfaces by rtnetlink: {0}")]
    Links(String),
    /// The kernel did not say where this process may run.
    #[error("sched_getaffinity of this process: {0}")]
    Allowed(String),
    /// `interface = "auto"` without a default route.
    #[error(
        "no default route in /proc/net/route or /proc/net/ipv6_route to choose the interface by; name it \
         with --interface"
    )]
    NoDefaultRoute,
}

impl HostError {
    fn text(path: impl Into<String>, reason: &impl ToString) -> Self {
        Self::Text { path: path.into(), reason: reason.to_string() }
    }
}

/// Reads a file and hands its text to a parser; the path is added to the parser's error.
fn read_as<T, E: ToString>(
    files: &KernelFiles,
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, HostError> {
    parse(&files.read(path)?).map_err(|reason| HostError::text(path, &reason))
}

/// As [`read_as`]; `None` if the file does not exist.
fn read_optional_as<T, E: ToString>(
    files: &KernelFiles,
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, HostError> {
    let Some(text) = files.read_optional(path)? else { return Ok(None) };
    parse(&text).map(Some).map_err(|reason| HostError::text(path, &reason))
}

/// A NUMA node as in `numa_node` and `/proc/irq/N/node`: -1 means that the kernel knows none.
fn parse_node(text: &str) -> Result<Option<u32>, String> {
    match text.trim() {
        "-1" => Ok(None),
        number => number.parse().map(Some).map_err(|_| format!("\"{number}\" is not a NUMA node")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_is_not_node_zero() {
        assert_eq!(parse_node("-1\n"), Ok(None));
        assert_eq!(parse_node("0"), Ok(Some(0)));
        assert!(parse_node("-2").is_err());
        assert!(parse_node("").is_err());
    }
}
