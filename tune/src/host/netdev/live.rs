//! The netlink family `netdev`, asked of the running kernel.

use std::io;

use netlink_bindings::netdev::{self, QueueType};
use netlink_bindings::rt_link::{self, Ifinfomsg};
use netlink_socket2::NetlinkSocket;
use rustix::io::Errno;

use super::captured::{CapturedInterface, CapturedNapi, CapturedNetdev, CapturedQueue, CapturedThread};
use super::{Direction, Napi, NapiId, Netdev, NetdevQueue};
use crate::errno::describe;
use crate::host::{HostError, InterfaceName, Irq, QueueIndex, nic};
use crate::kernel_files::KernelFiles;

/// Asks for the queues and NAPI instances of one interface. What the kernel does not say is unknown and no
/// error.
pub(super) fn read(files: &KernelFiles, name: &InterfaceName) -> Result<Netdev, HostError> {
    let index = format!("/sys/class/net/{name}/ifindex");
    let Some(index) = super::super::read_optional_as(files, &index, |text| text.trim().parse::<u32>())?
    else {
        return Ok(unknown("sysfs gives no ifindex".to_owned()));
    };
    Ok(ask(index).unwrap_or_else(|error| unknown(reason(&error))))
}

fn unknown(reason: String) -> Netdev {
    Netdev { unknown: Some(reason), ..Netdev::default() }
}

/// The kernel has no such family (ENOENT), or the family has no such request yet (EOPNOTSUPP).
fn reason(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::OPNOTSUPP) => {
            "this kernel does not tell queues and NAPI instances by netlink (it does since 6.8)".to_owned()
        }
        _ => format!("ask netlink family netdev: {}", describe(error)),
    }
}

fn ask(index: u32) -> io::Result<Netdev> {
    let mut socket = NetlinkSocket::new();
    let mut netdev = Netdev { queues: queues(&mut socket, index)?, ..Netdev::default() };
    netdev.napis = napis(&mut socket, index)?;
    let untold = netdev.queues.iter().all(|queue| queue.napi.is_none());
    if untold && !netdev.napis.is_empty() && is_veth(&mut socket, index)? {
        netdev.number_veth();
    }
    Ok(netdev)
}

fn queues(socket: &mut NetlinkSocket, index: u32) -> io::Result<Vec<NetdevQueue>> {
    let mut request = netdev::Request::new().op_queue_get_dump();
    request.encode().push_ifindex(index);
    let mut replies = socket.request(&request)?;
    let mut queues = Vec::new();
    while let Some(reply) = replies.recv() {
        let reply = reply.map_err(io::Error::from)?;
        let direction = match QueueType::from_value(reply.get_type().map_err(io::Error::other)?.into()) {
            Some(QueueType::Rx) => Direction::Rx,
            Some(QueueType::Tx) => Direction::Tx,
            None => continue,
        };
        let index = QueueIndex(reply.get_id().map_err(io::Error::other)?);
        queues.push(NetdevQueue { direction, index, napi: reply.get_napi_id().ok().map(NapiId) });
    }
    Ok(queues)
}

fn napis(socket: &mut NetlinkSocket, index: u32) -> io::Result<Vec<Napi>> {
    let mut request = netdev::Request::new().op_napi_get_dump();
    request.encode().push_ifindex(index);
    let mut replies = socket.request(&request)?;
    let mut napis = Vec::new();
    while let Some(reply) = replies.recv() {
        let reply = reply.map_err(io::Error::from)?;
        napis.push(Napi {
            id: NapiId(reply.get_id().map_err(io::Error::other)?),
            irq: reply.get_irq().ok().filter(|irq| *irq > 0).map(Irq),
            pid: reply.get_pid().ok().filter(|pid| *pid > 0),
            thread: None,
        });
    }
    Ok(napis)
}

fn is_veth(socket: &mut NetlinkSocket, index: u32) -> io::Result<bool> {
    let header = Ifinfomsg { ifi_index: i32::try_from(index).map_err(io::Error::other)?, ..Ifinfomsg::new() };
    let request = rt_link::Request::new().op_getlink_do(&header);
    let mut replies = socket.request(&request)?;
    let (_, attributes) = replies.recv_one().map_err(io::Error::from)?;
    let kind = attributes.get_linkinfo().and_then(|info| info.get_kind());
    Ok(kind.is_ok_and(|kind| kind.to_bytes() == b"veth"))
}

/// What a captured tree holds in `corelocal/netdev.json`: the answers of this kernel for every interface that
/// has queues, and the threads. As JSON, with a newline at its end.
///
/// # Errors
/// If `/sys/class/net` cannot be read.
pub fn capture(files: &KernelFiles) -> Result<String, HostError> {
    let mut captured = CapturedNetdev { schema: 1, ..CapturedNetdev::default() };
    for name in nic::list_interfaces(files)? {
        let netdev = Netdev::read(files, &name)?;
        let threads = netdev.napis.iter().filter_map(|napi| napi.thread.as_ref());
        captured.threads.extend(threads.map(CapturedThread::from));
        if netdev.unknown.is_none() {
            let queues = netdev.queues.iter().map(CapturedQueue::from).collect();
            let napis = netdev.napis.iter().map(CapturedNapi::from).collect();
            captured.interfaces.insert(name.to_string(), CapturedInterface { queues, napis });
        }
    }
    let text = serde_json::to_string_pretty(&captured).map_err(|error| HostError::text("netdev", &error))?;
    Ok(text + "\n")
}
