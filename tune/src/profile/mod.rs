//! `Profile`: what is asked for, from TOML.
//!
//! Every key is checked: an unknown key, a wrong type or a value out of range is refused with the file, the line,
//! the key's path and what may stand there. `profiles/README.md` explains the keys. Pure.

mod ethtool;
mod section;

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use ethtool::{
    ChannelCount, ChannelsWish, CoalesceWish, EthtoolWishes, FeaturesWish, RingsWish, RssWish,
};
pub use section::ProfileError;
use section::{Section, Source, integer};

use crate::cpu_set::{CpuSet, CpuSetError};
pub use crate::host::InterfaceChoice;
use crate::host::SysctlName;
use crate::setting::Value;

/// The most entries of one RX queue's RFS table that a profile may ask for. The kernel allocates them at once.
const MAX_RPS_FLOW_CNT: u32 = 1 << 20;

/// Sysctls that hold a CPU mask. A write that the kernel refuses can leave such a file empty, and on a large host
/// reading it gives only the end of the mask (`dump_cpumask()` in `net/core/sysctl_net_core.c`): the old value could
/// neither be kept nor put back.
const CPU_MASKS: [&str; 2] = ["net.core.rps_default_mask", "net.core.flow_limit_cpu_bitmap"];

/// Sysctls that hold the two ends of a range, of which neither is an amount that could be raised.
const RANGES: [&str; 2] = ["net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range"];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The interface.
    pub interface: InterfaceChoice,
    /// The CPUs whose workers serve connections.
    pub cpus: CpuChoice,
    /// Queues, interrupts, XPS and RPS.
    pub queues: Queues,
    /// Channels, rings, coalescing, RSS and features.
    pub ethtool: EthtoolWishes,
    /// Sysctls in the order of the file.
    pub sysctls: Vec<SysctlWish>,
}

/// `cpus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuChoice {
    /// All that are online.
    Online,
    /// These; never empty.
    List(CpuSet),
}

impl FromStr for CpuChoice {
    type Err = CpuSetError;

    /// `online` or a list that names at least one CPU.
    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        if text == "online" {
            return Ok(Self::Online);
        }
        Ok(Self::List(CpuSet::parse_ordered(text)?.into_iter().collect()))
    }
}

/// `[queues]`. The defaults are those of an empty section.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queues {
    /// How queues are laid on CPUs.
    pub placement: Placement,
    /// What happens to the interrupts.
    pub irq: IrqPolicy,
    /// What happens to `xps_cpus`.
    pub xps: XpsPolicy,
    /// What happens to `rps_cpus`.
    pub rps: RpsPolicy,
    /// Entries of each RX queue's RFS table; `None` leaves them.
    pub rps_flow_cnt: Option<u32>,
}

/// `queues.placement`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placement {
    /// One queue per CPU, the NIC's NUMA node first, there one thread of each core first.
    #[default]
    OnePerCore,
}

/// `queues.irq`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IrqPolicy {
    /// The interrupts of a queue fire on the queue's CPU.
    #[default]
    QueueCpu,
    /// As they are.
    Keep,
}

/// `queues.xps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum XpsPolicy {
    /// A CPU transmits on the queue that is its own.
    #[default]
    QueueCpu,
    /// No XPS: the flow's hash chooses the queue.
    Off,
    /// As it is.
    Keep,
}

/// `queues.rps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RpsPolicy {
    /// Off where every CPU has a queue with an interrupt, else over the queue's group of CPUs.
    #[default]
    Auto,
    /// To the queue's CPU.
    QueueCpu,
    /// Off.
    Off,
    /// As it is.
    Keep,
}

/// One line of `[sysctl]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlWish {
    /// The sysctl.
    pub name: SysctlName,
    /// The value.
    pub value: Value,
    /// Set exactly; otherwise a number is raised and never lowered.
    pub exact: bool,
}

impl Profile {
    /// Parses a profile; `file` is named in errors.
    ///
    /// # Errors
    /// If the text is not TOML, a key is unknown, or a value cannot stand where it stands.
    pub fn parse(text: &str, file: &str) -> Result<Self, ProfileError> {
        let source = Source { text, file };
        let (document, errors) = DeTable::parse_recoverable(text);
        let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
        if let Some(error) = first {
            let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
            return Err(source.error(
                &error.span().unwrap_or(0..0),
                &format!("not TOML: {message}; every key is in profiles/README.md"),
            ));
        }
        let root = Section { source, path: String::new(), table: document.get_ref() };
        let mut known = vec!["interface", "cpus", "queues", "sysctl"];
        known.extend(ethtool::SECTIONS);
        root.refuse_unknown(&known)?;
        let queues = match root.section("queues")? {
            Some(section) => parse_queues(&section)?,
            None => Queues::default(),
        };
        let sysctls = match root.section("sysctl")? {
            Some(section) => parse_sysctls(&section)?,
            None => Vec::new(),
        };
        Ok(Self {
            interface: root.text("interface", parse)?.unwrap_or(InterfaceChoice::Auto),
            cpus: root.text("cpus", parse)?.unwrap_or(CpuChoice::Online),
            queues,
            ethtool: ethtool::parse(&root)?,
            sysctls,
        })
    }

