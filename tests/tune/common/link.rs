//! What becomes of an interface of this thread's network namespace, by rtnetlink as `ip link` does it.

use std::ffi::CString;
use std::fs;

use netlink_bindings::rt_link::{self, IfinfoFlags, Ifinfomsg};
use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::NetlinkSocket;

fn send<R: NetlinkRequest>(request: &R) {
    NetlinkSocket::new().request(request).unwrap().recv_ack().unwrap();
}

fn header(interface: &str) -> Ifinfomsg {
    let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).unwrap();
    Ifinfomsg { ifi_index: index.trim().parse().unwrap(), ..Ifinfomsg::new() }
}

/// `ip link set INTERFACE up` or `down`.
pub(crate) fn set_up(interface: &str, up: bool) {
    let flag = IfinfoFlags::Up as u32;
    let flags = if up { flag } else { 0 };
    let header = Ifinfomsg { ifi_flags: flags, ifi_change: flag, ..header(interface) };
    send(&rt_link::Request::new().op_setlink_do(&header));
}

/// `ip link set FROM name TO`, of an interface that is taken down for it.
pub(crate) fn rename(from: &str, to: &str) {
    set_up(from, false);
    let mut request = rt_link::Request::new().op_setlink_do(&header(from));
    request.encode().push_ifname(&CString::new(to).unwrap());
    send(&request);
}

/// `ip link delete INTERFACE`.
pub(crate) fn delete(interface: &str) {
    send(&rt_link::Request::new().op_dellink_do(&header(interface)));
}
