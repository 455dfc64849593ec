//! A veth pair between two namespaces, through rtnetlink.
//!
//! `netlink-bindings` writes the messages and `netlink-socket2`, its companion, carries them. The kernel's
//! YAML specification from which the bindings are made does not describe a veth's peer, so that one attribute
//! is written here (`VETH_INFO_PEER` in include/uapi/linux/veth.h).
//!
//! # Which RX queue a packet is on
//!
//! A veth has no hardware that writes the RX queue into a packet. The sender's choice of a TX queue is
//! `skb->queue_mapping`, `veth_xmit()` leaves it there (since Linux 5.17, commit 710ad98c363a), and on the
//! receiving side `skb_get_rx_queue()` reads the same field as RX queue + 1, with 0 for "none recorded",
//! which `get_rps_cpu()` takes as RX queue 0. So what leaves one end on TX queue t is for RPS on RX queue t -
//! 1 of the other end, and TX queues 0 and 1 are both its RX queue 0. [`spread_flows_over_peer_queues`] makes
//! use of that.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use netlink_bindings::rt_addr::{self, Ifaddrmsg};
use netlink_bindings::rt_link::{self, IfinfoFlags, Ifinfomsg, PushLinkAttrs};
use netlink_bindings::traits::{NetlinkRequest, Pusher};
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};
use netlink_socket2::NetlinkSocket;
use rustix::net::AddressFamily;
use tune::cpu_set::CpuSet;
use tune::kernel_files::KernelFiles;

use crate::namespace::{Namespace, NamespaceError};

/// `IFLA_INFO_DATA` in include/uapi/linux/if_link.h.
const IFLA_INFO_DATA: u16 = 2;
/// `VETH_INFO_PEER` in include/uapi/linux/veth.h.
const VETH_INFO_PEER: u16 = 1;

/// One end of a pair.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Name of the interface there; at most 15 bytes.
    pub name: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Number of transmit queues, 1 to 4096.
    pub tx_queues: u32,
    /// Number of receive queues, 1 to 4096.
    pub rx_queues: u32,
}

/// Makes a veth pair with its two ends in two namespaces, gives them addresses of a /24, and brings them and
/// the loopback interfaces up.
///
/// # Errors
/// If the kernel has no veth driver, a name is taken or impossible, or the caller lacks CAP_NET_ADMIN.
pub fn create_veth_pair(one: &VethEnd<'_>, other: &VethEnd<'_>) -> Result<(), NamespaceError> {
    one.namespace.run(|| create(one, other))??;
    for end in [one, other] {
        end.namespace.run(|| {
            bring_up("lo")?;
            add_address(end.name, end.address)?;
            bring_up(end.name)
        })??;
    }
    Ok(())
}

/// Makes every flow that leaves `end` take one of the TX queues 1 to `tx_queues - 1` by its hash, whatever
/// CPU it is sent from: what RSS does on a NIC. The flows are then spread evenly over the first `tx_queues -
/// 1` RX queues of the other end, TX queue t being its RX queue t - 1.
///
/// Through XPS: the CPUs of `cpus` have all these queues in their map, and of several queues in the map
/// `__get_xps_queue_idx()` takes one by `skb_get_hash()`, which for TCP is a random number of the connection
/// (`sk_txhash`).
///
/// # Errors
/// If `xps_cpus` cannot be written: a kernel without CONFIG_XPS, or a CPU that is not possible.
pub fn spread_flows_over_peer_queues(end: &VethEnd<'_>, cpus: &CpuSet) -> Result<(), NamespaceError> {
    let mask = cpus.to_mask();
    end.namespace.run(|| {
        let files = KernelFiles::open("/")?;
        (1..end.tx_queues).try_for_each(|queue| {
            files.write_existing(&format!("/sys/class/net/{}/queues/tx-{queue}/xps_cpus", end.name), &mask)
        })?;
        Ok(())
    })?
}

fn create(one: &VethEnd<'_>, other: &VethEnd<'_>) -> Result<(), NamespaceError> {
    let mut request = rt_link::Request::new().set_create().set_excl().op_newlink_do(&Ifinfomsg::new());
    let mut link_info = describe(request.encode(), one)?.nested_linkinfo().push_kind(c"veth");
    let message = link_info.as_vec_mut();
    let data = push_nested_header(message, IFLA_INFO_DATA);
    let peer = push_nested_header(message, VETH_INFO_PEER);
    message.extend(Ifinfomsg::new().as_slice());
    let attributes = describe(PushLinkAttrs::new(&mut *message), other)?;
    attributes.push_net_ns_fd(other.namespace.network().as_raw_fd().cast_unsigned());
    finalize_nested_header(message, peer);
    finalize_nested_header(message, data);
    link_info.end_nested();
    let operation = format!("create veth pair {} and {}", one.name, other.name);
    send(&request).map_err(|error| match error.raw_os_error() {
        Some(errno) if errno == rustix::io::Errno::OPNOTSUPP.raw_os_error() => {
            let hint = "the kernel has no veth (CONFIG_VETH); load its module with modprobe veth";
            NamespaceError::System { operation, error: io::Error::new(error.kind(), hint) }
        }
        _ => NamespaceError::of(operation)(error),
    })
}

/// Name and queue counts, which both ends are described by.
fn describe<P: Pusher>(
    attributes: PushLinkAttrs<P>,
    end: &VethEnd<'_>,
) -> Result<PushLinkAttrs<P>, NamespaceError> {
    let name =
        CString::new(end.name).map_err(NamespaceError::of(format!("interface name {:?}", end.name)))?;
    Ok(attributes.push_ifname(&name).push_num_tx_queues(end.tx_queues).push_num_rx_queues(end.rx_queues))
}

fn bring_up(name: &str) -> Result<(), NamespaceError> {
    let up = IfinfoFlags::Up as u32;
    let header = Ifinfomsg { ifi_index: index(name)?, ifi_flags: up, ifi_change: up, ..Ifinfomsg::new() };
    send(&rt_link::Request::new().op_setlink_do(&header))
        .map_err(NamespaceError::of(format!("bring {name} up")))
}

fn add_address(name: &str, address: Ipv4Addr) -> Result<(), NamespaceError> {
    let header = Ifaddrmsg {
        ifa_family: u8::try_from(AddressFamily::INET.as_raw()).expect("AF_INET is 2"),
        ifa_prefixlen: 24,
        ifa_index: index(name)?.cast_unsigned(),
        ..Ifaddrmsg::new()
    };
    let mut request = rt_addr::Request::new().set_create().set_excl().op_newaddr_do(&header);
    request.encode().push_local(IpAddr::V4(address)).push_address(IpAddr::V4(address));
    send(&request).map_err(NamespaceError::of(format!("give {name} the address {address}/24")))
}

/// The interface's index in the namespace of the calling thread.
fn index(name: &str) -> Result<i32, NamespaceError> {
    let socket = rustix::net::socket(AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    let socket = socket.map_err(NamespaceError::of("open a socket"))?;
    let index = rustix::net::netdevice::name_to_index(socket, name);
    Ok(index.map_err(NamespaceError::of(format!("find interface {name}")))?.cast_signed())
}

fn send<R: NetlinkRequest>(request: &R) -> io::Result<()> {
    NetlinkSocket::new().request(request)?.recv_ack().map_err(|error| {
        // The errno alone, or with the kernel's own words if it gave any (NLMSGERR_ATTR_MSG).
        let errno = error.as_io_error().raw_os_error();
        errno
            .filter(|_| error.ext_ack().is_none())
            .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
    })
}
