//! The identity of the caller's network namespace, and whether `/sys` shows the same one.
//!
//! `/proc/sys/net` and `/proc/net` follow the process. A sysfs mount shows for ever the network namespace of whoever
//! mounted it: after setns(2) or `nsenter --net` without a new mount, `/sys/class/net/eth0` is an interface of another
//! namespace.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use netlink_bindings::rt_link::{self, Ifinfomsg};
use netlink_socket2::NetlinkSocket;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::errno::describe;
use crate::host::{HostError, InterfaceName};
use crate::kernel_files::KernelFiles;

/// A number that no other network namespace has had or will have until the next boot; 1 is the first one. (The inode of
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

/// Checks that `/sys` has, under this name, the interface that this process's network namespace has under it, or that
/// neither has one. A captured tree has no namespace to compare with.
///
/// What is compared is index and hardware address: two interfaces that agree in both, as every `lo` does, cannot be
/// told apart.
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

/// The name of the interface that has `name` as an alternative one (`ip link property add dev … altname …`) in this
/// process's network namespace.
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

/// What tells an interface from one of the same name in another network namespace.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    /// As `ifindex` prints it.
    index: String,
    /// As `address` prints it: hex bytes with colons; empty for a device that has none.
    address: String,
}

/// The interface in sysfs.
fn sysfs_link(files: &KernelFiles, name: &InterfaceName) -> Result<Option<Link>, HostError> {
    let read = |file| files.read_optional(&format!("/sys/class/net/{name}/{file}"));
    let Some(index) = read("ifindex")? else { return Ok(None) };
    Ok(read("address")?.map(|address| Link { index, address }))
}

/// The interface that has this name, also as an alternative one, in the network namespace of this process, and its own
/// name, by `RTM_GETLINK`.
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
    let address: Vec<String> =
        attributes.get_address().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some((own_name, Link { index: header.ifi_index.to_string(), address: address.join(":") })))
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
        let absent = "no-such-link".parse().unwrap();
        assert_eq!(own_link(&absent).unwrap(), None);
        check_sysfs(&files, &absent).unwrap();
    }

    #[test]
    fn a_namespace_keeps_its_cookie() {
        let first = cookie().unwrap();
        assert!(first > 0);
        assert_eq!(cookie().unwrap(), first);
    }
}
