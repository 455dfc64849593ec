//! `Setting`: one thing that `tune` sets, a kernel file or what is set by netlink, `Value`: what it holds, `Change`: before and after.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpu_set::{CpuSet, CpuSetError};
use crate::host::ethtool::{Knob, KnobError};
use crate::host::{InterfaceName, Irq, QueueIndex, SysctlName};

/// What `tune` sets: a kernel file, or what has none and is set by netlink.
///
/// The order of the variants, and of the numbers in them, is the order of writing: ethtool's first, since a driver may
/// make its queues and interrupts anew for them, then interrupts, since a driver that is asked for another interrupt
/// layout may rewrite XPS, then XPS, RPS, RFS, and sysctls last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// `ethtool/IF/channels` and the like: what ethtool netlink sets, see [`Knob`].
    Ethtool(InterfaceName, Knob),
    /// `/proc/irq/N/smp_affinity_list`: the CPUs on which an interrupt may fire.
    IrqAffinity(Irq),
    /// `/sys/class/net/IF/queues/tx-Q/xps_cpus`: the CPUs that transmit on this TX queue.
    XpsCpus(InterfaceName, QueueIndex),
    /// `/sys/class/net/IF/queues/rx-Q/rps_cpus`: the CPUs that packets of this RX queue are spread over.
    RpsCpus(InterfaceName, QueueIndex),
    /// `/sys/class/net/IF/queues/rx-Q/rps_flow_cnt`: entries of this RX queue's RFS table, a power of two.
    RpsFlowCount(InterfaceName, QueueIndex),
    /// `/proc/sys/…`: a sysctl.
    Sysctl(SysctlName),
}

impl Setting {
    /// The kernel path, without a root; a name without a slash in front where it is no file.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Ethtool(interface, knob) => format!("ethtool/{interface}/{}", knob.name()),
            Self::IrqAffinity(irq) => format!("/proc/irq/{irq}/smp_affinity_list"),
            Self::XpsCpus(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/tx-{queue}/xps_cpus")
            }
            Self::RpsCpus(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/rx-{queue}/rps_cpus")
            }
            Self::RpsFlowCount(interface, queue) => {
                format!("/sys/class/net/{interface}/queues/rx-{queue}/rps_flow_cnt")
            }
            Self::Sysctl(name) => name.path(),
        }
    }

    /// The interface whose file this is.
    #[must_use]
    pub fn interface(&self) -> Option<InterfaceName> {
        match self {
            Self::Ethtool(interface, _)
            | Self::XpsCpus(interface, _)
            | Self::RpsCpus(interface, _)
            | Self::RpsFlowCount(interface, _) => Some(interface.clone()),
            Self::Sysctl(name) => name.interface(),
            Self::IrqAffinity(_) => None,
        }
    }

    /// The same setting of another interface, where it is one of an interface.
    #[must_use]
    pub fn with_interface(&self, interface: &InterfaceName) -> Self {
        match self {
            Self::Ethtool(_, knob) => Self::Ethtool(interface.clone(), *knob),
            Self::XpsCpus(_, queue) => Self::XpsCpus(interface.clone(), *queue),
            Self::RpsCpus(_, queue) => Self::RpsCpus(interface.clone(), *queue),
            Self::RpsFlowCount(_, queue) => Self::RpsFlowCount(interface.clone(), *queue),
            Self::Sysctl(name) => Self::Sysctl(name.with_interface(interface)),
            Self::IrqAffinity(irq) => Self::IrqAffinity(*irq),
        }
    }

    /// True if every network namespace sees the same value: interrupts, and sysctls outside of `net`. (Of those below
    /// `net` a child namespace sees what it has of its own, and read-only what it shares.)
    #[must_use]
    pub fn is_host_wide(&self) -> bool {
        match self {
            Self::IrqAffinity(_) => true,
            Self::Sysctl(name) => !name.as_str().starts_with("net."),
            Self::Ethtool(..) | Self::XpsCpus(..) | Self::RpsCpus(..) | Self::RpsFlowCount(..) => false,
        }
    }

    /// The setting of a path that [`Setting::path`] gave; `None` for any other path.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let setting = if let Some(rest) = path.strip_prefix("ethtool/") {
            let (interface, knob) = rest.split_once('/')?;
            Self::Ethtool(interface.parse().ok()?, Knob::from_name(knob)?)
        } else if let Some(rest) = path.strip_prefix("/proc/irq/") {
            Self::IrqAffinity(rest.strip_suffix("/smp_affinity_list")?.parse().ok()?)
        } else if let Some(rest) = path.strip_prefix("/sys/class/net/") {
            let (interface, rest) = rest.split_once("/queues/")?;
            let interface = interface.parse().ok()?;
            let (queue, file) = rest.split_once('/')?;
            let index = |prefix| queue.strip_prefix(prefix)?.parse().ok();
            match file {
                "xps_cpus" => Self::XpsCpus(interface, index("tx-")?),
                "rps_cpus" => Self::RpsCpus(interface, index("rx-")?),
                "rps_flow_cnt" => Self::RpsFlowCount(interface, index("rx-")?),
                _ => return None,
            }
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
            Self::IrqAffinity(_) => CpuSet::parse_list(text).map(Value::List).map_err(error),
            Self::XpsCpus(..) | Self::RpsCpus(..) => CpuSet::parse_mask(text).map(Value::Mask).map_err(error),
            Self::RpsFlowCount(..) => Ok(Value::from_sysctl(text)),
            Self::Sysctl(name) => Ok(name.parse_value(text)),
        }
    }
}

