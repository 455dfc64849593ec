//! A worker's UDP socket on one address: how it is set up, and what is known of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{getsockname, sockopt};

use super::flight::Receiver;
use super::message::LARGEST_PAYLOAD;
use super::operations;
use crate::worker::descriptors::drops;

/// Bytes asked for each socket's queues; the kernel cuts them to `net.core.rmem_max` and `net.core.wmem_max`.
/// What a burst brings beyond the receive queue is lost.
const QUEUE: usize = 4 << 20;

/// One of a worker's sockets.
pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    pub(super) receiver: Receiver,
    /// The port that it is bound to.
    pub(super) port: u16,
    /// Datagrams that the kernel has thrown away, as far as they are counted.
    overruns: u32,
}

impl Socket {
    /// Sets a bound socket up. `payload` is what a buffer has room for.
    ///
    /// On a wildcard address it has the kernel tell where each datagram was sent to: a client that has
    /// connected its socket takes an answer from no other address. GRO is used only where a buffer has room
    /// for the longest train that the kernel makes: a train that is cut off is lost.
    pub(super) fn new(descriptor: OwnedFd, payload: u32) -> io::Result<Self> {
        let address = std::net::SocketAddr::try_from(getsockname(&descriptor)?)
            .map_err(|_| io::Error::from(rustix::io::Errno::AFNOSUPPORT))?;
        if address.ip().is_unspecified() {
            operations::ask_for_destination(&descriptor, address.is_ipv6())?;
        }
        if payload >= LARGEST_PAYLOAD {
            // Where there is no GRO every datagram comes by itself.
            let _ = operations::coalesce(&descriptor);
        }
        // What is there may be more, and is enough if it can't be had.
        if sockopt::socket_recv_buffer_size(&descriptor)? < QUEUE {
            let _ = sockopt::set_socket_recv_buffer_size(&descriptor, QUEUE);
        }
        if sockopt::socket_send_buffer_size(&descriptor)? < QUEUE {
            let _ = sockopt::set_socket_send_buffer_size(&descriptor, QUEUE);
        }
        let port = address.port();
        Ok(Self { descriptor, receiver: Receiver::new(), port, overruns: 0 })
    }

    /// Datagrams that the kernel has thrown away since the last call, because the socket's queue was full.
    pub(super) fn new_overruns(&mut self) -> u32 {
        let Some(overruns) = drops(self.descriptor.as_fd()) else { return 0 };
        overruns.wrapping_sub(std::mem::replace(&mut self.overruns, overruns))
    }
}
