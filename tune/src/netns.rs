//! The identity of the caller's network namespace, and whether `/sys` shows the same one.
//!
//! `/proc/sys/net` and `/proc/net` follow the process. A sysfs mount shows for ever the network namespace of
//! whoever mounted it: after setns(2) or `nsenter --net` without a new mount, `/sys/class/net/eth0` is an
//! interface of another namespace.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use netlink_bindings::rt_link::{self, Ifinfomsg};
use netlink_socket2::NetlinkSocket;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use serde::{Deserialize, Serialize};

use crate::errno::describe;
use crate::host::{HostError, InterfaceName};
use crate::kernel_files::KernelFiles;

/// A number that no other network namespace has had or will have until the next boot. (The inode of
/// `/proc/self/ns/net` is given to another namespace when this one is gone.)
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).expect("8 bytes");
    // SAFETY: the option writes a u64 to `cookie` and its size to `length`; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// True in the first network namespace, and in a captured tree. Only the first one has all of `net.core`:
/// what the kernel has once and not once for each namespace (`sysctl_core_init()` in
/// `net/core/sysctl_net_core.c`). Its cookie is no sign: it is 1 on older kernels, and on newer ones
/// namespaces of other kinds are counted, too.
#[must_use]
pub fn is_first(files: &KernelFiles) -> bool {
    !files.is_live() || files.exists("/proc/sys/net/core/netdev_max_backlog")
}

/// Checks that `/sys` has, under this name, the interface that this process's network namespace has under it,
/// or that neither has one. A captured tree has no namespace to compare with.
///
/// What is compared is index and hardware address: two interfaces that agree in both, as every `lo` does,
/// cannot be told apart.
///
/// # Errors
/// [`HostError::OtherNamespace`] if they differ or only one of them has it.
pub fn check_sysfs(files: &KernelFiles, name: &InterfaceName) -> Result<(), HostError> {
    if !files.is_live() {
        return Ok(());
    }
    // The kernel also finds an interface by its alternative names, which have no directory in sysfs.
    let own = ask(name)?.filter(|(own_name, _)| own_name == name).map(|(_, link)| link);
    if sysfs_link(files, name)? == own { Ok(()) } else { Err(HostError::OtherNamespace(name.clone())) }
}

/// The name of the interface that has `name` as an alternative one (`ip link property add dev … altname …`)
/// in this process's network namespace.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn real_name(files: &KernelFiles, name: &InterfaceName) -> Result<Option<InterfaceName>, HostError> {
    if !files.is_live() {
        return Ok(None);
    }
    Ok(ask(name)?.map(|(own_name, _)| own_name).filter(|own_name| own_name != name))
}

fn ask(name: &InterfaceName) -> Result<Option<(InterfaceName, Link)>, HostError> {
    own_link(name).map_err(|error| HostError::Link { name: name.clone(), reason: describe(&error) })
}

/// What tells an interface from one of the same name in another network namespace, and stays when it is
/// renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// `ifindex`: no other interface of the network namespace has it at the same time.
    pub index: u32,
    /// The hardware address as `address` prints it: hex bytes with colons; empty for a device that has none.
    pub address: String,
}

/// The interfaces of a network namespace by name.
pub type Links = BTreeMap<InterfaceName, Link>;

/// The interfaces of the network namespace of this process; those of `/sys` in a captured tree.
///
/// # Errors
/// If rtnetlink fails, or `/sys/class/net` of a tree cannot be read.
pub fn links(files: &KernelFiles) -> Result<Links, HostError> {
    if files.is_live() {
        return own_links().map_err(|error| HostError::Links(describe(&error)));
    }
    let names = files.list_optional("/sys/class/net")?.unwrap_or_default();
    let mut links = Links::new();
    for name in names.iter().filter_map(|name| name.parse().ok()) {
        if let Some(link) = sysfs_link(files, &name)? {
            links.insert(name, link);
        }
    }
    Ok(links)
}

/// The name under which an interface is found that had this name and link. Two of name, index and address
/// must agree: a name is changed by hand, an address when a bond takes the interface, an index when its
/// driver is loaded again.
#[must_use]
pub fn find<'a>(links: &'a Links, name: &InterfaceName, link: &Link) -> Option<&'a InterfaceName> {
    let same_address = |other: &Link| other.address == link.address;
    let by_index = links.iter().find(|(_, other)| other.index == link.index);
    if let Some((now, other)) = by_index
        && (now == name || same_address(other))
    {
        return Some(now);
    }
    let (now, _) =
        links.get_key_value(name).filter(|(_, other)| same_address(other) && !link.address.is_empty())?;
    Some(now)
}

