//! A client that does not read harms nobody but itself, and gets all its bytes when it reads again.

use crate::common::client::{CHUNK, fill_all};
use crate::common::pattern::Numbers;
use crate::common::{Client, Server, holds_for_a_while, proc};
use crate::echo::MORE_THAN_FITS;

const MIB_IN_KIB: u64 = 1024;

#[test]
fn a_reader_that_stops_stops_being_read_from_and_later_gets_every_byte() {
    let server = Server::start(&[]);
    let mut stalled = Client::connect(server.address);
    stalled.echo(100_000);
    let before = proc::resident_kib(server.pid());

    let sent = stalled.fill(MORE_THAN_FITS);
    holds_for_a_while("a stalled connection costs no memory", || {
        proc::resident_kib(server.pid()) < before + 32 * MIB_IN_KIB
    });
    server.wait_until_it_sleeps();

    let others = serve_healthy_clients(&server, 10);
    stalled.receive_all();
    stalled.echo(10_000);
    drop(stalled);
    server.stop_when_nothing_is_open().assert_exactly(11, sent + 10_000 + others);
}

#[test]
fn two_hundred_stalled_readers_leave_room_for_a_healthy_client() {
    stall_two_hundred(&Server::start(&[]));
}

/// The stalled connections together have far more bytes than there are buffers: of those that are spliced
/// the pool holds few, of the others all would stay there.
#[test]
fn two_hundred_stalled_readers_leave_buffers_of_a_small_pool_for_a_healthy_client() {
    for without in [&[][..], &["--without", "splice"]] {
        stall_two_hundred(&Server::start(&[&["--buffers", "64", "--buffer-size", "1024"], without].concat()));
    }
}

/// Clients that write a few bytes at a time and do not read: a write must not cost a buffer, nor memory of
/// its own.
#[test]
fn stalled_writers_of_few_bytes_cost_little_memory_and_no_buffers() {
    let server = Server::start(&["--buffers", "64", "--buffer-size", "16384"]);
    let before = proc::resident_kib(server.pid());
    let mut stalled: Vec<Client> = (0..20).map(|_| Client::connect_narrow(server.address)).collect();
    fill_all(&mut stalled, 50, MORE_THAN_FITS);
    serve_healthy_clients(&server, 3);
    let after = proc::peak_resident_kib(server.pid());
    assert!(after < before + 16 * MIB_IN_KIB, "{before} KiB before, {after} KiB with 20 stalled writers");
    stalled.iter_mut().for_each(Client::receive_all);
    drop(stalled);
    let report = server.stop_when_nothing_is_open();
    assert_eq!(report.total.bytes_in, report.total.bytes_out);
    assert!(report.total.blocked > 0 && report.total.bytes_copied > 0, "{report:?}");
}

fn stall_two_hundred(server: &Server) {
    let before = proc::resident_kib(server.pid());
    let mut stalled: Vec<Client> = (0..200).map(|_| Client::connect_narrow(server.address)).collect();
    fill_all(&mut stalled, CHUNK, MORE_THAN_FITS);
    serve_healthy_clients(server, 3);
    let after = proc::peak_resident_kib(server.pid());
    assert!(after < before + 64 * MIB_IN_KIB, "{before} KiB before, {after} KiB with 200 stalled readers");
    for client in &mut stalled {
        client.finish();
        client.receive_all();
        client.expect_end();
    }
    drop(stalled);
    server.wait_until_nothing_is_open();
}

/// Bytes that the healthy clients have sent and received.
fn serve_healthy_clients(server: &Server, count: usize) -> u64 {
    let mut sizes = Numbers::new(count as u64);
    let mut bytes = 0;
    for _ in 0..count {
        let mut client = Client::connect(server.address);
        for _ in 0..20 {
            client.echo(sizes.between(1, 50_000));
        }
        bytes += client.received();
    }
    bytes
}
