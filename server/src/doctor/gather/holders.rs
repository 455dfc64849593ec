//! Who has a port: sockets of `/proc/net/{tcp,udp}{,6}` (`proc_net_tcp(5)`), and the processes that have them
//! open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tune::kernel_files::KernelFiles;

use crate::doctor::facts::Holder;

/// `TCP_LISTEN` and, of a UDP socket that is not connected, `TCP_CLOSE` (`include/net/tcp_states.h`).
const LISTEN: u8 = 10;
const CLOSE: u8 = 7;

/// A row of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    address: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

/// The sockets that keep `address` from being bound, in this network namespace.
pub(super) fn holders(files: &KernelFiles, address: SocketAddr, udp: bool) -> Vec<Holder> {
    let (tables, state) = if udp { (["udp", "udp6"], CLOSE) } else { (["tcp", "tcp6"], LISTEN) };
    let texts = tables.map(|table| files.read(&format!("/proc/net/{table}")).unwrap_or_default());
    let rows: Vec<Row> = texts
        .iter()
        .flat_map(|text| text.lines().filter_map(row))
        .filter(|row| row.state == state && is_in_the_way(row.address, address))
        .collect();
    let mut processes = processes(files, rows.iter().map(|row| row.inode).collect());
    let holder =
        |row: &Row| Holder { address: row.address, uid: row.uid, process: processes.remove(&row.inode) };
    rows.iter().map(holder).collect()
}

/// The same port, and the same address or one of the two is any.
fn is_in_the_way(theirs: SocketAddr, ours: SocketAddr) -> bool {
    let plain = |address: SocketAddr| address.ip().to_canonical();
    theirs.port() == ours.port()
        && (plain(theirs) == plain(ours) || theirs.ip().is_unspecified() || ours.ip().is_unspecified())
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`
fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(Row {
        address: socket_address(fields.get(1)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1B58`: the address in words of 32 bits, each as this machine stores it, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |digits: &str| Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 if address.is_ascii() => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(&address[index * 8..index * 8 + 8])?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Number and name of a process that has each of these sockets open, as far as this process may look.
fn processes(files: &KernelFiles, mut inodes: Vec<u64>) -> BTreeMap<u64, (u32, String)> {
    let mut found = BTreeMap::new();
    let pids = files.list("/proc").unwrap_or_default();
    for pid in pids.iter().filter_map(|name| name.parse::<u32>().ok()) {
        if inodes.is_empty() {
            break;
        }
        for descriptor in files.list(&format!("/proc/{pid}/fd")).unwrap_or_default() {
            let Some(inode) = files.link_text(&format!("/proc/{pid}/fd/{descriptor}")).and_then(socket_inode)
            else {
                continue;
            };
            if let Some(position) = inodes.iter().position(|wanted| *wanted == inode) {
                inodes.swap_remove(position);
                let name = files.read(&format!("/proc/{pid}/comm")).unwrap_or_else(|_| "?".to_owned());
                found.insert(inode, (pid, name));
            }
        }
    }
    found
}

/// `socket:[12345]`
fn socket_inode(link: impl AsRef<str>) -> Option<u64> {
    link.as_ref().strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        // As printed on a little-endian machine.
        if cfg!(target_endian = "little") {
            assert_eq!(socket_address("0100007F:1B58"), Some("127.0.0.1:7000".parse().unwrap()));
            let text = "00000000000000000000000001000000:0050";
            assert_eq!(socket_address(text), Some("[::1]:80".parse().unwrap()));
        }
        for text in ["", ":", "0100007F", "0100007:1B58", "0100007G:1B58", "0100007F:1B58F", "é100007:1B58"]
        {
            assert_eq!(socket_address(text), None, "{text}");
        }
    }

    #[test]
    fn any_address_is_in_the_way_of_every_other_with_the_same_port() {
        let in_the_way =
            |theirs: &str, ours: &str| is_in_the_way(theirs.parse().unwrap(), ours.parse().unwrap());
        assert!(in_the_way("0.0.0.0:80", "127.0.0.1:80") && in_the_way("127.0.0.1:80", "0.0.0.0:80"));
        assert!(in_the_way("[::]:80", "127.0.0.1:80") && in_the_way("[::ffff:127.0.0.1]:80", "127.0.0.1:80"));
        assert!(!in_the_way("127.0.0.2:80", "127.0.0.1:80") && !in_the_way("127.0.0.1:81", "127.0.0.1:80"));
    }

    #[test]
    fn one_s_own_sockets_are_found() {
        let files = KernelFiles::open("/").unwrap();
        let name = files.read("/proc/self/comm").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        for (address, is_udp) in [(tcp.local_addr().unwrap(), false), (udp.local_addr().unwrap(), true)] {
            let found = holders(&files, address, is_udp);
            let [holder] = &found[..] else { panic!("{found:?}") };
            assert_eq!(holder.address, address);
            assert_eq!(holder.process, Some((std::process::id(), name.clone())));
            assert_eq!(holders(&files, address, !is_udp), [], "the other protocol has its own ports");
        }
    }

    proptest! {
        #[test]
        fn no_table_makes_the_parser_panic(line in "([0-9A-Fa-fé:]{0,40} ){0,12}") {
            let _ = row(&line);
        }
    }
}
