//! A worker that can't go on is seen: the others end in good order, and the process says what happened and fails.

use std::fs;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;

use crate::common::{Client, Server, skipped};

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

/// Hazard 16.
#[test]
fn a_listener_that_is_gone_ends_the_server_with_its_error_and_the_clients_in_order() {
    let server = Server::start(&["--steer", "hash"]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1_000));
    let Some(listener) = take_a_listener(&server) else {
        return skipped("needs the right to take another process's descriptors (CAP_SYS_PTRACE)");
    };
    listener.shutdown(Shutdown::Both).unwrap();
    let ended = server.wait_for_end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let line = ended.stderr.last().unwrap();
    assert!(line.starts_with("server: core ") && line.contains("accept: EINVAL"), "{line}");
    assert!(clients.iter_mut().all(|client| !client.echo_or_end(1)), "the end of every stream");
}
