//! Every byte comes back, once and in order.

use std::thread;

use crate::common::pattern::Numbers;
use crate::common::{Client, Launch, Server, skipped};

const MIB: u64 = 1 << 20;

/// More than any socket buffers hold (`net.ipv4.tcp_rmem`, `tcp_wmem`): a connection is full before.
pub(crate) const MORE_THAN_FITS: u64 = 256 * MIB;

#[test]
fn messages_of_1_byte_to_512_kib_come_back_exactly() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address);
    for power in 0..19 {
        for size in [(1_usize << power) - 1, 1 << power, (1 << power) + 1] {
            client.echo(size);
        }
    }
    client.echo(512 * 1024);
    let bytes = client.sent();
    drop(client);
    server.stop_when_nothing_is_open().assert_exactly(1, bytes);
}

#[test]
fn a_stream_of_64_mib_written_and_read_independently_comes_back_exactly() {
    let server = Server::start(&[]);
    let (mut reader, mut writer) = Client::connect(server.address).split();
    thread::scope(|scope| {
        scope.spawn(|| writer.send(64 << 20));
        reader.receive(64 * MIB);
    });
    drop((reader, writer));
    server.stop_when_nothing_is_open().assert_exactly(1, 64 * MIB);
}

/// Nothing is read until the server's own socket has taken all it can, so that it meets partial sends.
#[test]
fn pipelined_messages_of_random_sizes_survive_full_sockets() {
    let server = Server::start(&[]);
    let address = server.address;
    let sent = thread::scope(|scope| {
        let connections: Vec<_> = (0..4)
            .map(|seed| scope.spawn(move || pipeline_random_messages(Client::connect(address), seed)))
            .collect();
        connections.into_iter().map(|c| c.join().expect("a client")).sum()
    });
    server.stop_when_nothing_is_open().assert_exactly(4, sent);
}

fn pipeline_random_messages(mut client: Client, seed: u64) -> u64 {
    client.fill(MORE_THAN_FITS);
    let mut sizes = Numbers::new(seed);
    let messages: Vec<usize> = (0..40).map(|_| sizes.between(1, 512 * 1024)).collect();
    let total = client.sent() + messages.iter().sum::<usize>() as u64;
    let (mut reader, mut writer) = client.split();
    thread::scope(|scope| {
        scope.spawn(|| messages.iter().for_each(|&size| writer.send(size)));
        while reader.received() < total {
            let some = sizes.between(1, 200_000) as u64;
            reader.receive(some.min(total - reader.received()));
        }
    });
    total
}

#[test]
fn ipv6_is_served_like_ipv4() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skipped("no IPv6 loopback here");
    }
    let server = Launch::new(&[]).listen("[::1]:0").start();
    let mut client = Client::connect(server.address);
    client.echo(100_000);
    drop(client);
    let report = server.stop();
    assert_eq!(report.total.bytes_out, 100_000);
}