    /// The names of the sysctls that the profile sets.
    #[must_use]
    pub fn sysctl_names(&self) -> Vec<SysctlName> {
        self.sysctls.iter().map(|wish| wish.name.clone()).collect()
    }
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn parse_queues(section: &Section) -> Result<Queues, ProfileError> {
    section.refuse_unknown(&["placement", "irq", "xps", "rps", "rps_flow_cnt"])?;
    let flows = section.integer("rps_flow_cnt", 0..=i128::from(MAX_RPS_FLOW_CNT))?;
    Ok(Queues {
        placement: section.choice("placement", &[("one-per-core", Placement::OnePerCore)])?,
        irq: section.choice("irq", &[("queue-cpu", IrqPolicy::QueueCpu), ("keep", IrqPolicy::Keep)])?,
        xps: section.choice(
            "xps",
            &[("queue-cpu", XpsPolicy::QueueCpu), ("off", XpsPolicy::Off), ("keep", XpsPolicy::Keep)],
        )?,
        rps: section.choice(
            "rps",
            &[
                ("auto", RpsPolicy::Auto),
                ("queue-cpu", RpsPolicy::QueueCpu),
                ("off", RpsPolicy::Off),
                ("keep", RpsPolicy::Keep),
            ],
        )?,
        rps_flow_cnt: flows.and_then(|count| u32::try_from(count).ok()),
    })
}

fn parse_sysctls(section: &Section) -> Result<Vec<SysctlWish>, ProfileError> {
    let mut entries: Vec<_> = section.table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries.into_iter().map(|(key, value)| parse_sysctl(section, key.get_ref(), &key.span(), value)).collect()
}

fn parse_sysctl(
    section: &Section,
    key: &str,
    span: &Range<usize>,
    value: &Spanned<DeValue>,
) -> Result<SysctlWish, ProfileError> {
    const FORMS: &str = "write a number, \"numbers with spaces\", or { exact = … }";
    if let DeValue::Table(table) = value.get_ref()
        && !table.contains_key("exact")
    {
        let hint = format!("{FORMS}; put a name with dots in quotes: \"net.core.somaxconn\" = 4096");
        return Err(section.error(key, span, &hint));
    }
    let name: SysctlName = key
        .parse()
        .map_err(|error: crate::host::SysctlNameError| section.error(key, span, &error.to_string()))?;
    if CPU_MASKS.contains(&name.as_str()) {
        const MASK: &str = "is a CPU mask, whose old value is lost when the kernel refuses a new one; \
                            remove it from the profile and set it by hand";
        return Err(section.error(key, span, MASK));
    }
    let (value, exact) = match value.get_ref() {
        DeValue::Table(table) => {
            let path = section.key_path(key);
            let inner = Section { source: section.source, path, table };
            inner.refuse_unknown(&["exact"])?;
            (inner.get("exact").unwrap_or(value), true)
        }
        _ => (value, false),
    };
    let error = |message: &str| section.error(key, &value.span(), message);
    let parsed = match value.get_ref() {
        DeValue::Integer(_) => {
            let number = integer(value).ok_or_else(|| error("is not a 64-bit number"))?;
            name.parse_value(&number.to_string())
        }
        DeValue::String(text) => name.parse_value(text),
        _ => return Err(error(FORMS)),
    };
    match &parsed {
        Value::Words(words) if words.is_empty() => Err(error("the value is empty")),
        Value::Words(words) if !exact => {
            Err(error(&format!("\"{words}\" cannot be raised to; write {{ exact = \"{words}\" }}")))
        }
        Value::Numbers(numbers) if !exact && numbers.contains(&-1) => Err(error(&format!(
            "-1 is \"unlimited\" or \"none\", which cannot be raised to; write {{ exact = {} }}",
            parsed.in_toml()
        ))),
        Value::Numbers(_) if !exact && RANGES.contains(&name.as_str()) => {
            Err(error(&format!("is a range, which cannot be raised to; write {{ exact = \"{parsed}\" }}")))
        }
        _ => Ok(SysctlWish { name, value: parsed, exact }),
    }
}

#[cfg(test)]
mod tests;
