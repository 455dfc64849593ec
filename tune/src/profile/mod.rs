//! `Profile`: what is asked for, from TOML.
//!
//! Every key is checked: an unknown key, a wrong type or a value out of range is refused with the file, the line,
//! the key's path and what may stand there. `profiles/README.md` explains the keys. Pure.

mod section;

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
        root.refuse_unknown(&["interface", "cpus", "queues", "sysctl"])?;
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
    let flows = section.integer("rps_flow_cnt", 0..=i64::from(MAX_RPS_FLOW_CNT))?;
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
        Value::Numbers(_) if !exact && RANGES.contains(&name.as_str()) => {
            Err(error(&format!("is a range, which cannot be raised to; write {{ exact = \"{parsed}\" }}")))
        }
        _ => Ok(SysctlWish { name, value: parsed, exact }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        Profile::parse(text, "p.toml").unwrap_err().to_string()
    }

    #[test]
    fn every_key() {
        let text = r#"
            interface = "enp1s0"
            cpus = "0-47"
            [queues]
            placement = "one-per-core"
            irq = "keep"
            xps = "off"
            rps = "queue-cpu"
            rps_flow_cnt = 0x400
            [sysctl]
            "net.ipv4.tcp_rmem" = "4096 131072 16777216"
            "net.core.somaxconn" = 4096
            "net.ipv4.tcp_migrate_req" = { exact = 1 }
            "net.ipv4.tcp_congestion_control" = { exact = "bbr" }
        "#;
        let profile = Profile::parse(text, "p.toml").unwrap();
        assert_eq!(profile.interface, InterfaceChoice::Named("enp1s0".parse().unwrap()));
        assert_eq!(profile.cpus, CpuChoice::List("0-47".parse().unwrap()));
        let queues = profile.queues;
        assert_eq!(
            (queues.irq, queues.xps, queues.rps, queues.rps_flow_cnt),
            (IrqPolicy::Keep, XpsPolicy::Off, RpsPolicy::QueueCpu, Some(1024))
        );
        let wishes: Vec<(String, String, bool)> = profile
            .sysctls
            .iter()
            .map(|wish| (wish.name.to_string(), wish.value.to_string(), wish.exact))
            .collect();
        let wish = |name: &str, value: &str, exact| (name.to_owned(), value.to_owned(), exact);
        assert_eq!(
            wishes,
            [
                wish("net.ipv4.tcp_rmem", "4096 131072 16777216", false),
                wish("net.core.somaxconn", "4096", false),
                wish("net.ipv4.tcp_migrate_req", "1", true),
                wish("net.ipv4.tcp_congestion_control", "bbr", true),
            ]
        );
    }

    #[test]
    fn an_empty_profile_is_the_defaults() {
        let profile = Profile::parse("", "p.toml").unwrap();
        assert_eq!((profile.interface, profile.cpus), (InterfaceChoice::Auto, CpuChoice::Online));
        assert_eq!(profile.queues, Queues::default());
    }

    #[test]
    fn refusals_are_one_line_with_place_and_key() {
        for (text, message) in [
            (
                "[queues]\nirqs = \"keep\"",
                "p.toml:2:1: queues.irqs: unknown key; known here: placement, irq, ",
            ),
            ("cpu = \"0\"", "p.toml:1:1: cpu: unknown key; known here: interface, cpus, queues, sysctl"),
            ("\ncpus = \"5-2\"", "p.toml:2:8: cpus: range 5-2 in \"5-2\" runs backwards; write 2-5"),
            ("cpus = \"0-99999999\"", "p.toml:1:8: cpus: CPU 99999999 in"),
            ("cpus = \"\"", "p.toml:1:8: cpus: \"\" names no CPU"),
            ("cpus = 4", "p.toml:1:8: cpus: must be a string"),
            ("interface = \"../lo\"", "interface: \"../lo\" is not an interface name: it contains '/'"),
            ("queues = 1", "p.toml:1:10: queues: must be a table: write [queues]"),
            ("[queues]\nrps = \"on\"", "queues.rps: \"on\" is not one of: auto, queue-cpu, off, keep"),
            ("[queues]\nrps_flow_cnt = -1", "queues.rps_flow_cnt: must be an integer from 0 to 1048576"),
            ("[queues]\nrps_flow_cnt = 1.5", "queues.rps_flow_cnt: must be an integer"),
            ("[sysctl]\nnet.core.somaxconn = 1", "put a name with dots in quotes"),
            ("[sysctl]\n\"net/../x\" = 1", "sysctl.\"net/../x\": \"net/../x\" is not a sysctl name"),
            ("[sysctl]\n\"net.core.x\" = true", "sysctl.\"net.core.x\": write a number"),
            ("[sysctl]\n\"net.core.x\" = \"bbr\"", "write { exact = \"bbr\" }"),
            ("[sysctl]\n\"net.core.x\" = { exact = 1, min = 2 }", "unknown key; known here: exact"),
            ("[sysctl]\n\"net.core.x\" = 99999999999999999999", "is not a 64-bit number"),
            ("[sysctl]\n\"net.core.flow_limit_cpu_bitmap\" = { exact = \"3\" }", "is a CPU mask"),
            ("[sysctl]\n\"net.ipv4.ping_group_range\" = \"0 10\"", "write { exact = \"0 10\" }"),
            ("interface = \"a\"\ninterface = \"b\"", "p.toml:2:1: not TOML: duplicate key"),
            ("{\"json\": true}", "p.toml:1:1: not TOML: "),
            ("#!/bin/sh\necho \"hello\nworld\n", "p.toml:2:"),
        ] {
            let error = error(text);
            assert!(error.contains(message), "{text:?}: {error}");
            assert!(error.starts_with("p.toml:") && !error.contains('\n'), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\[(queues|sysctl)\\]\n)?([a-z\"._]{0,12} ?= ?[-\"0-9a-z{}= ]{0,12}\n){0,4}\\PC{0,8}") {
            if let Err(error) = Profile::parse(&text, "p.toml") {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
