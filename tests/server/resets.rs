//! A connection that is reset is gone, and nothing else is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::client::{CHUNK, fill_all};
use crate::common::{Client, Server, proc, wait_until};
use crate::echo::MORE_THAN_FITS;

/// What must be true after any storm: a new client is served, nothing is open, no descriptor is left over,
/// and the log is as short as before.
///
/// A reset from another CPU may overtake the handshake's last ACK: then there never was a connection, and the
/// kernel counts a drop at the listener (`tcp_check_req()`, `tcp_v4_rcv()`).
fn assert_unharmed(server: Server, descriptors: usize, accepted: u64) {
    let mut client = Client::connect(server.address);
    client.echo(100_000);
    drop(client);
    server.wait_until_nothing_is_open();
    wait_until("as many descriptors as at the start", || {
        proc::descriptors(server.pid()).len() <= descriptors
    });
    assert_eq!(server.stderr().len(), 1, "resets are not errors: {:?}", server.stderr());
    let report = server.stop();
    report.assert_sums();
    let total = &report.total;
    let least = (accepted + 1).saturating_sub(total.listen_drops);
    assert!((least..=accepted + 1).contains(&total.accepted), "accepted: {report:?}");
    assert_eq!(total.open, 0, "{report:?}");
}

#[test]
fn a_reset_in_the_middle_of_a_message_ends_that_connection_only() {
    let server = Server::start(&[]);
    let descriptors = proc::descriptors(server.pid()).len();
    let mut neighbour = Client::connect(server.address);
    for size in [1, 1_000, 100_000, 1_000_000] {
        let mut client = Client::connect(server.address);
        client.send(size);
        client.receive(1);
        client.reset();
        neighbour.echo(10_000);
    }
    drop(neighbour);
    assert_unharmed(server, descriptors, 5);
}

/// The reset meets a send that waits for room.
#[test]
fn a_reset_while_the_server_waits_to_send_frees_the_connection() {
    let server = Server::start(&[]);
    let descriptors = proc::descriptors(server.pid()).len();
    for _ in 0..3 {
        let mut client = Client::connect(server.address);
        client.fill(MORE_THAN_FITS);
        client.reset();
    }
    assert_unharmed(server, descriptors, 3);
}

/// What stalled connections have taken from the pool is given back when they are reset.
#[test]
fn buffers_of_reset_connections_come_back() {
    let server = Server::start(&["--buffers", "16", "--buffer-size", "1024"]);
    let descriptors = proc::descriptors(server.pid()).len();
    for _ in 0..3 {
        let mut stalled: Vec<Client> = (0..50).map(|_| Client::connect_narrow(server.address)).collect();
        fill_all(&mut stalled, CHUNK, MORE_THAN_FITS);
        stalled.into_iter().for_each(Client::reset);
    }
    assert_unharmed(server, descriptors, 150);
}

/// A close with unread bytes is a reset that the client's kernel sends by itself (RFC 2525, 2.17).
#[test]
fn a_close_with_unread_bytes_frees_the_connection() {
    let server = Server::start(&[]);
    let descriptors = proc::descriptors(server.pid()).len();
    for _ in 0..100 {
        let mut client = Client::connect(server.address);
        client.send(50_000);
        client.receive(1);
        drop(client);
    }
    assert_unharmed(server, descriptors, 100);
}

#[test]
fn a_thousand_connections_reset_at_once_leave_nothing_behind() {
    let server = Server::start(&[]);
    let descriptors = proc::descriptors(server.pid()).len();
    for _ in 0..1_000 {
        Client::connect(server.address).reset();
    }
    assert_unharmed(server, descriptors, 1_000);
}

#[test]
fn storms_of_resets_do_not_touch_a_healthy_client() {
    let server = Server::start(&[]);
    let descriptors = proc::descriptors(server.pid()).len();
    let address = server.address;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let healthy = scope.spawn(|| {
            let mut client = Client::connect(address);
            while !over.load(Ordering::Relaxed) {
                client.echo(3_000);
            }
        });
        let storms: Vec<_> = (0..3).map(|storm| scope.spawn(move || reset_often(address, storm))).collect();
        storms.into_iter().for_each(|storm| storm.join().expect("a storm"));
        over.store(true, Ordering::Relaxed);
        healthy.join().expect("the healthy client");
    });
    assert_unharmed(server, descriptors, 1 + 3 * 300);
}

fn reset_often(address: SocketAddr, storm: usize) {
    for round in 0..300 {
        let mut client = Client::connect(address);
        match (round + storm) % 4 {
            0 => client.send(1),
            1 => client.echo(2_000),
            2 => client.send(200_000),
            _ => client.finish(),
        }
        client.reset();
    }
}
