//! `--zerocopy-threshold`: sends without a copy. Over loopback the kernel copies all the same, and says so.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{Client, DEADLINE, Launch, Server, cpus, skipped, wait_until};

#[test]
fn large_messages_come_back_unchanged() {
    let server = Server::start(&["--zerocopy-threshold", "4096"]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.address)).collect();
    for size in [1, 4095, 4096, 100_000, 200_000] {
        clients.iter_mut().for_each(|client| client.echo(size));
    }
    clients.iter_mut().for_each(Client::finish);
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(8, 8 * (1 + 4095 + 4096 + 100_000 + 200_000));
    assert!(report.total.zerocopy_sends > 0, "{report:?}");
    assert!(report.total.zerocopy_copied <= report.total.zerocopy_sends, "{report:?}");
}

/// The kernel reads from what was sent until the peer has acknowledged it; a reset ends that, too.
#[test]
fn a_peer_that_does_not_read_and_one_that_resets_leave_nothing_behind() {
    let server = Server::start(&["--zerocopy-threshold", "1", "--drain-timeout", "500ms"]);
    for _ in 0..3 {
        let mut slow = Client::connect_narrow(server.address);
        slow.fill(64 << 20);
        let mut reset = Client::connect_narrow(server.address);
        reset.fill(64 << 20);
        reset.reset();
        slow.receive_all();
        slow.finish();
    }
    wait_until("all closed", || server.held() == 0);
    let report = server.stop_when_nothing_is_open();
    assert_eq!(report.total.open, 0);
}

#[test]
fn a_drain_cuts_off_a_peer_that_never_reads() {
    let server = Server::start(&["--zerocopy-threshold", "1", "--drain-timeout", "200ms"]);
    let mut slow = Client::connect_narrow(server.address);
    slow.fill(64 << 20);
    assert_eq!(server.stop().total.open, 1);
}

/// What zero-copy sends pin counts as locked memory of the user. Where the limit leaves none, bytes are
/// copied; nobody is reset.
#[test]
fn without_locked_memory_bytes_are_copied() {
    if !rustix::process::getuid().is_root() {
        return skipped("needs root to start a server as another user");
    }
    let core = cpus::first().to_string();
    let options = ["--zerocopy-threshold", "16384", "--mode", "sink-source", "--request-size", "1"];
    let options = [&options[..], &["--response-size", "2000000", "--cores", &core]].concat();
    // No other test has rings or pages of this user.
    let server = Launch::new(&options).locked_memory(1024).user(54_321).start();
    let mut clients: Vec<TcpStream> =
        (0..16).map(|_| TcpStream::connect(server.address).expect("connect")).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
        client.write_all(b"x").expect("ask");
    }
    // All are owed more than the sockets take before the first reads.
    wait_until("all are blocked", || clients.iter().all(|client| client.peek(&mut [0]).is_ok()));
    for client in &mut clients {
        let mut answer = vec![0; 2_000_000];
        client.read_exact(&mut answer).expect("the whole answer");
        assert!(answer.iter().enumerate().all(|(i, &byte)| usize::from(byte) == i % 251));
    }
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.total.reset, report.total.bytes_out), (0, 32_000_000), "{report:?}");
}
