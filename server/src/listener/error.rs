//! Why the server can't listen, and what to do about it.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use tune::errno::describe;

/// Why the server can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A system call failed.
    #[error("{operation} {address}: {error}{hint}", error = describe(error), hint = hint(operation, *address, error))]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// With which address.
        address: SocketAddr,
        /// Its error.
        error: io::Error,
    },
    /// An IPv6 address takes the IPv4 connections of another one, too.
    #[error(
        "--listen {wide} takes IPv4 connections, too, and so those of --listen {narrow}; give --v6only, or \
         leave out {narrow}"
    )]
    Overlap {
        /// The IPv6 address.
        wide: SocketAddr,
        /// The IPv4 address.
        narrow: SocketAddr,
    },
}

impl ListenError {
    /// For `map_err`.
    pub(super) fn of(operation: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Failed { operation, address, error }
    }

    /// Somebody has the address.
    pub(super) fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Failed { error, .. } if error.kind() == io::ErrorKind::AddrInUse)
    }
}

fn hint(operation: &str, address: SocketAddr, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => {
            format!("; see who does: ss -lntup 'sport = :{}', or choose another port", address.port())
        }
        Some(Errno::ACCESS) => "; ports below 1024 need CAP_NET_BIND_SERVICE or root".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "; no interface here has this address: see `ip address`".to_owned(),
        Some(Errno::AFNOSUPPORT) => "; this kernel has no IPv6, or it was disabled at boot".to_owned(),
        Some(Errno::PERM) if operation.contains("SO_BUSY_POLL") => {
            "; on this kernel more than net.core.busy_read needs CAP_NET_ADMIN: start as root (--user gives \
             it up afterwards), or ask for less"
                .to_owned()
        }
        Some(Errno::MFILE) => "; raise the limit of open files (ulimit -n, LimitNOFILE=)".to_owned(),
        Some(Errno::INVAL) if is_mapped(address) => {
            "; with --v6only an IPv4 address is to be written as one: 127.0.0.1, not \
             ::ffff:127.0.0.1"
                .to_owned()
        }
        _ => String::new(),
    }
}

fn is_mapped(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(operation: &'static str, errno: Errno) -> String {
        ListenError::of(operation, "127.0.0.1:80".parse().unwrap())(errno.into()).to_string()
    }

    /// Newer kernels let everybody do it.
    #[test]
    fn busy_polling_without_the_right_to_it_is_refused_with_what_it_takes() {
        let message = message("set SO_BUSY_POLL for", Errno::PERM);
        assert!(message.starts_with("set SO_BUSY_POLL for 127.0.0.1:80: EPERM: "), "{message}");
        assert!(message.contains("CAP_NET_ADMIN"), "{message}");
    }

    #[test]
    fn a_port_in_use_is_looked_for_by_its_number() {
        assert!(message("listen on", Errno::ADDRINUSE).contains("ss -lntup 'sport = :80'"));
    }
}