/// The interface in sysfs.
fn sysfs_link(files: &KernelFiles, name: &InterfaceName) -> Result<Option<Link>, HostError> {
    let read = |file| files.read_optional(&format!("/sys/class/net/{name}/{file}"));
    let Some(index) = read("ifindex")?.and_then(|text| text.trim().parse().ok()) else { return Ok(None) };
    Ok(read("address")?.map(|address| Link { index, address }))
}

/// The interfaces in the network namespace of this process, by a dump of `RTM_GETLINK`.
fn own_links() -> io::Result<Links> {
    let request = rt_link::Request::new().op_getlink_dump(&Ifinfomsg::new());
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let mut links = Links::new();
    while let Some(reply) = replies.recv() {
        let (header, attributes) = reply.map_err(io::Error::from)?;
        let name = attributes.get_ifname().map_err(io::Error::other)?.to_string_lossy();
        if let Ok(name) = name.parse() {
            links.insert(name, link(header.ifi_index, attributes.get_address().unwrap_or_default()));
        }
    }
    Ok(links)
}

fn link(index: i32, address: &[u8]) -> Link {
    let address: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    Link { index: index.unsigned_abs(), address: address.join(":") }
}

/// The interface that has this name, also as an alternative one, in the network namespace of this process,
/// and its own name, by `RTM_GETLINK`.
fn own_link(name: &InterfaceName) -> io::Result<Option<(InterfaceName, Link)>> {
    let name = CString::new(name.as_str())?;
    let mut request = rt_link::Request::new().op_getlink_do(&Ifinfomsg::new());
    request.encode().push_ifname(&name);
    let mut socket = NetlinkSocket::new();
    let mut replies = socket.request(&request)?;
    let (header, attributes) = match replies.recv_one() {
        Ok(reply) => reply,
        Err(error) => {
            let error = io::Error::from(error);
            let absent = Errno::from_io_error(&error) == Some(Errno::NODEV);
            return if absent { Ok(None) } else { Err(error) };
        }
    };
    let own_name = attributes.get_ifname().map_err(io::Error::other)?.to_string_lossy();
    let own_name = own_name.parse().map_err(io::Error::other)?;
    Ok(Some((own_name, link(header.ifi_index, attributes.get_address().unwrap_or_default()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/sys` here is that of the namespace the tests run in; `lo` is in every one.
    #[test]
    fn both_sides_describe_an_interface_in_the_same_words() {
        let files = KernelFiles::open("/").unwrap();
        let interfaces = files.list("/sys/class/net").unwrap();
        assert!(interfaces.contains(&"lo".to_owned()));
        for name in interfaces.iter().filter_map(|name| name.parse::<InterfaceName>().ok()) {
            let (own_name, link) = own_link(&name).unwrap().unwrap();
            assert_eq!((&own_name, sysfs_link(&files, &name).unwrap()), (&name, Some(link)));
            check_sysfs(&files, &name).unwrap();
        }
        for (name, link) in links(&files).unwrap() {
            assert_eq!(own_link(&name).unwrap(), Some((name.clone(), link)), "{name}");
        }
        let absent = "no-such-link".parse().unwrap();
        assert_eq!(own_link(&absent).unwrap(), None);
        check_sysfs(&files, &absent).unwrap();
    }

    #[test]
    fn an_interface_is_found_by_two_of_name_index_and_address() {
        let link = |index, address: &str| Link { index, address: address.into() };
        let name = |name: &str| name.parse::<InterfaceName>().unwrap();
        let was = link(2, "02:aa");
        for (now, expected) in [
            (&[("eth0", 2, "02:aa")][..], Some("eth0")),
            (&[("eth0", 3, "02:bb"), ("lan0", 2, "02:aa")], Some("lan0")), // renamed, and another took the name
            (&[("eth0", 3, "02:aa"), ("lan0", 2, "02:aa")], Some("lan0")), // that one is a VLAN on it
            (&[("eth0", 2, "02:bb")], Some("eth0")),                       // in a bond
            (&[("eth0", 7, "02:aa")], Some("eth0")),                       // its driver was loaded again
            (&[("eth0", 7, "02:bb"), ("lan0", 8, "02:aa")], None),
            (&[("lan0", 2, "02:bb")], None),
            (&[], None),
        ] {
            let links: Links =
                now.iter().map(|(n, index, address)| (name(n), link(*index, address))).collect();
            let found = find(&links, &name("eth0"), &was).map(InterfaceName::as_str);
            assert_eq!(found, expected, "{now:?}");
        }
        let tunnels = Links::from([(name("tun0"), link(9, ""))]);
        assert_eq!(find(&tunnels, &name("tun0"), &link(4, "")), None, "no address is no sign");
    }

    #[test]
    fn a_namespace_keeps_its_cookie() {
        let first = cookie().unwrap();
        assert!(first > 0);
        assert_eq!(cookie().unwrap(), first);
    }
}
