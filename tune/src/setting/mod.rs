//! `Setting`: one thing that `tune` sets, a kernel file or what has none, `Value`: what it holds, `Change`:
//! before and after.

#[cfg(test)]
mod tests;
mod value;

use serde::{Deserialize, Serialize};

use crate::cpu_set::{Cpu, CpuSet, CpuSetError};
use crate::host::ethtool::{Knob, KnobError, rings_round_to};
use crate::host::governors;
use crate::host::{InterfaceName, Irq, NapiFile, NapiId, QueueIndex, SysctlName};
use crate::irqbalance::message;
pub use value::Value;

const BANNED_IRQS: &str = "irqbalance/banned_irqs";
const ETHTOOL: &str = "ethtool/";
const NAPI_THREAD: &str = "napi_thread/";
const RPS_DEFAULT_MASK: &str = "/proc/sys/net/core/rps_default_mask";

/// What `tune` sets: a kernel file, or what has none and is set by netlink and the like.
///
/// The order of the variants, and of the numbers in them, is the order of writing: ethtool's first, since a
/// driver may make its queues and interrupts anew for them, then interrupts, since a driver that is asked for
/// another interrupt layout may rewrite XPS, then XPS, RPS, RFS, and sysctls last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// `ethtool/IF/channels` and the like, no file: what ethtool sets, see [`Knob`].
    Ethtool(InterfaceName, Knob),
    /// `/sys/class/net/IF/threaded`, `gro_flush_timeout` or `napi_defer_hard_irqs`: how it polls.
    Napi(InterfaceName, NapiFile),
    /// `irqbalance/banned_irqs`, no file: the interrupts that irqbalance leaves alone. Before they are set,
    /// so that it does not move them in between.
    IrqbalanceBan,
    /// `/proc/irq/N/smp_affinity_list`: the CPUs on which an interrupt may fire.
    IrqAffinity(Irq),
    /// `napi_thread/IF/ID`, no file: the CPUs of the thread that polls this NAPI instance
    /// (`sched_setaffinity(2)`).
    NapiThread(InterfaceName, NapiId),
    /// `/sys/class/net/IF/queues/tx-Q/xps_cpus`: the CPUs that transmit on this TX queue.
    XpsCpus(InterfaceName, QueueIndex),
    /// `/sys/class/net/IF/queues/tx-Q/xps_rxqs`: the RX queues whose connections transmit on this TX queue.
    XpsRxqs(InterfaceName, QueueIndex),
    /// `/sys/class/net/IF/queues/rx-Q/rps_cpus`: the CPUs that packets of this RX queue are spread over.
    RpsCpus(InterfaceName, QueueIndex),
    /// `/sys/class/net/IF/queues/rx-Q/rps_flow_cnt`: entries of this RX queue's RFS table, a power of two.
    RpsFlowCount(InterfaceName, QueueIndex),
    /// `/sys/devices/system/cpu/cpuN/cpufreq/scaling_governor`: how the CPU's frequency is chosen.
    Governor(Cpu),
    /// `/proc/sys/net/core/rps_default_mask`: the `rps_cpus` of queues that are made from now on.
    RpsDefaultMask,
    /// `/proc/sys/…`: a sysctl.
    Sysctl(SysctlName),
}

