//! `Profile`: what is asked for, from TOML.
//!
//! Every key is checked: an unknown key, a wrong type or a value out of range is refused with the file, the
//! line, the key's path and what may stand there. `profiles/README.md` explains the keys. Pure.

mod ethtool;
mod init;
mod irqbalance;
mod power;
mod queues;
mod section;

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use ethtool::{
    ChannelCount, ChannelsWish, CoalesceWish, EthtoolWishes, FeaturesWish, RingsWish, RssWish,
};
pub use init::{init, sysctl_names as init_sysctl_names};
pub use irqbalance::{IrqbalancePolicy, IrqbalanceWish};
pub use power::{CpuWish, NapiWish};
pub use queues::{IrqPolicy, NapiThreadPolicy, Placement, Queues, RpsDefault, RpsPolicy, XpsPolicy};
pub use section::ProfileError;
use section::{Section, Source, integer};

use crate::cpu_set::{CpuSet, CpuSetError};
pub use crate::host::InterfaceChoice;
use crate::host::{SysctlName, ToldMap};
use crate::setting::Value;

/// Sysctls that hold a CPU mask. A write that the kernel refuses can leave such a file empty, and on a large
/// host reading it gives only the end of the mask (`dump_cpumask()` in `net/core/sysctl_net_core.c`): the old
/// value could neither be kept nor put back.
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
    /// What becomes of irqbalance, which would move the interrupts again.
    pub irqbalance: IrqbalanceWish,
    /// Queues, interrupts, XPS and RPS.
    pub queues: Queues,
    /// Channels, rings, coalescing, RSS and features.
    pub ethtool: EthtoolWishes,
    /// The governor.
    pub cpu: CpuWish,
    /// How the interface polls.
    pub napi: NapiWish,
    /// Sysctls in the order of the file.
    pub sysctls: Vec<SysctlWish>,
    /// Refuse the profile where the kernel lacks one of them.
    pub require_sysctls: bool,
    /// What the user says of the queue map; never in the file, which is for more hosts than one.
    pub map: ToldMap,
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
        let mut known = vec!["interface", "cpus", "irqbalance", "queues", "cpu", "napi", "sysctl"];
        known.extend(ethtool::SECTIONS);
        root.refuse_unknown(&known)?;
        let queues = match root.section("queues")? {
            Some(section) => queues::parse(&section)?,
            None => Queues::default(),
        };
        let cpu = root.section("cpu")?.map(|section| power::parse_cpu(&section)).transpose()?;
        let napi = root.section("napi")?.map(|section| power::parse_napi(&section)).transpose()?;
        let (sysctls, require_sysctls) = match root.section("sysctl")? {
            Some(section) => (parse_sysctls(&section)?, section.flag(REQUIRE)?.unwrap_or(false)),
            None => (Vec::new(), false),
        };
        Ok(Self {
            interface: parse_interface(&root)?,
            cpus: root.text("cpus", parse)?.unwrap_or(CpuChoice::Online),
            irqbalance: irqbalance::parse(&root)?,
            queues,
            ethtool: ethtool::parse(&root)?,
            cpu: cpu.unwrap_or_default(),
            napi: napi.unwrap_or_default(),
            sysctls,
            require_sysctls,
            map: ToldMap::default(),
        })
    }

    /// The names of the sysctls that the profile sets.
    #[must_use]
    pub fn sysctl_names(&self) -> Vec<SysctlName> {
        self.sysctls.iter().map(|wish| wish.name.clone()).collect()
    }
}

/// A name, `auto`, or an array of names.
fn parse_interface(root: &Section) -> Result<InterfaceChoice, ProfileError> {
    const KEY: &str = "interface";
    let Some(value) = root.get(KEY) else { return Ok(InterfaceChoice::Auto) };
    let DeValue::Array(names) = value.get_ref() else {
        return Ok(root.text(KEY, parse)?.unwrap_or(InterfaceChoice::Auto));
    };
    if names.is_empty() {
        return Err(root.error(KEY, &value.span(), "names no interface; write \"auto\" or a name"));
    }
    let name = |value: &Spanned<DeValue>| {
        let text = value.get_ref().as_str();
        let text = text.ok_or_else(|| root.error(KEY, &value.span(), "must be a string in quotes"))?;
        if text == "auto" {
            return Err(root.error(KEY, &value.span(), "\"auto\" stands alone, not in a list"));
        }
        parse(text).map_err(|message| root.error(KEY, &value.span(), &message))
    };
    names.iter().map(name).collect::<Result<_, _>>().map(InterfaceChoice::Several)
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The one key of `[sysctl]` that is no sysctl, whose names have a dot.
const REQUIRE: &str = "require";

fn parse_sysctls(section: &Section) -> Result<Vec<SysctlWish>, ProfileError> {
    let mut entries: Vec<_> = section.table.iter().filter(|(key, _)| key.get_ref() != REQUIRE).collect();
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
        const MASK: &str = "is a CPU mask, whose old value is lost when the kernel refuses a new one; remove \
                            it from the profile and write queues.rps_default for rps_default_mask, or set it \
                            by hand";
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
