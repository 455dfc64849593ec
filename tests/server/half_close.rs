//! A client that has said its last word still gets the whole answer.

use std::thread;

use crate::common::{Client, Server};
use crate::echo::MORE_THAN_FITS;

#[test]
fn after_the_end_of_the_clients_stream_the_rest_comes_back_and_then_the_end() {
    let server = Server::start(&[]);
    let (mut reader, mut writer) = Client::connect(server.address).split();
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.send(1 << 20);
            writer.finish();
        });
        reader.receive(1 << 20);
        reader.expect_end();
    });
    drop((reader, writer));
    server.stop_when_nothing_is_open().assert_exactly(1, 1 << 20);
}

#[test]
fn the_end_of_the_stream_behind_full_sockets_cuts_nothing_off() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address);
    let sent = client.fill(MORE_THAN_FITS);
    client.finish();
    client.receive_all();
    client.expect_end();
    drop(client);
    server.stop_when_nothing_is_open().assert_exactly(1, sent);
}

#[test]
fn a_stream_that_ends_at_once_is_ended_at_once() {
    let server = Server::start(&[]);
    for _ in 0..200 {
        let mut client = Client::connect(server.address);
        client.finish();
        client.expect_end();
    }
    server.stop_when_nothing_is_open().assert_exactly(200, 0);
}

/// The end of the stream arrives together with the bytes, in one completion or in two.
#[test]
fn a_short_message_and_the_end_together_are_answered_with_the_message_and_the_end() {
    let server = Server::start(&[]);
    for size in 1..=200 {
        let mut client = Client::connect(server.address);
        client.send(size);
        client.finish();
        client.receive_all();
        client.expect_end();
    }
    server.stop_when_nothing_is_open().assert_exactly(200, 200 * 201 / 2);
}

#[test]
fn a_client_that_connects_and_closes_leaves_nothing_open() {
    let server = Server::start(&[]);
    for _ in 0..1_000 {
        drop(Client::connect(server.address));
    }
    server.stop_when_nothing_is_open().assert_exactly(1_000, 0);
}
