//! Messages larger than a buffer go back by `splice(2)`, through descriptors beside the direct ones.

use std::thread;

use crate::common::pattern::Numbers;
use crate::common::{Client, Server, proc, wait_until};
use crate::echo::MORE_THAN_FITS;

/// More than a buffer, and less than the sockets' own buffers hold.
const LARGE: usize = 100_000;

/// The next large message is spliced: the first was received into the pool.
fn spliced(client: &mut Client) {
    client.echo(LARGE);
    client.echo(LARGE);
}

fn descriptors(server: &Server) -> usize {
    proc::descriptors(server.pid()).len()
}

#[test]
fn a_spliced_connection_has_a_descriptor_of_the_process_until_it_is_closed() {
    let server = Server::start(&[]);
    let before = descriptors(&server);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1000));
    let small = descriptors(&server);
    clients.iter_mut().for_each(spliced);
    assert_eq!(descriptors(&server), before + 5);
    clients.iter_mut().for_each(|client| client.echo(10));
    let end = clients.pop().expect("one of five");
    end.reset();
    clients.iter_mut().for_each(|client| {
        client.finish();
        client.expect_end();
    });
    wait_until("the descriptors closed", || descriptors(&server) == before);
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(5, 5 * (1000 + 2 * LARGE as u64 + 10));
    assert!(report.features.splice);
    // Of the second message, and of the end of the first as much as was not received by then.
    assert!(report.total.bytes_spliced >= 5 * LARGE as u64 / 2, "{report:?}");
    assert_eq!((report.total.splice_refused, report.total.reset), (0, 1));
    let plain = if report.features.direct_descriptors { 0 } else { 5 };
    assert_eq!(small, before + plain, "small messages need none");
}

#[test]
fn messages_of_every_size_come_back_in_order_to_peers_that_read_slowly() {
    let server = Server::start(&[]);
    let address = server.address;
    let sent: u64 = thread::scope(|scope| {
        let exchange = |seed| {
            let mut numbers = Numbers::new(seed);
            let sizes: Vec<usize> =
                (0..60).map(|i| numbers.between(1, [20, 20_000, 600_000][i % 3])).collect();
            let mut client = Client::connect(address);
            // The others may be so fast that no socket is ever full.
            let filled = if seed == 0 { client.fill(MORE_THAN_FITS) } else { 0 };
            let total = filled + sizes.iter().sum::<usize>() as u64;
            let (mut reader, mut writer) = client.split();
            thread::scope(|scope| {
                scope.spawn(move || sizes.iter().for_each(|&size| writer.send(size)));
                // In pieces: the socket is full again and again.
                let mut left = total;
                while left > 0 {
                    let count = left.min(numbers.between(1, 300_000) as u64);
                    reader.receive(count);
                    left -= count;
                }
            });
            total
        };
        let clients: Vec<_> = (0..8).map(|seed| scope.spawn(move || exchange(seed))).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(8, sent);
    assert!(report.total.blocked > 0 && report.total.bytes_copied > 0, "{report:?}");
}

#[test]
fn a_spliced_peer_that_stops_reading_is_not_read_from_and_later_gets_every_byte() {
    let server = Server::start(&[]);
    let mut stalled = Client::connect(server.address);
    spliced(&mut stalled);
    let sent = stalled.fill(MORE_THAN_FITS);
    let mut other = Client::connect(server.address);
    spliced(&mut other);
    stalled.receive_all();
    drop((stalled, other));
    server.stop_when_nothing_is_open().assert_exactly(2, sent + 2 * LARGE as u64);
}

/// The server copies then.
#[test]
fn without_descriptors_to_spare_large_messages_come_back_all_the_same() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(10));
    let before = descriptors(&server);
    server.limit_descriptors(before as u64 + 8);
    clients.iter_mut().for_each(spliced);
    clients.iter_mut().for_each(spliced);
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(20, 20 * (10 + 4 * LARGE as u64));
    if report.features.direct_descriptors {
        assert!((1..20).contains(&report.total.splice_refused), "{report:?}");
    }
}

/// The byte itself is left out, as `tcp(7)` says; those around it come back in order.
#[test]
fn urgent_data_in_a_large_message_holds_nothing_up() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address);
    spliced(&mut client);
    for _ in 0..10 {
        client.send(LARGE / 2);
        client.send_urgent();
        client.send(LARGE / 2);
        client.receive_all();
    }
    let sent = client.sent();
    drop(client);
    server.stop_when_nothing_is_open().assert_exactly(1, sent);
}

#[test]
fn a_server_that_does_without_copies() {
    let server = Server::start(&["--without", "splice"]);
    let before = descriptors(&server);
    let mut client = Client::connect(server.address);
    spliced(&mut client);
    let after = descriptors(&server);
    drop(client);
    let report = server.stop_when_nothing_is_open();
    assert!(!report.features.splice && report.total.bytes_spliced == 0, "{report:?}");
    assert_eq!(after, before + usize::from(!report.features.direct_descriptors));
    report.assert_exactly(1, 2 * LARGE as u64);
}
