//! `Host`: what the machine looks like, as plain data read once.
//!
//! Every part has a parser that takes text and a reader that opens files through [`KernelFiles`] and adds the
//! path to the error.

mod default_route;
mod driver_names;
pub mod ethtool;
#[cfg(test)]
pub(crate) mod fixture;
mod interrupts;
mod irq;
pub mod irq_owner;
pub mod names;
pub mod nic;
mod queue_irqs;
mod queue_map;
mod sysctls;
mod topology;
#[cfg(test)]
mod vector_sets;

use std::collections::BTreeMap;

pub use ethtool::Ethtool;
pub use interrupts::{InterruptRow, Interrupts};
pub use irq::{Irq, IrqState};
pub use names::{InterfaceChoice, InterfaceName, InterfaceNameError, PciAddress};
pub use nic::{Nic, QueueIndex, RxQueue, TxQueue};
pub use queue_irqs::{HowKnown, QueueIrq, QueueIrqs, Serves};
pub use sysctls::{SysctlName, SysctlNameError, Sysctls};
pub use topology::{CpuPlace, Topology};

use crate::kernel_files::{KernelFileError, KernelFiles};
use crate::setting::{Setting, Value};

/// A snapshot of one interface, its interrupts, the CPUs, and the sysctls that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// CPUs, cores, caches and NUMA nodes.
    pub topology: Topology,
    /// The interface and its queues.
    pub nic: Nic,
    /// Its channels, rings, RSS, coalescing and features.
    pub ethtool: Ethtool,
    /// Which interrupt serves which queue, and how that is known.
    pub queue_irqs: QueueIrqs,
    /// Affinity of the interrupts in `queue_irqs`.
    pub irqs: BTreeMap<Irq, IrqState>,
    /// The sysctls that were asked for and exist.
    pub sysctls: Sysctls,
}

impl Host {
    /// Reads the snapshot. `sysctls` are the names that the profile sets; one that does not exist is left out.
    ///
    /// # Errors
    /// If the interface or a default route does not exist, or a file that every supported kernel has cannot be read
    /// or understood.
    pub fn read(
        files: &KernelFiles,
        interface: &InterfaceChoice,
        sysctls: &[SysctlName],
    ) -> Result<Self, HostError> {
        let topology = Topology::read(files)?;
        let nic = match interface {
            InterfaceChoice::Named(name) => Nic::read(files, name)?,
            InterfaceChoice::Auto => Nic::read(files, &default_route::read(files)?)?,
        };
        let ethtool = Ethtool::read(files, &nic.name)?;
        let queue_irqs = QueueIrqs::read(files, &nic)?;
        let mut irqs = BTreeMap::new();
        for row in &queue_irqs.rows {
            irqs.insert(row.irq, IrqState::read(files, row.irq)?);
        }
        let sysctls = sysctls::read(files, sysctls)?;
        Ok(Self { topology, nic, ethtool, queue_irqs, irqs, sysctls })
    }

    /// Leaves the first RX and TX queues, and the interrupts of those alone, or adds queues of which nothing is known.
    pub(crate) fn resize(&mut self, rx: u32, tx: u32) {
        let Nic { rx_queues, tx_queues, .. } = &mut self.nic;
        rx_queues.retain(|queue| queue.index.0 < rx);
        tx_queues.retain(|queue| queue.index.0 < tx);
        let (rx_new, tx_new) = (
            next_index(rx_queues.last().map(|queue| queue.index)),
            next_index(tx_queues.last().map(|queue| queue.index)),
        );
        rx_queues.extend((rx_new..rx).map(|index| RxQueue {
            index: QueueIndex(index),
            rps_cpus: None,
            rps_flow_cnt: None,
        }));
        tx_queues.extend((tx_new..tx).map(|index| TxQueue { index: QueueIndex(index), xps_cpus: None }));
        self.queue_irqs.rows.retain(|row| match row.serves {
            Serves::Both(queue) => queue.0 < rx.max(tx),
            Serves::Rx(queue) => queue.0 < rx,
            Serves::Tx(queue) => queue.0 < tx,
            _ => true,
        });
    }

    /// What a setting holds in this snapshot; `None` if the snapshot has no such file.
    #[must_use]
    pub fn value(&self, setting: &Setting) -> Option<Value> {
        match setting {
            Setting::Ethtool(interface, knob) if *interface == self.nic.name => self.ethtool.value(*knob),
            Setting::Ethtool(..) => None,
            Setting::IrqAffinity(irq) => self.irqs.get(irq).map(|state| Value::List(state.affinity.clone())),
            Setting::XpsCpus(interface, queue) => {
                let queue = self.nic.tx_queue(interface, *queue)?;
                queue.xps_cpus.clone().map(Value::Mask)
            }
            Setting::RpsCpus(interface, queue) => {
                let queue = self.nic.rx_queue(interface, *queue)?;
                queue.rps_cpus.clone().map(Value::Mask)
            }
            Setting::RpsFlowCount(interface, queue) => {
                let queue = self.nic.rx_queue(interface, *queue)?;
                queue.rps_flow_cnt.map(|count| Value::Numbers(vec![i128::from(count)]))
            }
            Setting::Sysctl(name) => self.sysctls.get(name).cloned(),
        }
    }
}

fn next_index(last: Option<QueueIndex>) -> u32 {
    last.map_or(0, |last| last.0 + 1)
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
         tests/hosts/capture wrote with --root"
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
    /// `/sys/class/net` and the network namespace of this process do not have the same interface under this name.
    #[error(
        "/sys/class/net/{0} is not interface {0} of this process: /sys was mounted in another network namespace; \
         enter a named one with \"ip netns exec NAME\", a container's with \"nsenter -t PID -n -m\", or mount its own: \
         \"unshare -m\", then \"mount -t sysfs sysfs /sys\""
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
    /// `interface = "auto"` without a default route.
    #[error(
        "no default route in /proc/net/route or /proc/net/ipv6_route to choose the interface by; name it with --interface"
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
