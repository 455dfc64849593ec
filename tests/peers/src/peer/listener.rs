//! A listening socket, with everything that its connections inherit.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, listen as listen_on, socket_with, sockopt,
};

use super::{Mode, PeerArgs};

/// A listener of the reuseport group of `address`, with the options of a peer. Its connections inherit
/// (socket(7), tcp(7)) TCP_NODELAY, SO_KEEPALIVE, as those of `server`, and, where they are to be reset,
/// SO_LINGER with 0 seconds: closing them sends RST.
pub(crate) fn listen(address: SocketAddr, args: &PeerArgs) -> anyhow::Result<OwnedFd> {
    let open = || -> rustix::io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket =
            socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        if args.mode == Mode::AcceptClose {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        bind(&socket, &address)?;
        listen_on(&socket, args.backlog.into())?;
        Ok(socket)
    };
    open().with_context(|| format!("listen on {address}"))
}

/// The port on which a socket listens.
pub(crate) fn port(listener: &OwnedFd) -> anyhow::Result<u16> {
    let address = getsockname(listener).context("getsockname of a listener")?;
    let address = SocketAddr::try_from(address).context("the address of a listener")?;
    Ok(address.port())
}
