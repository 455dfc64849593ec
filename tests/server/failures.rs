//! A worker that can't go on is seen: the others end in good order, and the process says what happened and
//! fails.

use std::fs;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;

use crate::common::client::{CHUNK, fill_all};
use crate::common::{Client, Server, cpus, skipped, wait_until};
use crate::echo::MORE_THAN_FITS;

/// A duplicate of a listening socket of the server; `None` without the right to take it.
fn take_a_listener(server: &Server) -> Option<Socket> {
    let process = pidfd_open(server.process(), PidfdFlags::empty()).expect("open a pidfd of the server");
    let numbers = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("list the server's descriptors");
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|number: i32| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .map(|descriptor: OwnedFd| Socket::from(descriptor))
        .find(|socket| socket.is_listener().unwrap_or(false))
}

#[test]
fn a_listener_that_is_gone_ends_the_server_with_its_error_and_the_clients_in_order() {
    let mut server = Server::start(&["--steer", "hash", "--drain-timeout", "600s"]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1_000));
    // Unless the worker that fails has all of these, the server waits for them.
    let mut busy: Vec<Client> = (0..16).map(|_| Client::connect_narrow(server.address)).collect();
    fill_all(&mut busy, CHUNK, MORE_THAN_FITS);
    let Some(listener) = take_a_listener(&server) else {
        return skipped("needs the right to take another process's descriptors (CAP_SYS_PTRACE)");
    };
    listener.shutdown(Shutdown::Both).unwrap();
    wait_until("the failure is said", || server.stderr().len() == 2);
    let line = &server.stderr()[1];
    assert!(line.starts_with("server: core ") && line.contains("accept: EINVAL"), "{line}");
    if cpus::two().is_some() {
        assert!(server.is_running(), "the other workers still drain");
    }
    for client in busy {
        client.reset();
    }
    let ended = server.wait_for_end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with('{'), "the report of the other workers: {ended:?}");
    // Not by sending: the kernel closes the failed worker's connections a moment after the process has ended.
    clients.iter_mut().for_each(Client::expect_end);
}
