//! The sockets that the server listens on: a group for each address, which one worker, or each, has a part
//! in.
//!
//! | `--accept` | sockets of an address | who has them |
//! |---|---|---|
//! | `per-core` | one for each worker, in one reuseport group, in the order of the workers | each worker its own |
//! | `shared` | one | all workers |
//! | `single` | one | the first worker |
//!
//! With `--udp` the sockets are for datagrams; everything else is the same, but that nothing has to listen.

mod error;
mod options;
mod overlap;
mod reuseport;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tune::cpu_set::Cpu;

use crate::config::{AcceptModel, Config, Steer};
use crate::steering;
pub use error::ListenError;
pub(crate) use options::advice;

/// How long a taken address may be that of a server which was killed: the kernel takes its rings apart, and
/// with them the listening sockets that accept requests hold, only after the process has ended
/// (`io_ring_exit_work()`). Most often some ms.
const AFTERLIFE: Duration = Duration::from_millis(500);

/// How often such an address is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Sockets bound to the addresses of `--listen`.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// As bound, in the order of `--listen`.
    addresses: Vec<SocketAddr>,
    /// The sockets of each address, in the order of the workers.
    groups: Vec<Vec<Socket>>,
    accept: AcceptModel,
    workers: usize,
    udp: bool,
}

impl Listeners {
    /// Binds the sockets of all addresses, for a worker on each of `cpus`; port 0 lets the kernel choose one
    /// for all sockets of the address. Accepted connections inherit their options from these sockets.
    ///
    /// # Errors
    /// EADDRINUSE if anybody has the address, the same user's programs included: without that check the
    /// kernel would let two servers of one user share the port and split the connections between them.
    /// [`ListenError::Overlap`] if two addresses would get the same connections. And whatever socket options
    /// can fail with.
    pub(crate) fn bind(config: &Config, cpus: &[Cpu]) -> Result<Self, ListenError> {
        overlap::check(&config.listen, config.v6only)?;
        let wanted: Vec<SocketAddr> =
            config.listen.iter().map(|&address| probe(config, address)).collect::<Result<_, _>>()?;
        let (mut addresses, mut groups) = (Vec::new(), Vec::new());
        for address in wanted {
            let (bound, sockets) = match config.accept {
                AcceptModel::PerCore => bind_group(config, address, cpus)?,
                AcceptModel::Shared | AcceptModel::Single => bind_one(config, address)?,
            };
            addresses.push(bound);
            groups.push(sockets);
        }
        Ok(Self { addresses, groups, accept: config.accept, workers: cpus.len(), udp: config.udp })
    }

    /// The addresses, with the ports that were chosen, in the order of `--listen`.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Another descriptor of each socket for each worker that has it: the workers in their order, of each the
    /// addresses in theirs.
    ///
    /// # Errors
    /// EMFILE if the process has no more descriptors.
    pub(crate) fn descriptors(&self) -> Result<Vec<Vec<OwnedFd>>, ListenError> {
        (0..self.workers).map(|worker| self.descriptors_of(worker)).collect()
    }

    fn descriptors_of(&self, worker: usize) -> Result<Vec<OwnedFd>, ListenError> {
        let index = match self.accept {
            AcceptModel::PerCore => worker,
            AcceptModel::Shared => 0,
            AcceptModel::Single if worker == 0 => 0,
            AcceptModel::Single => return Ok(Vec::new()),
        };
        let duplicate = |(address, sockets): (_, &Vec<Socket>)| {
            let duplicate = sockets[index].as_fd().try_clone_to_owned();
            duplicate.map_err(ListenError::of("duplicate a socket of", address))
        };
        self.addresses.iter().copied().zip(&self.groups).map(duplicate).collect()
    }

    /// Starts to listen, in order: that is the order of the reuseport groups, which the steering programs
    /// count on. (Datagram sockets are in their groups, in order, since they were bound.)
    ///
    /// # Errors
    /// EADDRINUSE if another server has begun to listen in the same moment.
    pub(crate) fn listen(&self, backlog: u16) -> Result<(), ListenError> {
        if self.udp {
            return Ok(());
        }
        self.each(|socket| socket.listen(backlog.into()), "listen on")
    }

