//! Names: of interfaces and of PCI functions. Pure.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// An interface's name as the kernel allows it (`dev_valid_name()` in `net/core/dev.c`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names with commas between them, for a message.
#[must_use]
pub fn list<'a>(names: impl IntoIterator<Item = &'a InterfaceName>) -> String {
    names.into_iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(", ")
}

/// A text that cannot be an interface's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" is not an interface name: {reason}; write one of those in /sys/class/net")]
pub struct InterfaceNameError {
    name: String,
    reason: &'static str,
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > 15 {
            "it is longer than 15 bytes"
        } else if text == "." || text == ".." {
            "it names a directory"
        } else if text.contains(['/', ':']) {
            "it contains '/' or ':'"
        } else if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            "it contains white space or a control character"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(InterfaceNameError { name: text.escape_default().to_string(), reason })
    }
}

/// Which interfaces are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// The interface of the default route, written `auto`.
    Auto,
    /// This one.
    Named(InterfaceName),
    /// These, written with commas between them.
    Several(Vec<InterfaceName>),
}

impl FromStr for InterfaceChoice {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if text.contains(',') {
            return text
                .split(',')
                .map(|name| name.trim().parse())
                .collect::<Result<_, _>>()
                .map(Self::Several);
        }
        text.parse().map(Self::Named)
    }
}

/// A PCI function's address, `0000:00:03.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PciAddress(String);

impl PciAddress {
    /// The address, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PciAddress {
    type Err = String;

    /// `domain:bus:device.function` in hex; the domain has 4 digits or more (VMD and Hyper-V use more).
    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
        let is_address = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let sizes = domain.len() >= 4 && bus.len() == 2 && device.len() == 2 && function.len() == 1;
            (sizes && [domain, bus, device, function].into_iter().all(hex)).then_some(())
        };
        match is_address() {
            Some(()) => Ok(Self(text.to_ascii_lowercase())),
            None => Err(format!("\"{text}\" is not a PCI address")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in
            ["", ".", "..", "../eth0", "eth0/queues", "a name", "eth0\n", "sixteen-letters-", "eth0:1"]
        {
            assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
        }
        let error = "eth\u{7f}0".parse::<InterfaceName>().unwrap_err().to_string();
        assert!(error.contains("a control character;"), "{error}");
        for name in ["eth0", "enp1s0f0np0", "eth0.100", "br-lan", "v@x"] {
            assert_eq!(name.parse::<InterfaceName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn pci_addresses() {
        assert_eq!("0000:3B:00.1".parse::<PciAddress>().unwrap().as_str(), "0000:3b:00.1");
        assert!("10000:e1:00.0".parse::<PciAddress>().is_ok());
        for text in ["", "virtio2", "00:03.0", "0000:00:03", "0000:00:03.00", "000g:00:03.0"] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<InterfaceName>();
            let _ = text.parse::<PciAddress>();
        }

        #[test]
        fn a_name_stays_one_component(text in "[a-z./:]{0,20}") {
            if let Ok(name) = text.parse::<InterfaceName>() {
                prop_assert!(!name.as_str().contains('/'));
                prop_assert!(name.as_str() != "..");
            }
        }
    }
}
