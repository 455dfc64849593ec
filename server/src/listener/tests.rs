//! Against the real kernel, on loopback.
#![allow(unsafe_code)]

mod inherited;
mod steered;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with, sockopt};
use rustix::thread::UnshareFlags;
use socket2::SockRef;
use tune::affinity;

use super::*;
use crate::config::{Keepalive, Mode};

const LOOPBACK: &str = "127.0.0.1:0";

/// How long the kernel may take for what must happen.
const DEADLINE: Duration = Duration::from_secs(30);

fn config(listen: &[&str]) -> Config {
    Config { listen: listen.iter().map(|address| address.parse().unwrap()).collect(), ..Config::default() }
}

fn listening(config: &Config, cpus: &[Cpu]) -> Listeners {
    let listeners = Listeners::bind(config, cpus).unwrap();
    listeners.listen(config.backlog).unwrap();
    listeners
}

fn refused(config: &Config) -> String {
    Listeners::bind(config, &[0]).unwrap_err().to_string()
}

fn accept(listener: &OwnedFd) -> Socket {
    wait_for(listener);
    accept_with(listener, SocketFlags::CLOEXEC).unwrap().into()
}

/// Waits until there is something to accept or receive.
fn wait_for(socket: &OwnedFd) {
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    let timeout = Timespec::try_from(DEADLINE).unwrap();
    assert_eq!(poll(&mut ready, Some(&timeout)).unwrap(), 1, "nothing comes");
}

/// One listener on loopback with these options, and a connection to it: the client's end, the server's end.
fn connection(config: &Config) -> (TcpStream, Socket) {
    let listeners = listening(config, &[0]);
    let client = TcpStream::connect(listeners.addresses()[0]).unwrap();
    let server = accept(&listeners.descriptors().unwrap()[0][0]);
    (client, server)
}

fn two_cpus() -> Option<[Cpu; 2]> {
    let allowed = affinity::allowed().unwrap();
    let mut cpus = allowed.iter();
    let two = cpus.next().zip(cpus.next()).map(|(first, second)| [first, second]);
    if two.is_none() {
        skipped("needs 2 CPUs");
    }
    two
}

fn skipped(why: &str) {
    eprintln!("SKIPPED: {}: {why}", std::thread::current().name().unwrap_or("?"));
}

fn on_cpu<T: Send>(cpu: Cpu, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || {
            affinity::pin(cpu).unwrap();
            work()
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Connects `count` times from `cpu`, and counts what each worker's first listener has got.
fn accepted_of(count: usize, cpu: Cpu, address: SocketAddr, workers: &[&OwnedFd]) -> Vec<usize> {
    let clients: Vec<TcpStream> =
        on_cpu(cpu, || (0..count).map(|_| TcpStream::connect(address).unwrap()).collect());
    let mut accepted = vec![0; workers.len()];
    while accepted.iter().sum::<usize>() < count {
        let mut ready: Vec<_> = workers.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(DEADLINE).unwrap();
        assert!(poll(&mut ready, Some(&timeout)).unwrap() > 0, "{accepted:?} of {count}");
        for (worker, accepted) in workers.iter().zip(&mut accepted) {
            while accept_with(worker, SocketFlags::CLOEXEC).is_ok() {
                *accepted += 1;
            }
        }
    }
    drop(clients);
    accepted
}

/// As [`accepted_of`], for datagrams from as many ports.
fn received_of(count: usize, cpu: Cpu, address: SocketAddr, workers: &[&OwnedFd]) -> Vec<usize> {
    on_cpu(cpu, || {
        for _ in 0..count {
            UdpSocket::bind(LOOPBACK).unwrap().send_to(b"datagram", address).unwrap();
        }
    });
    // On loopback a datagram is in its socket when the send returns.
    let receive = |fd: &OwnedFd| rustix::io::read(fd, &mut [0; 16]).is_ok();
    workers.iter().map(|fd| std::iter::repeat_with(|| receive(fd)).take_while(|&got| got).count()).collect()
}

fn inode(socket: &OwnedFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

#[test]
fn each_worker_has_a_socket_of_its_own_for_each_address() {
    let listeners = listening(&config(&[LOOPBACK, "[::1]:0"]), &[1, 0, 5]);
    let descriptors = listeners.descriptors().unwrap();
    let addresses = listeners.addresses();
    assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6(), "{addresses:?}");
    assert!(addresses.iter().all(|address| address.port() != 0), "{addresses:?}");
    assert_eq!(descriptors.len(), 3);
    let mut inodes = Vec::new();
    for worker in &descriptors {
        let bound = worker.iter().map(|fd| SockRef::from(fd).local_addr().unwrap().as_socket().unwrap());
        assert_eq!(bound.collect::<Vec<_>>(), addresses);
        inodes.extend(worker.iter().map(inode));
    }
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), 6, "three for each address");
}

#[test]
fn shared_is_one_socket_for_all_and_single_one_for_the_first() {
    let of = |accept| {
        let config = Config { accept, ..config(&[LOOPBACK, "[::1]:0"]) };
        let descriptors = listening(&config, &[0, 1, 2]).descriptors().unwrap();
        descriptors.iter().map(|worker| worker.iter().map(inode).collect()).collect::<Vec<Vec<u64>>>()
    };
    let shared = of(AcceptModel::Shared);
    assert!(shared.len() == 3 && shared[0].len() == 2, "{shared:?}");
    assert!(shared.iter().all(|worker| *worker == shared[0]), "{shared:?}");
    let single = of(AcceptModel::Single);
    assert_eq!(single.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 0]);
}