impl Setting {
    /// The kernel path, without a root.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Ethtool(interface, knob) => format!("{ETHTOOL}{interface}/{}", knob.name()),
            Self::Napi(interface, file) => file.path(interface),
            Self::Governor(cpu) => governors::path(*cpu),
            Self::IrqbalanceBan => BANNED_IRQS.to_owned(),
            Self::IrqAffinity(irq) => format!("/proc/irq/{irq}/smp_affinity_list"),
            Self::NapiThread(interface, id) => format!("{NAPI_THREAD}{interface}/{id}"),
            Self::XpsCpus(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/tx-{queue}/xps_cpus")
            }
            Self::XpsRxqs(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/tx-{queue}/xps_rxqs")
            }
            Self::RpsCpus(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/rx-{queue}/rps_cpus")
            }
            Self::RpsFlowCount(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/rx-{queue}/rps_flow_cnt")
            }
            Self::RpsDefaultMask => RPS_DEFAULT_MASK.to_owned(),
            Self::Sysctl(name) => name.path(),
        }
    }

    /// The interface whose file this is.
    #[must_use]
    pub fn interface(&self) -> Option<InterfaceName> {
        match self {
            Self::Ethtool(interface, _)
            | Self::Napi(interface, _)
            | Self::NapiThread(interface, _)
            | Self::XpsCpus(interface, _)
            | Self::XpsRxqs(interface, _)
            | Self::RpsCpus(interface, _)
            | Self::RpsFlowCount(interface, _) => Some(interface.clone()),
            Self::Sysctl(name) => name.interface(),
            Self::IrqbalanceBan | Self::IrqAffinity(_) | Self::Governor(_) | Self::RpsDefaultMask => None,
        }
    }

    /// The same setting of another interface, where it is one of an interface.
    #[must_use]
    pub fn with_interface(&self, interface: &InterfaceName) -> Self {
        match self {
            Self::Ethtool(_, knob) => Self::Ethtool(interface.clone(), *knob),
            Self::NapiThread(_, id) => Self::NapiThread(interface.clone(), *id),
            Self::XpsCpus(_, queue) => Self::XpsCpus(interface.clone(), *queue),
            Self::XpsRxqs(_, queue) => Self::XpsRxqs(interface.clone(), *queue),
            Self::RpsCpus(_, queue) => Self::RpsCpus(interface.clone(), *queue),
            Self::RpsFlowCount(_, queue) => Self::RpsFlowCount(interface.clone(), *queue),
            Self::Sysctl(name) => Self::Sysctl(name.with_interface(interface)),
            Self::Napi(_, file) => Self::Napi(interface.clone(), *file),
            Self::IrqbalanceBan | Self::IrqAffinity(_) | Self::Governor(_) | Self::RpsDefaultMask => {
                self.clone()
            }
        }
    }

    /// True if every network namespace sees the same value: interrupts, and sysctls outside of `net`. (Of
    /// those below `net` a child namespace sees what it has of its own, and read-only what it shares.)
    #[must_use]
    pub fn is_host_wide(&self) -> bool {
        match self {
            Self::IrqbalanceBan | Self::IrqAffinity(_) | Self::Governor(_) => true,
            Self::Sysctl(name) => !name.as_str().starts_with("net."),
            Self::Ethtool(..)
            | Self::Napi(..)
            | Self::NapiThread(..)
            | Self::XpsCpus(..)
            | Self::XpsRxqs(..)
            | Self::RpsCpus(..)
            | Self::RpsFlowCount(..)
            | Self::RpsDefaultMask => false,
        }
    }

    /// The setting of a path that [`Setting::path`] gave; `None` for any other path.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let setting = if path == BANNED_IRQS {
            Self::IrqbalanceBan
        } else if let Some(rest) = path.strip_prefix(ETHTOOL) {
            let (interface, knob) = rest.split_once('/')?;
            Self::Ethtool(interface.parse().ok()?, Knob::from_name(knob)?)
        } else if let Some(rest) = path.strip_prefix("/proc/irq/") {
            Self::IrqAffinity(rest.strip_suffix("/smp_affinity_list")?.parse().ok()?)
        } else if let Some(rest) = path.strip_prefix(NAPI_THREAD) {
            let (interface, id) = rest.split_once('/')?;
            Self::NapiThread(interface.parse().ok()?, id.parse().ok()?)
        } else if let Some(rest) = path.strip_prefix("/sys/class/net/") {
            if let Some((interface, name)) = rest.split_once('/')
                && let Some(file) = NapiFile::ALL.into_iter().find(|file| file.name() == name)
            {
                return Some(Self::Napi(interface.parse().ok()?, file));
            }
            let (interface, rest) = rest.split_once("/queues/")?;
            let interface = interface.parse().ok()?;
            let (queue, file) = rest.split_once('/')?;
            let index = |prefix| queue.strip_prefix(prefix)?.parse().ok();
            match file {
                "xps_cpus" => Self::XpsCpus(interface, index("tx-")?),
                "xps_rxqs" => Self::XpsRxqs(interface, index("tx-")?),
                "rps_cpus" => Self::RpsCpus(interface, index("rx-")?),
                "rps_flow_cnt" => Self::RpsFlowCount(interface, index("rx-")?),
                _ => return None,
            }
        } else if let Some(cpu) = governors::parse_path(path) {
            Self::Governor(cpu)
        } else if path == RPS_DEFAULT_MASK {
            Self::RpsDefaultMask
        } else {
            Self::Sysctl(SysctlName::from_path(path)?)
        };
        (setting.path() == path).then_some(setting)
    }

    /// The value that a text read from this setting's file means.
    ///
    /// # Errors
    /// If the text is not of the setting's form.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let error = |source| ValueError::Cpus { path: self.path(), source };
        match self {
            Self::Ethtool(_, knob) => {
                knob.parse(text).map_err(|source| ValueError::Knob { path: self.path(), source })
            }
            Self::IrqbalanceBan => match message::parse_list(text) {
                Some(irqs) => Ok(Value::from_irqs(&irqs)),
                None => Err(ValueError::Irqs(text.to_owned())),
            },
            Self::IrqAffinity(_) | Self::NapiThread(..) => {
                CpuSet::parse_list(text).map(Value::List).map_err(error)
            }
            Self::XpsCpus(..) | Self::RpsCpus(..) | Self::RpsDefaultMask => {
                CpuSet::parse_mask(text).map(Value::Mask).map_err(error)
            }
            Self::XpsRxqs(..) => CpuSet::parse_mask(text).map(Value::Queues).map_err(error),
            Self::Napi(..) | Self::RpsFlowCount(..) => Ok(Value::from_sysctl(text)),
            Self::Governor(_) => Ok(Value::Words(text.trim().to_owned())),
            Self::Sysctl(name) => Ok(name.parse_value(text)),
        }
    }
}

