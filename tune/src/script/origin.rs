//! Where a script is made, and by what it knows the place again.

use std::collections::BTreeMap;

use super::quoted;
use crate::host::{Host, HostError, InterfaceName, Nic};
use crate::kernel_files::KernelFiles;
use crate::netns::{self, Link};

/// The address of what has none.
const NO_ADDRESS: &str = "00:00:00:00:00:00";

/// The command that makes a script, and the interfaces as they are then.
#[derive(Debug)]
pub struct Origin {
    /// The command, for the reader.
    pub command: String,
    /// What goes before `sh FILE` to run it there, with a space at its end; empty where it was made where it
    /// runs.
    pub inside: String,
    /// By what each interface is known: a file of its directory in `/sys` and what it holds.
    pub(super) marks: BTreeMap<InterfaceName, Mark>,
}

/// By what an interface is known again. What is there after a boot, too, comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// The directory of its PCI function, else of its device.
    Device(String),
    /// The hardware address of one without a device.
    Address(String),
    /// The index of one without an address, or whose address was not captured.
    Index(u32),
    /// A tree does not say.
    Unknown,
}

impl Origin {
    /// Of a command in this network namespace, whose name is that of a file in `/run/netns` if it was asked
    /// for by it.
    ///
    /// # Errors
    /// If the interfaces cannot be listed.
    pub fn read(
        files: &KernelFiles,
        host: &Host,
        command: String,
        namespace: Option<&str>,
    ) -> Result<Self, HostError> {
        let links = netns::links(files)?;
        let nics = host.nics.iter().map(|on| &on.nic);
        let marks = nics.map(|nic| (nic.name.clone(), Mark::of(nic, links.get(&nic.name)))).collect();
        let inside = namespace.map(|name| format!("ip netns exec {} ", quoted(name))).unwrap_or_default();
        Ok(Self { command, inside, marks })
    }
}

impl Mark {
    fn of(nic: &Nic, link: Option<&Link>) -> Self {
        match (&nic.device, link) {
            (Some(device), _) => Self::Device(device.interrupt_directory().to_owned()),
            (None, Some(link)) if !["", NO_ADDRESS].contains(&link.address.as_str()) => {
                Self::Address(link.address.clone())
            }
            (None, Some(link)) => Self::Index(link.index),
            (None, None) => Self::Unknown,
        }
    }

    /// The arguments of `made_for` in the script.
    pub(super) fn arguments(&self) -> String {
        match self {
            Self::Device(directory) => format!(" device {}", quoted(directory)),
            Self::Address(address) => format!(" address {}", quoted(address)),
            Self::Index(index) => format!(" ifindex {index}"),
            Self::Unknown => String::new(),
        }
    }
}
