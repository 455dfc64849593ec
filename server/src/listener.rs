//! The listening sockets: one for each worker, all in one reuseport group, in the order of the workers.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tune::cpu_set::Cpu;
use tune::errno::describe;

use crate::config::Steer;
use crate::steering::{self, Instruction};

/// Why the server can't listen.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {address}: {errno}{hint}", errno = describe(error))]
pub struct ListenError {
    /// What was tried.
    operation: &'static str,
    /// With which address.
    address: SocketAddr,
    /// Its error.
    error: io::Error,
    /// What to do next.
    hint: String,
}

/// Sockets bound to one address, not yet listening.
#[derive(Debug)]
pub(crate) struct Listeners {
    sockets: Vec<Socket>,
    address: SocketAddr,
}

impl Listeners {
    /// Binds a socket for each of `cpus` to `address`; port 0 lets the kernel choose one for all. Accepted sockets
    /// inherit `TCP_NODELAY` and `SO_KEEPALIVE` from these.
    ///
    /// # Errors
    /// EADDRINUSE if anybody listens there, the same user's programs included: without that check the kernel would let
    /// two servers of one user share the port and split the connections between them.
    pub(crate) fn bind(address: SocketAddr, cpus: &[Cpu], steer: Steer) -> Result<Self, ListenError> {
        let fail = |operation| move |source| error(operation, address, source);
        if address.port() != 0 {
            let probe = socket(address).map_err(fail("create a socket for"))?;
            probe.bind(&address.into()).map_err(fail("listen on"))?;
        }
        let mut bound = address;
        let mut sockets = Vec::with_capacity(cpus.len());
        for &cpu in cpus {
            let socket = socket(address).map_err(fail("create a socket for"))?;
            socket.set_reuse_port(true).map_err(fail("set SO_REUSEPORT for"))?;
            // For the accept(2) at the end of a drain. io_uring's accepts wait all the same.
            socket.set_nonblocking(true).map_err(fail("set O_NONBLOCK for"))?;
            socket.set_tcp_nodelay(true).map_err(fail("set TCP_NODELAY for"))?;
            socket.set_keepalive(true).map_err(fail("set SO_KEEPALIVE for"))?; // peers that are gone are noticed
            if steer != Steer::Hash {
                sockopt::set_socket_incoming_cpu(&socket, cpu)
                    .map_err(|errno| error("set SO_INCOMING_CPU for", address, errno.into()))?;
            }
            socket.bind(&bound.into()).map_err(fail("listen on"))?;
            let local = socket.local_addr().map_err(fail("read the address of"))?;
            bound = local.as_socket().unwrap_or(bound);
            sockets.push(socket);
        }
        if steer != Steer::Hash
            && let Some(first) = sockets.first()
        {
            attach(first, &steering::program(cpus)).map_err(fail("set SO_ATTACH_REUSEPORT_CBPF for"))?;
        }
        Ok(Self { sockets, address: bound })
    }

    /// As [`Listeners::bind`], for datagrams. These sockets receive from now on; the reuseport group is in this order.
    pub(crate) fn bind_udp(address: SocketAddr, cpus: &[Cpu], steer: Steer) -> Result<Self, ListenError> {
        let fail = |operation| move |source| error(operation, address, source);
        let socket = || Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
        if address.port() != 0 {
            let probe = socket().map_err(fail("create a socket for"))?;
            probe.bind(&address.into()).map_err(fail("listen on"))?;
        }
        let mut bound = address;
        let mut sockets = Vec::with_capacity(cpus.len());
        for &cpu in cpus {
            let socket = socket().map_err(fail("create a socket for"))?;
            socket.set_reuse_port(true).map_err(fail("set SO_REUSEPORT for"))?;
            if steer != Steer::Hash {
                sockopt::set_socket_incoming_cpu(&socket, cpu)
                    .map_err(|errno| error("set SO_INCOMING_CPU for", address, errno.into()))?;
                if sockets.is_empty() {
                    attach(&socket, &steering::program(cpus))
                        .map_err(fail("set SO_ATTACH_REUSEPORT_CBPF for"))?;
                }
            }
            socket.bind(&bound.into()).map_err(fail("listen on"))?;
            let local = socket.local_addr().map_err(fail("read the address of"))?;
            bound = local.as_socket().unwrap_or(bound);
            sockets.push(socket);
        }
        Ok(Self { sockets, address: bound })
    }

    /// The address, with the port that was chosen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another descriptor of each socket, in order, for the workers.
    pub(crate) fn descriptors(&self) -> Result<Vec<std::os::fd::OwnedFd>, ListenError> {
        let duplicate = |socket: &Socket| socket.as_fd().try_clone_to_owned();
        self.sockets
            .iter()
            .map(duplicate)
            .collect::<io::Result<_>>()
            .map_err(|source| error("duplicate a listener of", self.address, source))
    }

    /// Starts to listen, in order: that is the order of the reuseport group, which the steering program counts on.
    /// These descriptors are closed; the sockets live as long as the workers' ones.
    pub(crate) fn listen(self, backlog: i32) -> Result<(), ListenError> {
        let address = self.address;
        self.sockets
            .iter()
            .try_for_each(|socket| socket.listen(backlog))
            .map_err(|source| error("listen on", address, source))
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections of a former server in TIME_WAIT do not keep the port
    Ok(socket)
}

fn error(operation: &'static str, address: SocketAddr, source: io::Error) -> ListenError {
    let hint = match Errno::from_io_error(&source) {
        Some(Errno::ADDRINUSE) => {
            format!("; see who does: ss -ltnp 'sport = :{}', or choose another port", address.port())
        }
        Some(Errno::ACCESS) => "; ports below 1024 need CAP_NET_BIND_SERVICE or root".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "; no interface here has this address: see `ip address`".to_owned(),
        _ => String::new(),
    };
    ListenError { operation, address, error: source, hint }
}

/// Gives the socket's reuseport group, present or future, its program.
fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.operand })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(Errno::INVAL))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of_val(&program)).expect("16 bytes");
    // SAFETY: the option takes a `struct sock_fprog`; it and the filter it points to live until the call returns, and the
    // kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&program).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
