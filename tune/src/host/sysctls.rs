//! Sysctls: names as in sysctl(8), values as numbers or words.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{HostError, InterfaceName};
use crate::kernel_files::KernelFiles;
use crate::setting::Value;

/// Values by name.
pub type Sysctls = BTreeMap<SysctlName, Value>;

const ROOT: &str = "/proc/sys/";

/// The sysctls that hold a list of numbers and ranges.
const RANGE_LISTS: [&str; 2] = ["net.ipv4.ip_local_reserved_ports", "kernel.watchdog_cpumask"];

/// A sysctl's name with dots, `net.core.somaxconn`. As in sysctl(8) a dot within a component is written as a
/// slash: `net.ipv4.conf.eth0/100.rp_filter` is `/proc/sys/net/ipv4/conf/eth0.100/rp_filter`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlName(String);

impl SysctlName {
    /// The file below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{ROOT}{}", swap_separators(&self.0))
    }

    /// The name of a file below `/proc/sys`.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        swap_separators(path.strip_prefix(ROOT)?).parse().ok()
    }

    /// The interface in a name such as `net.ipv4.conf.eth0.rp_filter`, which changes when the interface is
    /// renamed.
    #[must_use]
    pub fn interface(&self) -> Option<InterfaceName> {
        let path = swap_separators(&self.0);
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["net", "ipv4" | "ipv6" | "mpls", "conf" | "neigh", name, _]
                if name != "all" && name != "default" =>
            {
                name.parse().ok()
            }
            _ => None,
        }
    }

    /// The same sysctl of another interface, where it is one of an interface.
    #[must_use]
    pub fn with_interface(&self, interface: &InterfaceName) -> Self {
        if self.interface().is_none() {
            return self.clone();
        }
        let path = swap_separators(&self.0);
        let mut parts: Vec<&str> = path.split('/').collect();
        parts[3] = interface.as_str();
        Self(swap_separators(&parts.join("/")))
    }

    /// The value that a text means.
    ///
    /// The kernel keeps some as bitmaps and prints them in its own way (`proc_do_large_bitmap()`): what is
    /// written as `8001,8000` reads back `8000-8001`. A text of these is brought into that form.
    #[must_use]
    pub fn parse_value(&self, text: &str) -> Value {
        if !RANGE_LISTS.contains(&self.as_str()) {
            return Value::from_sysctl(text);
        }
        Value::Words(
            range_list(text.trim()).unwrap_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" ")),
        )
    }

    /// The name with dots.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `8002,8000-8001` as `8000-8002`; `None` if it is no list of numbers and ranges.
fn range_list(text: &str) -> Option<String> {
    let mut ranges = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then(|| ranges.push((first, last)))?;
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    let show = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    Some(merged.iter().map(show).collect::<Vec<_>>().join(","))
}

fn swap_separators(text: &str) -> String {
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    text.chars().map(swap).collect()
}

impl fmt::Display for SysctlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no sysctl name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a sysctl name; write one such as net.core.somaxconn")]
pub struct SysctlNameError(String);

impl FromStr for SysctlName {
    type Err = SysctlNameError;

    /// At least two components, none of them empty, `.` or `..`, of printable characters without space.
    fn from_str(text: &str) -> Result<Self, SysctlNameError> {
        let path = swap_separators(text);
        let component_is_plain = |part: &str| {
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(|b| b.is_ascii_graphic())
        };
        if path.contains('/') && path.split('/').all(component_is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(SysctlNameError(text.escape_default().to_string()))
    }
}

/// Reads the sysctls of these names; one that this kernel or network namespace does not have is left out.
///
/// # Errors
/// If one exists and cannot be read.
pub(super) fn read(files: &KernelFiles, names: &[SysctlName]) -> Result<Sysctls, HostError> {
    let mut found = Sysctls::new();
    for name in names {
        if let Some(text) = files.read_optional(&name.path())? {
            found.insert(name.clone(), name.parse_value(&text));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_are_slashes() {
        let name: SysctlName = "net.ipv4.conf.eth0/100.rp_filter".parse().unwrap();
        assert_eq!(name.path(), "/proc/sys/net/ipv4/conf/eth0.100/rp_filter");
        assert_eq!(SysctlName::from_path(&name.path()), Some(name));
    }

    #[test]
    fn a_list_of_ranges_is_read_as_the_kernel_prints_it() {
        let ports: SysctlName = "net.ipv4.ip_local_reserved_ports".parse().unwrap();
        for (text, expected) in [
            ("8000,8001,8002", "8000-8002"),
            ("9000,8001-8003,8000-8001", "8000-8003,9000"),
            ("8000", "8000"),
            ("", ""),
            ("8000-,x", "8000-,x"),
            ("2-1", "2-1"),
            ("4294967295,4294967295", "4294967295"),
        ] {
            assert_eq!(ports.parse_value(text), Value::Words(expected.into()), "{text}");
        }
        let other: SysctlName = "net.ipv4.tcp_rmem".parse().unwrap();
        assert_eq!(other.parse_value("1 2 3"), Value::Numbers(vec![1, 2, 3]));
    }

    #[test]
    fn the_name_of_an_interface_is_found_and_exchanged() {
        let lan0: InterfaceName = "lan0".parse().unwrap();
        for (name, interface, renamed) in [
            ("net.ipv4.conf.eth0/100.rp_filter", Some("eth0.100"), "net.ipv4.conf.lan0.rp_filter"),
            ("net.ipv6.neigh.eth0.retrans_time_ms", Some("eth0"), "net.ipv6.neigh.lan0.retrans_time_ms"),
            ("net.ipv4.conf.all.rp_filter", None, "net.ipv4.conf.all.rp_filter"),
            ("net.core.somaxconn", None, "net.core.somaxconn"),
        ] {
            let name: SysctlName = name.parse().unwrap();
            assert_eq!(name.interface().as_ref().map(InterfaceName::as_str), interface);
            assert_eq!(name.with_interface(&lan0).as_str(), renamed);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "net", "..", "net.//.x", "net..core", ".net.core", "net.core.", "net.a b", "net.a\n"]
        {
            assert!(name.parse::<SysctlName>().is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_stays_below_proc_sys(text in "[a-z./ ]{0,30}") {
            if let Ok(name) = text.parse::<SysctlName>() {
                let path = name.path();
                prop_assert!(path.starts_with("/proc/sys/"));
                prop_assert!(!path.split('/').any(|part| part == ".." || part == "."));
                prop_assert_eq!(SysctlName::from_path(&path), Some(name));
            }
        }
    }
}
