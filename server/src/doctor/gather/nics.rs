//! Finds the interfaces on which packets for the addresses arrive, and reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_bindings::rt_addr::{self, Ifaddrmsg};
use netlink_socket2::NetlinkSocket;
use tune::errno::describe;
use tune::host::{Host, InterfaceChoice, InterfaceName, SysctlName, ToldMap, nic};
use tune::kernel_files::KernelFiles;
use tune::netns;

use crate::doctor::facts::NicFacts;
use crate::doctor::judge::shipped;

/// The interfaces that have an address.
type Carriers = BTreeMap<IpAddr, BTreeSet<InterfaceName>>;

/// The interfaces for these addresses.
pub(super) fn gather(files: &KernelFiles, listen: &[SocketAddr]) -> NicFacts {
    let mut errors = Vec::new();
    let is_loopback = |address: &&SocketAddr| address.ip().to_canonical().is_loopback();
    let (loopback, others): (Vec<&SocketAddr>, Vec<&SocketAddr>) = listen.iter().partition(is_loopback);
    let mut names = BTreeSet::new();
    if !others.is_empty() {
        let carriers = carriers(files).unwrap_or_else(|error| {
            errors.push(error);
            Carriers::new()
        });
        for address in others {
            match carriers.get(&address.ip().to_canonical()) {
                Some(on) if !on.iter().all(|name| name.as_str() == "lo") => names.extend(on.iter().cloned()),
                // Any address; one of `lo` that is no loopback address (anycast, direct server return); one
                // that is not here at all, which the addresses tell.
                _ => names.extend(receiving(files, &mut errors)),
            }
        }
    }
    NicFacts {
        hosts: read(files, names, &mut errors),
        errors,
        loopback: loopback.into_iter().copied().collect(),
        irqbalance: process_named(files, "irqbalance"),
    }
}

/// Which interface has which address, by a dump of `RTM_GETADDR`.
fn carriers(files: &KernelFiles) -> Result<Carriers, String> {
    let links = netns::links(files).map_err(|error| error.to_string())?;
    let by_index: BTreeMap<u32, &InterfaceName> =
        links.iter().map(|(name, link)| (link.index, name)).collect();
    let addresses =
        addresses().map_err(|error| format!("list addresses by rtnetlink: {}", describe(&error)))?;
    let mut carriers = Carriers::new();
    for (address, index) in addresses {
        if let Some(name) = by_index.get(&index) {
            carriers.entry(address).or_default().insert((*name).clone());
        }
    }
    Ok(carriers)
}

fn addresses() -> io::Result<Vec<(IpAddr, u32)>> {
    let request = rt_addr::Request::new().op_getaddr_dump(&Ifaddrmsg::new());
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let mut found = Vec::new();
    while let Some(reply) = replies.recv() {
        let (header, attributes) = reply.map_err(io::Error::from)?;
        // On a point-to-point link the other is the peer's. IPv6 has the other alone.
        if let Ok(address) = attributes.get_local().or_else(|_| attributes.get_address()) {
            found.push((address, header.ifa_index));
        }
    }
    Ok(found)
}

/// The interfaces with a device that are up; where there is none, such as in a container, those with several
/// queues.
fn receiving(files: &KernelFiles, errors: &mut Vec<String>) -> Vec<InterfaceName> {
    let names = nic::interesting(files).unwrap_or_else(|error| {
        errors.push(error.to_string());
        Vec::new()
    });
    let is_up = |name: &&InterfaceName| {
        let state = files.read(&format!("/sys/class/net/{name}/operstate")).unwrap_or_default();
        !matches!(state.trim(), "down" | "lowerlayerdown" | "notpresent")
    };
    let has_device = |name: &&InterfaceName| files.exists(&format!("/sys/class/net/{name}/device"));
    let up: Vec<InterfaceName> = names.iter().filter(is_up).cloned().collect();
    let devices: Vec<InterfaceName> = up.iter().filter(has_device).cloned().collect();
    if devices.is_empty() { up } else { devices }
}

/// The snapshots of these interfaces; of one that stands on others, of those.
fn read(files: &KernelFiles, names: BTreeSet<InterfaceName>, errors: &mut Vec<String>) -> Vec<Host> {
    let mut lowest = BTreeSet::new();
    for name in names {
        match nic::Nic::read(files, &name) {
            Ok(nic) => match nic.lower.filter(|lower| !lower.is_empty()) {
                Some(lower) => lowest.extend(lower),
                None => lowest.extend([name]),
            },
            Err(error) => errors.push(error.to_string()),
        }
    }
    let mut hosts = Vec::new();
    for name in lowest {
        match Host::read(
            files,
            &InterfaceChoice::Named(name.clone()),
            &sysctls(files, &name),
            &ToldMap::default(),
        ) {
            Ok(host) => hosts.push(host),
            Err(error) => errors.push(error.to_string()),
        }
    }
    hosts
}

/// What the shipped profile sets, and whether RFS has a table.
fn sysctls(files: &KernelFiles, name: &InterfaceName) -> Vec<SysctlName> {
    let profile = shipped(files.exists(&format!("/sys/class/net/{name}/device"))).profile();
    let table = "net.core.rps_sock_flow_entries".parse().ok();
    profile.map(|profile| profile.sysctl_names()).unwrap_or_default().into_iter().chain(table).collect()
}

/// A process with this name in this PID namespace.
fn process_named(files: &KernelFiles, name: &str) -> Option<u32> {
    let pids = files.list("/proc").ok()?;
    let mut pids = pids.iter().filter_map(|pid| pid.parse::<u32>().ok());
    pids.find(|pid| files.read(&format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str) -> KernelFiles {
        KernelFiles::open(format!("{}/../tests/hosts/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn loopback_addresses_have_no_interface() {
        let listen = ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"].map(|text| text.parse().unwrap());
        let facts = gather(&KernelFiles::open("/").unwrap(), &listen);
        assert_eq!((facts.loopback.as_slice(), facts.hosts.len()), (&listen[..], 0));
    }

    #[test]
    fn any_address_is_that_of_every_interface_with_a_device() {
        let mut errors = Vec::new();
        let names = receiving(&tree("i40e-48cpu"), &mut errors);
        assert_eq!(names, ["eth0".parse::<InterfaceName>().unwrap()]);
        let hosts = read(&tree("i40e-48cpu"), names.into_iter().collect(), &mut errors);
        assert_eq!((hosts.len(), hosts[0].nics[0].nic.rx_queues.len(), errors.len()), (1, 48, 0));
    }

    #[test]
    fn the_address_of_lo_is_on_lo_and_an_interface_that_is_gone_is_an_error() {
        let carriers = carriers(&KernelFiles::open("/").unwrap()).unwrap();
        let localhost = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(carriers[&localhost].first().unwrap().as_str(), "lo");
        let mut errors = Vec::new();
        let gone = BTreeSet::from(["gone0".parse().unwrap()]);
        assert!(read(&tree("i40e-48cpu"), gone, &mut errors).is_empty());
        assert!(errors[0].contains("gone0"), "{errors:?}");
    }
}
