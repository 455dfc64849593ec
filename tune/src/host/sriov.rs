//! SR-IOV: the physical function of a virtual one, and the virtual functions of a physical one.

use std::collections::BTreeSet;

use serde::Serialize;

use super::nic::Device;
use super::{HostError, InterfaceName, PciAddress};
use crate::kernel_files::KernelFiles;

/// How an interface's device is related to others by SR-IOV; empty for most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sriov {
    /// For a virtual function: the physical one.
    pub physical: Option<Function>,
    /// For a physical function: the virtual ones in the order of their numbers.
    pub virtuals: Vec<Function>,
}

/// A PCI function and its interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its address.
    pub pci: PciAddress,
    /// Its interfaces in this network namespace; none if it is in another one or in a guest.
    pub interfaces: BTreeSet<InterfaceName>,
}

impl Sriov {
    /// Reads the links `physfn` and `virtfnN` of the device (`Documentation/PCI/pci-iov-howto.rst`).
    ///
    /// # Errors
    /// If a directory exists and cannot be read.
    pub fn read(files: &KernelFiles, device: Option<&Device>) -> Result<Self, HostError> {
        let Some(directory) = device.map(Device::interrupt_directory) else { return Ok(Self::default()) };
        let names = files.list_optional(directory)?.unwrap_or_default();
        let numbers = names.iter().filter_map(|name| name.strip_prefix("virtfn")?.parse::<u32>().ok());
        let numbers: BTreeSet<u32> = numbers.collect();
        let mut virtuals = Vec::new();
        for number in numbers {
            virtuals.extend(function(files, &format!("{directory}/virtfn{number}"))?);
        }
        Ok(Self { physical: function(files, &format!("{directory}/physfn"))?, virtuals })
    }
}

/// The function that a link leads to.
fn function(files: &KernelFiles, link: &str) -> Result<Option<Function>, HostError> {
    let Some(pci) = files.link_name(link).and_then(|name| name.parse().ok()) else { return Ok(None) };
    let names = files.list_optional(&format!("{link}/net"))?.unwrap_or_default();
    Ok(Some(Function { pci, interfaces: names.iter().filter_map(|name| name.parse().ok()).collect() }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::fixture::device_nic;

    #[test]
    fn both_sides_know_each_other_and_a_function_in_a_guest_has_no_interface() {
        let dir = tempfile::tempdir().unwrap();
        let bus = dir.path().join("sys/devices/pci0000:3a");
        let function = |pci: &str| bus.join(pci);
        fs::create_dir_all(function("0000:3b:00.0").join("net/eth0")).unwrap();
        fs::create_dir_all(function("0000:3b:02.0").join("net/eth0v0")).unwrap();
        for number in (0..11).rev() {
            let pci = format!("0000:3b:02.{number:x}");
            fs::create_dir_all(function(&pci)).unwrap();
            symlink(format!("../{pci}"), function("0000:3b:00.0").join(format!("virtfn{number}"))).unwrap();
        }
        symlink("../0000:3b:00.0", function("0000:3b:02.0").join("physfn")).unwrap();
        let files = KernelFiles::open(dir.path()).unwrap();
        let mut device = device_nic("ice", "", 1, 1).device.unwrap();
        device.path = "/sys/devices/pci0000:3a/0000:3b:00.0".into();
        let of_physical = Sriov::read(&files, Some(&device)).unwrap();
        assert_eq!((of_physical.virtuals.len(), &of_physical.physical), (11, &None));
        assert_eq!(of_physical.virtuals[0].interfaces, BTreeSet::from(["eth0v0".parse().unwrap()]));
        assert_eq!(of_physical.virtuals[10].pci.as_str(), "0000:3b:02.a");
        assert!(of_physical.virtuals[10].interfaces.is_empty());
        device.path = "/sys/devices/pci0000:3a/0000:3b:02.0".into();
        let of_virtual = Sriov::read(&files, Some(&device)).unwrap();
        assert_eq!(of_virtual.physical.unwrap().interfaces, BTreeSet::from(["eth0".parse().unwrap()]));
        assert_eq!(Sriov::read(&files, None).unwrap(), Sriov::default());
    }
}
