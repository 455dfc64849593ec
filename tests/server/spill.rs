//! `--spill`: what is kept for clients that do not read is bounded. At the bound these are reset, and nobody
//! else notices.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::client::{CHUNK, fill_or_be_reset};
use crate::common::{Client, Launch, Server, cpus, sandbox, skipped};
use crate::echo::MORE_THAN_FITS;

/// So few buffers that most of what clients do not read is in the spill.
const FEW_BUFFERS: [&str; 4] = ["--buffers", "64", "--buffer-size", "1024"];

/// The spill is used in pieces of so many bytes: `SPILL_PIECE` of the server's `spill.rs`.
const PIECE: usize = 16 * 1024;

/// What a client has at least in the spill, or in buffers, before it is read from no more while the spill is
/// not tight: `PAUSE_AT` of the server's `connection.rs`.
const PAUSE_AT: usize = 64 * 1024;

fn connect(server: &Server, count: usize) -> impl Iterator<Item = Client> {
    let address = server.address;
    (0..count).map(move |_| Client::connect_narrow(address))
}

/// A client that has one small message on its way at a time, so that its sends always go at once, is echoed
/// as long as `others` takes. Gives what that gives, and the bytes that were echoed.
fn beside_a_healthy_client<T>(server: &Server, others: impl FnOnce() -> T) -> (T, u64) {
    let mut client = Client::connect(server.address);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let healthy = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                client.echo(1_000);
            }
            client.received()
        });
        let result = others();
        over.store(true, Ordering::Relaxed);
        (result, healthy.join().expect("the healthy client"))
    })
}

#[test]
fn at_its_bound_readers_that_stopped_are_reset_and_nobody_else() {
    const SPILL: usize = 1 << 20;
    const STALLED: usize = 200;
    let (core, spill) = (cpus::first().to_string(), SPILL.to_string());
    // What splicing leaves may be a few bytes in a piece of 16 KiB.
    let options = ["--cores", &core, "--spill", &spill, "--without", "splice"];
    let server = Server::start(&[&options, &FEW_BUFFERS[..]].concat());
    let (stalled, echoed) = beside_a_healthy_client(&server, || {
        fill_or_be_reset(connect(&server, STALLED).collect(), MORE_THAN_FITS)
    });
    assert!(echoed > 0);
    // Each has a piece of the spill, or one of the half of the buffers that may stay taken.
    let (left, most) = (stalled.len(), SPILL / PIECE + 64 / 2);
    assert!((1..=most).contains(&left), "{left} fit into 1 MiB of spill and 32 KiB of pool");
    drop(stalled);
    let total = server.stop_when_nothing_is_open().total;
    // On a busy machine the last of them may have been reset after they were looked at.
    let reset = (STALLED - left) as u64..=STALLED as u64;
    assert!(reset.contains(&total.spill_full) && total.spill_bytes == 0, "{reset:?}: {total:?}");
}

/// Clients that send on and read little by little, for whom together there is not as much room as each may
/// have to itself. They are read from as slowly as they read.
#[test]
fn at_its_bound_slow_readers_get_every_byte_and_none_is_reset() {
    const SPILL: usize = 2 << 20;
    const CLIENTS: usize = 36;
    const EACH: u64 = 768 * 1024;
    const _: () = assert!(CLIENTS * PAUSE_AT > SPILL);
    let (core, spill) = (cpus::first().to_string(), SPILL.to_string());
    // So few and small buffers that what comes before a send has shown that a client is slow is little.
    let server = Server::start(
        &[
            ["--cores", &core, "--spill", &spill].as_slice(),
            &["--without", "splice", "--buffers", "8", "--buffer-size", "256"],
        ]
        .concat(),
    );
    let mut clients = fill_or_be_reset(connect(&server, CLIENTS).collect(), MORE_THAN_FITS);
    assert_eq!(clients.len(), CLIENTS, "none is reset");
    while clients.iter().any(|client| client.sent() < EACH) {
        for client in &mut clients {
            client.receive(4_096.min(client.sent() - client.received()));
            client.send_what_fits(CHUNK).expect("it is not reset");
        }
    }
    clients.iter_mut().for_each(Client::receive_all);
    let sent = clients.iter().map(Client::sent).sum();
    drop(clients);
    let report = server.stop_when_nothing_is_open();
    report.assert_exactly(CLIENTS as u64, sent);
    assert!(report.total.spill_full == 0 && report.total.blocked > 0, "{report:?}");
}

/// With as little address space (RLIMIT_AS) as it starts with, and of that a quarter for the spill.
#[test]
fn no_limit_of_memory_ends_a_server_whose_clients_do_not_read() {
    const MOST: usize = 1_500;
    if !sandbox::allow_descriptors(2 * MOST as u64) {
        return skipped("needs more open files than this process may have");
    }
    let core = cpus::first().to_string();
    let options = [&["--cores", &core, "--max-connections", "2000"], &FEW_BUFFERS[..]].concat();
    let start = |mebibytes: u32| Launch::new(&options).address_space(mebibytes << 10).start_if_it_can();
    let mut server = (40..400).step_by(8).find_map(start).expect("400 MiB are enough");
    let (stalled, echoed) = beside_a_healthy_client(&server, || {
        let mut stalled = Vec::new();
        for asked in (100..=MOST).step_by(100) {
            stalled.extend(connect(&server, 100));
            stalled = fill_or_be_reset(stalled, MORE_THAN_FITS);
            if stalled.len() < asked {
                return stalled;
            }
        }
        panic!("{MOST} clients that do not read are none too many");
    });
    assert!(echoed > 0 && server.is_running());
    drop(stalled);
    let total = server.stop_when_nothing_is_open().total;
    assert!(total.spill_full > 0 && total.spill_bytes == 0, "{total:?}");
}
