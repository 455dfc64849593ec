//! Sysctls: names as in sysctl(8), values as numbers or words.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::HostError;
use crate::kernel_files::KernelFiles;
use crate::setting::Value;

/// Values by name.
pub type Sysctls = BTreeMap<SysctlName, Value>;

const ROOT: &str = "/proc/sys/";

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

    /// The name with dots.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
            found.insert(name.clone(), Value::from_sysctl(&text));
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
