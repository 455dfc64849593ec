//! Where the server listens: IPv6, both families on one socket, and steering on each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::common::{Client, Launch, cpus, skipped};

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        skipped("needs IPv6");
    }
    has
}

/// Without --v6only one socket takes both, and steers both.
#[test]
fn the_ipv6_wildcard_serves_ipv4_and_ipv6_on_the_core_of_the_client() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    if !has_ipv6() {
        return;
    }
    let server = Launch::new(&["--cores", &format!("{second},{first}")]).listen("[::]:0").start();
    let port = server.address.port();
    for (cpu, count) in [(first, 20), (second, 30)] {
        cpus::on_cpu(cpu, || {
            for ip in LOOPBACKS {
                (0..count).for_each(|_| Client::connect(SocketAddr::from((ip, port))).echo(1_000));
            }
        });
    }
    // /proc/net/tcp has no IPv6 sockets to wait for; a server that drains has seen all that its clients did.
    let report = server.stop();
    assert_eq!((report.core(first).accepted, report.core(second).accepted), (40, 60), "{report:?}");
    assert_eq!(report.total.accept_local, Some(1.0), "{report:?}");
    report.assert_exactly(100, 100_000);
}

/// Each has its own listeners on all cores, and ports that are said in the order in which they were asked
/// for.
#[test]
fn two_addresses_of_two_families_are_served_side_by_side() {
    if !has_ipv6() {
        return;
    }
    let server = Launch::new(&["--listen", "[::1]:0"]).listen("127.0.0.1:0").start();
    let second = server.ready.split(", ").nth(1).expect("a second address");
    let second: SocketAddr = second.parse().unwrap_or_else(|error| panic!("{error}: {}", server.ready));
    assert!(second.is_ipv6() && second.port() != 0, "{}", server.ready);
    let connect = |index: usize| Client::connect([server.address, second][index % 2]);
    let mut clients: Vec<Client> = (0..100).map(connect).collect();
    clients.iter_mut().for_each(|client| client.send(1_000));
    clients.iter_mut().for_each(Client::receive_all);
    drop(clients);
    server.stop().assert_exactly(100, 100_000);
}

#[test]
fn the_port_that_was_chosen_is_said() {
    let server = Launch::new(&[]).listen("127.0.0.1:0").start();
    assert_ne!(server.address.port(), 0, "{}", server.ready);
    Client::connect(server.address).echo(1);
}
