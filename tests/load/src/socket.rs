//! Sockets: open towards a server, from a chosen source; close by reset.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A blocking TCP socket towards `server`, not connected, bound to `source` if there is one.
pub(crate) fn tcp(server: &SockAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(server.domain(), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // The port is chosen when it is connected, so that it need be free towards this server only (ip(7)).
        if server.domain() == Domain::IPV4 {
            bind_address_no_port(&socket)?;
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let (on, size): (libc::c_int, _) = (1, libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4"));
    let option = libc::IP_BIND_ADDRESS_NO_PORT;
    // SAFETY: the option takes an int, of which the kernel reads `size` bytes.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const on).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A UDP socket connected to `server`.
pub(crate) fn udp(server: &SockAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(server.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(server)?;
    Ok(socket)
}

/// Closes with RST instead of FIN, so that no TIME_WAIT keeps the port (`SO_LINGER` with 0 seconds,
/// socket(7)).
pub(crate) fn close_by_reset(socket: Socket) -> io::Result<()> {
    let set = socket.set_linger(Some(Duration::ZERO));
    drop(socket);
    set
}