/// True if `found`, which `setting` holds, is as good as `wanted`: the same, of irqbalance's list at least
/// that, since others add to it, too, and of rings what a driver rounds it to.
#[must_use]
pub fn satisfies(setting: &Setting, found: &Value, wanted: &Value) -> bool {
    match (setting, found, wanted) {
        (Setting::IrqbalanceBan, Value::Numbers(found), Value::Numbers(wanted)) => {
            wanted.iter().all(|irq| found.contains(irq))
        }
        (Setting::Ethtool(_, Knob::Rings), Value::Words(found), Value::Words(wanted)) => {
            rings_round_to(wanted, found)
        }
        _ => found == wanted,
    }
}

/// A text that does not have the form of its file.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// A list of interrupts that is none.
    #[error("{BANNED_IRQS} holds no interrupts: \"{}\"", .0.escape_debug())]
    Irqs(String),
    /// A CPU list or mask that is none.
    #[error("{path} holds no CPUs: {source}")]
    Cpus {
        /// The kernel path.
        path: String,
        /// Why.
        source: CpuSetError,
    },
    /// What is no value of what ethtool sets.
    #[error("{path}: {source}")]
    Knob {
        /// The setting.
        path: String,
        /// Why.
        source: KnobError,
    },
}

/// One difference between the host and what is desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub setting: Setting,
    /// What it holds.
    pub before: Value,
    /// What it shall hold.
    pub after: Value,
}

/// A [`Change`] in text form, as in `plan --json`: path without the root, values in the kernel's syntax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeText {
    /// The kernel path, without the root.
    pub path: String,
    /// What the file holds.
    pub before: String,
    /// What it shall hold.
    pub after: String,
}

impl From<&Change> for ChangeText {
    fn from(change: &Change) -> Self {
        Self {
            path: change.setting.path(),
            before: change.before.to_string(),
            after: change.after.to_string(),
        }
    }
}