#[test]
fn sockets_live_as_long_as_the_workers_descriptors() {
    let listeners = listening(&config(&[LOOPBACK]), &[0]);
    let (address, descriptors) = (listeners.addresses()[0], listeners.descriptors().unwrap());
    drop(listeners);
    TcpStream::connect(address).unwrap();
    drop(descriptors);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_that_somebody_has_is_refused_whoever_accepts() {
    let other = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let taken = TcpListener::bind(other).unwrap();
    let ours = listening(&config(&[LOOPBACK]), &[0, 1]);
    for address in [taken.local_addr().unwrap(), ours.addresses()[0]] {
        for accept in [AcceptModel::PerCore, AcceptModel::Shared, AcceptModel::Single] {
            let message = refused(&Config { listen: vec![address], accept, ..Config::default() });
            assert!(message.starts_with(&format!("listen on {address}: EADDRINUSE: ")), "{message}");
        }
    }
}

#[test]
fn a_udp_port_that_somebody_has_is_refused_whoever_receives() {
    let udp = Config { udp: true, ..config(&[LOOPBACK]) };
    let taken = UdpSocket::bind(LOOPBACK).unwrap();
    let ours = Listeners::bind(&udp, &[0, 1]).unwrap();
    for address in [taken.local_addr().unwrap(), ours.addresses()[0]] {
        for accept in [AcceptModel::PerCore, AcceptModel::Shared, AcceptModel::Single] {
            let message = refused(&Config { listen: vec![address], accept, ..udp.clone() });
            assert!(message.contains("EADDRINUSE"), "{message}");
        }
    }
}

/// If the kernel chose among all 28 232 ports, two of 500 servers would share one in 98.8 % of all runs.
#[test]
fn a_udp_port_that_the_kernel_chooses_is_nobody_elses() {
    let udp = Config { udp: true, ..config(&[LOOPBACK]) };
    let servers: Vec<Listeners> = (0..500).map(|_| Listeners::bind(&udp, &[0]).unwrap()).collect();
    let ports: std::collections::HashSet<u16> = servers.iter().map(|s| s.addresses()[0].port()).collect();
    assert_eq!(ports.len(), servers.len());
}

#[test]
fn a_port_that_a_server_has_left_is_free_in_spite_of_time_wait() {
    let listeners = listening(&config(&[LOOPBACK]), &[0]);
    let address = listeners.addresses()[0];
    let mut client = TcpStream::connect(address).unwrap();
    drop(accept(&listeners.descriptors().unwrap()[0][0]));
    drop(listeners);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    listening(&Config { listen: vec![address], ..Config::default() }, &[0]);
}

/// A port that is free for IPv4 and IPv6, as far as that can be known.
fn listeners_of_both_wildcards(config: &Config) -> Result<Listeners, ListenError> {
    let mut last = None;
    for _ in 0..20 {
        let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let listen = ["0.0.0.0", "[::]"].map(|ip| format!("{ip}:{port}").parse().unwrap()).to_vec();
        match Listeners::bind(&Config { listen, ..config.clone() }, &[0, 1]) {
            Err(ListenError::Failed { error, .. }) if error.kind() == ErrorKind::AddrInUse => {
                last = Some(error);
            }
            result => return result,
        }
    }
    panic!("20 ports were taken: {last:?}");
}

#[test]
fn both_wildcards_share_a_port_if_v6only_and_each_takes_its_own() {
    for accept_model in [AcceptModel::PerCore, AcceptModel::Shared] {
        let config = Config { v6only: true, accept: accept_model, steer: Steer::Hash, ..Config::default() };
        let listeners = listeners_of_both_wildcards(&config).unwrap();
        listeners.listen(config.backlog).unwrap();
        let descriptors = listeners.descriptors().unwrap();
        let port = listeners.addresses()[0].port();
        for (index, ip) in ["127.0.0.1", "::1"].into_iter().enumerate() {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            let workers: Vec<&OwnedFd> = descriptors.iter().map(|worker| &worker[index]).collect();
            // Each worker's descriptor may be of the same socket: the first takes all.
            let accepted = accepted_of(20, 0, (ip, port).into(), &workers);
            assert_eq!(accepted.iter().sum::<usize>(), 20, "{ip}");
        }
    }
}

#[test]
fn both_wildcards_on_one_port_are_refused_if_not_v6only() {
    let error = listeners_of_both_wildcards(&Config::default()).unwrap_err();
    assert!(matches!(error, ListenError::Overlap { .. }), "{error}");
}

#[test]
fn v6only_is_what_it_is_said_to_be() {
    for v6only in [false, true] {
        let listeners = listening(&Config { v6only, ..config(&["[::]:0"]) }, &[0]);
        let descriptors = listeners.descriptors().unwrap();
        assert_eq!(SockRef::from(&descriptors[0][0]).only_v6().unwrap(), v6only);
        let ipv4 = TcpStream::connect(("127.0.0.1", listeners.addresses()[0].port()));
        assert_eq!(ipv4.is_ok(), !v6only, "{ipv4:?}");
    }
}

#[test]
fn what_goes_wrong_is_said_with_the_address_and_what_to_do() {
    let unknown = refused(&config(&["192.0.2.1:7000"]));
    assert!(unknown.starts_with("listen on 192.0.2.1:7000: EADDRNOTAVAIL: "), "{unknown}");
    assert!(unknown.contains("ip address"), "{unknown}");
    let mapped = refused(&Config { v6only: true, ..config(&["[::ffff:127.0.0.1]:7000"]) });
    assert!(mapped.contains("EINVAL") && mapped.contains("is to be written as one"), "{mapped}");
}