    /// Lets the kernel choose the socket by the hash of addresses and ports from now on. Connections that are
    /// there, or are being made, stay with the socket that they have.
    ///
    /// # Errors
    /// ENOENT if they were not steered by CPU. Some may be steered by CPU still.
    pub(crate) fn steer_by_hash(&self) -> Result<(), ListenError> {
        for (&address, sockets) in self.addresses.iter().zip(&self.groups) {
            let detach = sockets.first().map_or(Ok(()), reuseport::detach);
            detach.map_err(ListenError::of("set SO_DETACH_REUSEPORT_BPF for", address))?;
        }
        self.each(|socket| reuseport::set_cpu(socket, None), "reset SO_INCOMING_CPU of")
    }

    fn each(
        &self,
        action: impl Fn(&Socket) -> io::Result<()>,
        operation: &'static str,
    ) -> Result<(), ListenError> {
        let mut groups = self.addresses.iter().zip(&self.groups);
        groups.try_for_each(|(&address, sockets)| {
            sockets.iter().try_for_each(&action).map_err(ListenError::of(operation, address))
        })
    }
}

/// Checks that nobody has this address. Gives the address to bind to, which is another one only with port 0
/// and UDP: as port of a socket with SO_REUSEPORT the kernel may choose one that another such socket of the
/// same user has (`udp_lib_lport_inuse()` in `net/ipv4/udp.c`; TCP does not), so it chooses one for a socket
/// without.
fn probe(config: &Config, address: SocketAddr) -> Result<SocketAddr, ListenError> {
    if address.port() == 0 && !config.udp {
        return Ok(address);
    }
    let start = Instant::now();
    loop {
        match bind(&socket(config, address)?, address) {
            Err(error) if error.is_address_in_use() && start.elapsed() < AFTERLIFE => {
                std::thread::sleep(AGAIN);
            }
            result => return result,
        }
    }
}

/// A socket for each of `cpus`, all bound to one address and in one reuseport group.
fn bind_group(
    config: &Config,
    address: SocketAddr,
    cpus: &[Cpu],
) -> Result<(SocketAddr, Vec<Socket>), ListenError> {
    let by_cpu = config.steer != Steer::Hash;
    let mut bound = address;
    let mut sockets = Vec::with_capacity(cpus.len());
    for &cpu in cpus {
        let socket = socket_with_options(config, address)?;
        socket.set_reuse_port(true).map_err(ListenError::of("set SO_REUSEPORT for", address))?;
        if by_cpu {
            reuseport::set_cpu(&socket, Some(cpu))
                .map_err(ListenError::of("set SO_INCOMING_CPU for", address))?;
        }
        bound = bind(&socket, bound)?;
        sockets.push(socket);
    }
    if by_cpu && let Some(first) = sockets.first() {
        reuseport::attach(first, &steering::program(cpus))
            .map_err(ListenError::of("set SO_ATTACH_REUSEPORT_CBPF for", address))?;
    }
    Ok((bound, sockets))
}

fn bind_one(config: &Config, address: SocketAddr) -> Result<(SocketAddr, Vec<Socket>), ListenError> {
    let socket = socket_with_options(config, address)?;
    let bound = bind(&socket, address)?;
    Ok((bound, vec![socket]))
}

/// Binds and gives the address with the port that was chosen.
fn bind(socket: &Socket, address: SocketAddr) -> Result<SocketAddr, ListenError> {
    socket.bind(&address.into()).map_err(ListenError::of("listen on", address))?;
    let local = socket.local_addr().map_err(ListenError::of("read the address of", address))?;
    Ok(local.as_socket().unwrap_or(address))
}

fn socket_with_options(config: &Config, address: SocketAddr) -> Result<Socket, ListenError> {
    let socket = socket(config, address)?;
    options::set(&socket, config, address)?;
    Ok(socket)
}

fn socket(config: &Config, address: SocketAddr) -> Result<Socket, ListenError> {
    let (kind, protocol) =
        if config.udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))
        .map_err(ListenError::of("create a socket for", address))?;
    if address.is_ipv6() {
        // Always said, whatever net.ipv6.bindv6only is.
        socket.set_only_v6(config.v6only).map_err(ListenError::of("set IPV6_V6ONLY for", address))?;
    }
    if !config.udp {
        // Connections of a former server in TIME_WAIT do not keep the port. (Datagram sockets with this
        // option would share it with those of others.)
        socket.set_reuse_address(true).map_err(ListenError::of("set SO_REUSEADDR for", address))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests;
