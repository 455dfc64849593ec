//! What does not leave the host in a capture: processes, hardware addresses, routes but the default ones,
//! gateways, keys. Pure.

use crate::kernel_files::{Node, Tree};

/// 192.0.2.1 of RFC 5737 as `/proc/net/route` has it.
const SOME_GATEWAY: &str = "010200C0";
/// An address of 2001:db8::/32, RFC 3849.
const SOME_GATEWAY_V6: &str = "20010db8000000000000000000000001";

/// The tree without it.
pub(super) fn without_private(tree: Tree) -> Tree {
    let keep = |(path, node): (String, Node)| {
        let name = path.rsplit('/').next().unwrap_or_default();
        if is_of_process(&path) {
            return None;
        }
        let node = match node {
            Node::File { .. } if matches!(name, "address" | "permaddr" | "broadcast") || is_secret(name) => {
                return None;
            }
            Node::File { mode, text } if path == "/proc/net/route" => {
                Node::File { mode, text: default_routes(&text, is_default, 2, SOME_GATEWAY) }
            }
            Node::File { mode, text } if path == "/proc/net/ipv6_route" => {
                Node::File { mode, text: default_routes(&text, is_default_v6, 4, SOME_GATEWAY_V6) }
            }
            node => node,
        };
        Some((path, node))
    };
    tree.into_iter().filter_map(keep).collect()
}

/// What was looked at to find processes and what they listen at: of them only those that poll for the network
/// and irqbalance matter, and they are in `corelocal/`.
fn is_of_process(path: &str) -> bool {
    let first = path.strip_prefix("/proc/").and_then(|below| below.split('/').next()).unwrap_or_default();
    let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    is_number || matches!(first, "self" | "thread-self") || path == "/run" || path.starts_with("/run/")
}

/// True for a sysctl or file that holds a key.
pub(super) fn is_secret(name: &str) -> bool {
    name.ends_with("_key") || name.contains("secret")
}

fn is_default(fields: &[&str]) -> bool {
    fields.first() == Some(&"Iface") || fields.get(1) == Some(&"00000000")
}

fn is_default_v6(fields: &[&str]) -> bool {
    fields.first().is_some_and(|field| field.bytes().all(|digit| digit == b'0'))
        && fields.get(1) == Some(&"00")
}

/// The lines for which `keep` holds, with another gateway in the field of this number.
fn default_routes(text: &[u8], keep: fn(&[&str]) -> bool, gateway: usize, other: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut kept = String::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !keep(&fields) {
            continue;
        }
        let is_head = fields.first() == Some(&"Iface");
        let fields = fields.iter().enumerate().map(|(at, field)| {
            // No gateway stays none: the route is of the link itself.
            let is_gateway = at == gateway && !is_head && field.bytes().any(|digit| digit != b'0');
            if is_gateway { other } else { field }
        });
        kept.push_str(&fields.collect::<Vec<_>>().join("\t"));
        kept.push('\n');
    }
    kept.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_to_find_processes_stays_behind() {
        for (path, stays) in [
            ("/proc/812/comm", true),
            ("/proc/812", true),
            ("/proc/thread-self/net/unix", true),
            ("/run/irqbalance", true),
            ("/proc/irq/40/node", false),
            ("/proc/interrupts", false),
            ("/proc", false),
            ("/sys/class/net/run", false),
        ] {
            let tree = Tree::from([(path.to_owned(), Node::Directory)]);
            assert_eq!(without_private(tree).is_empty(), stays, "{path}");
        }
    }

    fn file(text: &str) -> Node {
        Node::File { mode: 0o644, text: text.as_bytes().to_vec() }
    }

    #[test]
    fn of_the_routes_only_the_default_ones_stay_and_their_gateways_do_not() {
        let v4 = "Iface\tDestination\tGateway \tFlags\n\
                  eth0\t00000000\t0101A8C0\t0003\n\
                  tun0\t00000000\t00000000\t0001\n\
                  eth0\t0001A8C0\t00000000\t0001\n";
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fe80000000000000021122fffe334455 0400 1 0 3 eth0\n\
                  fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 0100 1 0 1 eth0\n";
        let tree = Tree::from([
            ("/proc/net/route".to_owned(), file(v4)),
            ("/proc/net/ipv6_route".to_owned(), file(v6)),
            ("/sys/devices/virtual/net/veth0/address".to_owned(), file("02:00:00:00:00:01\n")),
            ("/proc/sys/net/ipv4/tcp_fastopen_key".to_owned(), file("0-1-2-3\n")),
            ("/proc/sys/net/core/somaxconn".to_owned(), file("4096\n")),
            ("/proc/4711/comm".to_owned(), file("somebody\n")),
        ]);
        let expected = Tree::from([
            (
                "/proc/net/route".to_owned(),
                file(
                    "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t010200C0\t0003\n\
                     tun0\t00000000\t00000000\t0001\n",
                ),
            ),
            (
                "/proc/net/ipv6_route".to_owned(),
                file(
                    "00000000000000000000000000000000\t00\t00000000000000000000000000000000\t00\t\
                     20010db8000000000000000000000001\t0400\t1\t0\t3\teth0\n",
                ),
            ),
            ("/proc/sys/net/core/somaxconn".to_owned(), file("4096\n")),
        ]);
        assert_eq!(without_private(tree), expected);
    }
}
