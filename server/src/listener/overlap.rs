//! Whether two addresses would get the same connections. Pure.
//!
//! The kernel would not say so: the sockets of one user share a port when all have `SO_REUSEPORT`, and it
//! prefers IPv4 sockets for IPv4 connections.

use std::net::SocketAddr;

use super::ListenError;

/// Refuses an IPv6 wildcard that takes IPv4 connections, too, beside an IPv4 address with the same port. An
/// IPv4 wildcard beside an address of this host is no mistake: the address has connections of its own.
pub(super) fn check(addresses: &[SocketAddr], v6only: bool) -> Result<(), ListenError> {
    let dual = |address: &&SocketAddr| !v6only && address.is_ipv6() && address.ip().is_unspecified();
    for &wide in addresses.iter().filter(dual) {
        let clash =
            addresses.iter().find(|other| other.is_ipv4() && other.port() == wide.port() && wide.port() != 0);
        if let Some(&narrow) = clash {
            return Err(ListenError::Overlap { wide, narrow });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(addresses: &[&str], v6only: bool) -> bool {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        check(&addresses, v6only).is_err()
    }

    #[test]
    fn an_ipv6_wildcard_beside_ipv4_needs_v6only() {
        for narrow in ["0.0.0.0:80", "127.0.0.1:80"] {
            assert!(is_refused(&[narrow, "[::]:80"], false), "{narrow}");
            assert!(is_refused(&["[::]:80", narrow], false), "{narrow}");
            assert!(!is_refused(&["[::]:80", narrow], true), "{narrow}");
        }
    }

    #[test]
    fn other_ports_and_other_addresses_do_not_overlap() {
        assert!(!is_refused(&["[::]:80", "0.0.0.0:81"], false));
        assert!(!is_refused(&["[::]:0", "0.0.0.0:0"], false), "the kernel chooses different ports");
        assert!(!is_refused(&["[::1]:80", "0.0.0.0:80"], false));
        assert!(!is_refused(&["0.0.0.0:80", "127.0.0.1:80"], false));
    }

    #[test]
    fn the_message_names_both_and_says_what_to_do() {
        let addresses = ["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()];
        let message = check(&addresses, false).unwrap_err().to_string();
        assert_eq!(
            message,
            "--listen [::]:80 takes IPv4 connections, too, and so those of --listen 0.0.0.0:80; give \
             --v6only, or leave out 0.0.0.0:80"
        );
    }
}
