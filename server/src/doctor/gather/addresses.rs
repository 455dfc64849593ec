//! Whether the addresses can be bound: by binding them for a moment, without listening.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tune::errno::describe;
use tune::kernel_files::KernelFiles;

use super::holders::holders;
use crate::config::Config;
use crate::doctor::facts::{AddressFacts, Purpose};

/// Each address of the configuration.
pub(super) fn gather(files: &KernelFiles, config: &Config) -> Vec<AddressFacts> {
    let kind = if config.udp { Type::DGRAM } else { Type::STREAM };
    let listen = config.listen.iter().map(|&address| (address, Purpose::Listen, kind));
    let metrics = config.metrics.map(|address| (address, Purpose::Metrics, Type::STREAM));
    let facts = |(address, purpose, kind)| {
        let error = bind(address, kind, config.v6only).err();
        let is_taken = error.as_ref().and_then(Errno::from_io_error) == Some(Errno::ADDRINUSE);
        let mut holders = if is_taken { holders(files, address, kind == Type::DGRAM) } else { Vec::new() };
        holders.retain(|holder| !(config.v6only && address.is_ipv6() && holder.address.is_ipv4()));
        AddressFacts { address, purpose, error: error.map(|error| text(address, &error)), holders }
    };
    listen.chain(metrics).map(facts).collect()
}

/// As the server binds, but without SO_REUSEPORT, so that nobody's listener is joined. SO_REUSEADDR leaves
/// out connections of a former server in TIME_WAIT; for UDP it would share the port.
fn bind(address: SocketAddr, kind: Type, v6only: bool) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    if address.is_ipv6() && v6only {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

fn text(address: SocketAddr, error: &io::Error) -> String {
    let hint = match Errno::from_io_error(error) {
        Some(Errno::ACCESS) => "; ports below 1024 need CAP_NET_BIND_SERVICE or root",
        Some(Errno::ADDRNOTAVAIL) => "; no interface here has this address: see `ip address`",
        Some(Errno::AFNOSUPPORT) => "; this kernel or host has no IPv6",
        _ => "",
    };
    format!("bind {address}: {}{hint}", describe(error))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn of(address: SocketAddr, udp: bool) -> AddressFacts {
        let config = Config { listen: vec![address], udp, ..Config::default() };
        gather(&KernelFiles::open("/").unwrap(), &config).swap_remove(0)
    }

    #[test]
    fn a_port_is_free_until_somebody_has_it_and_again_after_the_look() {
        // An address where no other test connects from.
        let listener = TcpListener::bind("127.53.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = of(address, false);
        assert!(taken.error.unwrap().contains("EADDRINUSE"));
        assert_eq!(taken.holders[0].process.as_ref().unwrap().0, std::process::id());
        assert_eq!(of(address, true).error, None, "UDP has its own ports");
        drop(listener);
        assert_eq!(of(address, false).error, None);
        assert_eq!(of(address, false).error, None);
    }

    #[test]
    fn an_address_that_nobody_has_here_says_so() {
        let facts = of("192.0.2.1:7000".parse().unwrap(), false);
        assert!(facts.error.unwrap().contains("ip address") && facts.holders.is_empty());
    }
}