/// A text that does not have the form of its file.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
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

/// What a setting holds. Values are compared as what they mean: `Display` is the kernel's own syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// CPUs in a file that takes a list.
    List(CpuSet),
    /// CPUs in a file that takes a hexadecimal mask.
    Mask(CpuSet),
    /// One or several integers, signed or unsigned 64-bit ones (`kernel.shmmax`).
    Numbers(Vec<i128>),
    /// Anything else, as words with single spaces.
    Words(String),
}

impl Value {
    /// Integers if every word is one, else words. White space between words does not count: the kernel prints
    /// tabs between the three numbers of `tcp_rmem` and takes spaces.
    #[must_use]
    pub fn from_sysctl(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.iter().map(|word| word.parse()).collect() {
            Ok(numbers) if !words.is_empty() => Self::Numbers(numbers),
            _ => Self::Words(words.join(" ")),
        }
    }

    /// As it is written in a profile: a number alone is one, the rest a string.
    #[must_use]
    pub fn in_toml(&self) -> String {
        match self {
            Self::Numbers(numbers) if numbers.len() == 1 => self.to_string(),
            _ => format!("\"{self}\""),
        }
    }

    /// The CPUs of a list or a mask.
    #[must_use]
    pub fn cpus(&self) -> Option<&CpuSet> {
        match self {
            Self::List(cpus) | Self::Mask(cpus) => Some(cpus),
            Self::Numbers(_) | Self::Words(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(cpus) => cpus.fmt(f),
            Self::Mask(cpus) => f.write_str(&cpus.to_mask()),
            Self::Numbers(numbers) => {
                let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" "))
            }
            Self::Words(words) => f.write_str(words),
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::ethtool::CoalesceField;

    fn setting() -> impl Strategy<Value = Setting> {
        let interface = || "[a-z][a-z0-9.]{0,10}".prop_map(|name: String| name.parse().unwrap());
        let queue = || (0u32..5000).prop_map(QueueIndex);
        let knob = prop::sample::select(vec![
            Knob::Channels,
            Knob::Rings,
            Knob::Rss,
            Knob::Coalesce(CoalesceField::AdaptiveRx),
            Knob::Coalesce(CoalesceField::RxUsecs),
            Knob::Ntuple,
        ]);
        prop_oneof![
            (interface(), knob).prop_map(|(i, knob)| Setting::Ethtool(i, knob)),
            (0u32..100_000).prop_map(|irq| Setting::IrqAffinity(Irq(irq))),
            (interface(), queue()).prop_map(|(i, q)| Setting::XpsCpus(i, q)),
            (interface(), queue()).prop_map(|(i, q)| Setting::RpsCpus(i, q)),
            (interface(), queue()).prop_map(|(i, q)| Setting::RpsFlowCount(i, q)),
            "(net|kernel)\\.[a-z_]{1,12}(\\.[a-z_]{1,8})?".prop_map(|n| Setting::Sysctl(n.parse().unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn a_path_names_its_setting(setting in setting()) {
            prop_assert_eq!(Setting::from_path(&setting.path()), Some(setting));
        }

        #[test]
        fn a_value_is_read_back_from_its_own_text(
            setting in setting(),
            cpus in prop::collection::btree_set(0..2000u32, 0..50),
            numbers in prop::collection::vec(i128::from(i64::MIN)..=i128::from(u64::MAX), 1..4),
        ) {
            let cpus: CpuSet = cpus.into_iter().collect();
            let value = match &setting {
                Setting::Ethtool(_, Knob::Channels | Knob::Rings) => Value::Words("rx 2 tx 3".into()),
                Setting::Ethtool(_, Knob::Rss) => Value::Words("table 3*2 1*4".into()),
                Setting::Ethtool(_, Knob::Coalesce(CoalesceField::RxUsecs)) => Value::Numbers(vec![8]),
                Setting::Ethtool(..) => Value::Words("on".into()),
                Setting::IrqAffinity(_) => Value::List(cpus),
                Setting::XpsCpus(..) | Setting::RpsCpus(..) => Value::Mask(cpus),
                Setting::RpsFlowCount(..) | Setting::Sysctl(_) => Value::Numbers(numbers),
            };
            prop_assert_eq!(setting.parse(&value.to_string()).unwrap(), value);
        }

        #[test]
        fn no_path_makes_from_path_panic(path in "(ethtool/|/proc/irq/|/sys/class/net/|/proc/sys/)?[a-z0-9/._-]{0,40}") {
            let _ = Setting::from_path(&path);
        }
    }

    #[test]
    fn other_files_are_no_settings() {
        for path in [
            "/etc/passwd",
            "/proc/irq/../sys/kernel/panic/smp_affinity_list",
            "/proc/irq/007/smp_affinity_list",
            "/sys/class/net/../../x/queues/rx-0/rps_cpus",
            "/sys/class/net/eth0/queues/rx-0/../rps_cpus",
            "/proc/sys/../irq/1",
            "/proc/sys/net//core",
            "ethtool/eth0/",
            "ethtool/../channels",
            "ethtool/a/b/channels",
            "ethtool/eth0/coalesce",
            "/ethtool/eth0/channels",
            "/proc/sys/",
        ] {
            assert_eq!(Setting::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn padding_and_white_space_are_no_difference() {
        let rps = Setting::RpsCpus("eth0".parse().unwrap(), QueueIndex(0));
        assert_eq!(rps.parse("0000,00000003").unwrap(), rps.parse("3").unwrap());
        let rmem = Setting::Sysctl("net.ipv4.tcp_rmem".parse().unwrap());
        assert_eq!(rmem.parse("4096\t131072\t6291456").unwrap().to_string(), "4096 131072 6291456");
        assert_eq!(rmem.parse("cubic").unwrap(), Value::Words("cubic".into()));
    }

    #[test]
    fn what_is_not_of_a_network_namespace_is_of_the_whole_host() {
        for (path, host_wide) in [
            ("/proc/irq/40/smp_affinity_list", true),
            ("/proc/sys/kernel/numa_balancing", true),
            ("/proc/sys/net/core/somaxconn", false),
            ("/sys/class/net/eth0/queues/rx-0/rps_cpus", false),
            ("ethtool/eth0/channels", false),
        ] {
            assert_eq!(Setting::from_path(path).unwrap().is_host_wide(), host_wide, "{path}");
        }
    }

    #[test]
    fn ethtool_and_interrupts_are_written_first_and_sysctls_last() {
        let eth0: InterfaceName = "eth0".parse().unwrap();
        let mut settings = [
            Setting::Sysctl("net.core.somaxconn".parse().unwrap()),
            Setting::RpsCpus(eth0.clone(), QueueIndex(1)),
            Setting::XpsCpus(eth0.clone(), QueueIndex(10)),
            Setting::XpsCpus(eth0.clone(), QueueIndex(2)),
            Setting::RpsFlowCount(eth0.clone(), QueueIndex(0)),
            Setting::IrqAffinity(Irq(40)),
            Setting::Ethtool(eth0.clone(), Knob::Ntuple),
            Setting::Ethtool(eth0.clone(), Knob::Coalesce(CoalesceField::RxUsecs)),
            Setting::Ethtool(eth0.clone(), Knob::Coalesce(CoalesceField::AdaptiveRx)),
            Setting::Ethtool(eth0.clone(), Knob::Rss),
            Setting::Ethtool(eth0.clone(), Knob::Rings),
            Setting::Ethtool(eth0, Knob::Channels),
        ];
        settings.sort();
        let paths: Vec<String> = settings.iter().map(Setting::path).collect();
        assert_eq!(
            paths,
            [
                "ethtool/eth0/channels",
                "ethtool/eth0/rings",
                "ethtool/eth0/rss",
                "ethtool/eth0/coalesce/adaptive_rx",
                "ethtool/eth0/coalesce/rx_usecs",
                "ethtool/eth0/ntuple",
                "/proc/irq/40/smp_affinity_list",
                "/sys/class/net/eth0/queues/tx-2/xps_cpus",
                "/sys/class/net/eth0/queues/tx-10/xps_cpus",
                "/sys/class/net/eth0/queues/rx-1/rps_cpus",
                "/sys/class/net/eth0/queues/rx-0/rps_flow_cnt",
                "/proc/sys/net/core/somaxconn",
            ]
        );
    }
}
