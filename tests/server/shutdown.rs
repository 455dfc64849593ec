//! SIGTERM and SIGINT: stop accepting, finish what is in flight, report, exit 0.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Client, Launch, Server, cpus, holds_for_a_while, proc, sockets, wait_until};
use crate::echo::MORE_THAN_FITS;

/// A drain timeout that no test wants to wait for.
const LONG: &[&str] = &["--drain-timeout", "600s"];

/// What a busy machine may add to a time that the server keeps.
const MARGIN: Duration = Duration::from_secs(20);

#[test]
fn both_signals_end_an_idle_server_with_exit_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(LONG);
        server.signal(signal);
        server.wait_for_end().report().assert_exactly(0, 0);
    }
}

/// The terminal that it was started in is gone.
#[test]
fn a_hangup_is_as_any_of_them() {
    let server = Server::start(LONG);
    let mut client = Client::connect(server.address);
    client.echo(1_000);
    server.signal(Signal::HUP);
    client.expect_end();
    server.wait_for_end().report().assert_exactly(1, 1_000);
}

#[test]
fn a_hangup_is_ignored_by_a_server_that_was_started_so() {
    let mut server = Launch::new(LONG).hangup_ignored().start();
    server.signal(Signal::HUP);
    let mut client = Client::connect(server.address);
    holds_for_a_while("it serves", || {
        client.echo(10);
        server.is_running()
    });
    drop(client);
    server.stop_when_nothing_is_open();
}

/// A process inherits the blocked signals of who starts it.
#[test]
fn both_signals_end_a_server_that_was_started_with_them_blocked() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Launch::new(LONG).signals_blocked().start();
        server.signal(signal);
        server.wait_for_end().report().assert_exactly(0, 0);
    }
}

/// The clients see the end of the stream, not a reset.
#[test]
fn idle_connections_are_ended_at_once_and_in_order() {
    let server = Server::start(LONG);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1_000));
    let report = server.stop();
    clients.iter_mut().for_each(Client::expect_end);
    let total = &report.total;
    assert_eq!((total.accepted, total.bytes_out, total.cut_off), (50, 50_000, 0));
}

/// An idle connection ends while another still drains, not only with the process.
#[test]
fn idle_connections_are_ended_while_another_still_drains() {
    let server = Server::start(LONG);
    let mut idle = Client::connect(server.address);
    idle.echo(1_000);
    let mut busy = Client::connect(server.address);
    busy.fill_the_server(MORE_THAN_FITS);
    server.signal(Signal::TERM);
    idle.expect_end();
    busy.receive_all();
    busy.expect_end();
    server.wait_for_end().report();
}

/// What the client has sent before the signal comes back, however slowly it reads.
#[test]
fn bytes_in_flight_are_delivered_before_the_end() {
    let server = Server::start(LONG);
    let mut client = Client::connect(server.address);
    let sent = client.fill_the_server(MORE_THAN_FITS);
    server.signal(Signal::TERM);
    wait_until_refused(&server);
    client.receive_all();
    client.expect_end();
    assert_all_sent_back(server, sent);
}

/// Connections that [`wait_until_refused`] has made may be counted, but sent nothing.
fn assert_all_sent_back(server: Server, bytes: u64) {
    let report = server.wait_for_end().report();
    report.assert_sums();
    let total = &report.total;
    assert_eq!((total.open, total.bytes_in, total.bytes_out), (0, bytes, bytes), "{report:?}");
}

/// The signal and the bytes reach the server in the same moment; it takes longer to answer all than a
/// connection may be quiet.
#[test]
fn requests_that_arrive_together_with_the_signal_are_answered() {
    const CLIENTS: u64 = 1_500;
    let server = Server::start(LONG);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    server.freeze();
    server.signal(Signal::TERM);
    clients.iter_mut().for_each(|client| client.send(20_000));
    server.thaw();
    for client in &mut clients {
        client.receive_all();
        client.expect_end();
    }
    server.wait_for_end().report().assert_exactly(CLIENTS, CLIENTS * 20_100);
}

/// The server has sent everything and its FIN, the client has not got it all yet, and one more byte of it is
/// under way: closing now would make the kernel throw away what is still to be delivered.
#[test]
fn what_the_client_has_not_got_yet_survives_a_byte_that_crosses_the_fin() {
    let server = Server::start(LONG);
    let port = server.address.port();
    let mut client = Client::connect_narrow(server.address);
    // Until the client has room for no more, and the server's socket has.
    while !is_full(port) {
        client.send(1_000);
    }
    let sent = client.sent();
    server.signal(Signal::TERM);
    wait_until("the server's FIN is queued", || sockets::ended_unacknowledged(port) == 1);
    client.send(1);
    holds_for_a_while("the socket is kept", || sockets::ended_unacknowledged(port) == 1);
    client.receive(sent);
    client.expect_end();
    server.wait_for_end().report().assert_exactly(1, sent);
}

/// Whether the client has no room for what the server sent; false as soon as it has acknowledged everything.
fn is_full(port: u16) -> bool {
    let mut full = false;
    wait_until("all is acknowledged, or there is no room for it", || {
        full = sockets::without_room(port);
        full || sockets::unacknowledged(port) == 0
    });
    full
}

/// The end of the client's stream comes while the server drains.
#[test]
fn a_client_that_ends_its_stream_while_the_server_drains_gets_everything() {
    let server = Server::start(LONG);
    let mut client = Client::connect(server.address);
    let sent = client.fill_the_server(MORE_THAN_FITS);
    server.signal(Signal::TERM);
    wait_until_refused(&server);
    client.finish();
    client.receive_all();
    client.expect_end();
    assert_all_sent_back(server, sent);
}

/// Clients that each send the next message as soon as they have the answer to the last never see a reset, and
/// nobody's answer is cut off: they go on until the server sends its FIN.
#[test]
fn two_thousand_busy_clients_see_the_end_of_the_stream_and_no_reset() {
    const THREADS: usize = 8;
    let server = Server::start(&["--drain-timeout", "2s"]);
    let address = server.address;
    let mut clients: Vec<Client> = (0..2_000).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    let received: u64 = thread::scope(|scope| {
        let mut threads = Vec::new();
        while !clients.is_empty() {
            let mut mine = clients.split_off(clients.len() - 2_000 / THREADS);
            threads.push(scope.spawn(move || {
                let mut received = 0;
                while let Some(mut client) = mine.pop() {
                    if client.echo_or_end(100) {
                        mine.insert(0, client);
                    } else {
                        received += client.received();
                    }
                }
                received
            }));
        }
        wait_until("the clients are busy", || proc::cpu_time(server.pid()) > Duration::from_millis(300));
        server.signal(Signal::TERM);
        threads.into_iter().map(|thread| thread.join().expect("no client sees a reset")).sum()
    });
    let report = server.wait_for_end().report();
    report.assert_sums();
    let total = &report.total;
    assert_eq!((total.accepted, total.bytes_in, total.bytes_out), (2_000, received, received));
}

/// Those who wait to be accepted at the limit are still served after the signal, as others leave.
#[test]
fn clients_in_the_accept_queue_are_served_before_the_end() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--max-connections", "2", "--cores", &core, "--drain-timeout", "600s"]);
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.send(100));
    wait_until("two accepted, ten waiting", || (server.held(), server.waiting()) == (2, 10));
    server.signal(Signal::TERM);
    for client in &mut clients {
        client.receive_all();
        client.expect_end();
    }
    server.wait_for_end().report().assert_exactly(12, 1_200);
}

/// They never go quiet: the drain timeout ends them, in order and behind the last byte that was received. The
/// server leaves them a second for what is queued; a narrow connection has little, so that most machines'
/// clients read it. Who takes longer is cut off, and counted.
#[test]
fn transfers_that_run_through_the_signal_lose_and_invent_nothing() {
    let server = Server::start(&["--drain-timeout", "500ms"]);
    let address = server.address;
    thread::scope(|scope| {
        let transfers: Vec<_> =
            (0..4).map(|_| scope.spawn(move || transfer_until_the_end(address))).collect();
        wait_until("the transfers run", || server.held() == 4);
        server.signal(Signal::TERM);
        transfers.into_iter().for_each(|transfer| transfer.join().expect("a transfer"));
    });
    let ended = server.wait_for_end();
    assert!(ended.took < Duration::from_millis(500) + MARGIN, "it waited for {:?}", ended.took);
    let report = ended.report();
    report.assert_sums();
    let total = &report.total;
    let (arrived, sent) = (total.bytes_in, total.bytes_out);
    assert!(sent == arrived || sent < arrived && total.cut_off > 0, "{total:?}");
}

#[test]
fn a_signal_in_a_storm_of_connections_ends_the_server_in_good_order() {
    for _ in 0..5 {
        let server = Server::start(&["--drain-timeout", "1s", "--max-connections", "16"]);
        let address = server.address;
        thread::scope(|scope| {
            for size in [1, 1_000, 60_000] {
                scope.spawn(move || while connect_and_exchange(address, size).is_ok() {});
            }
            wait_until("the storm blows", || proc::cpu_time(server.pid()) > Duration::from_millis(50));
            server.signal(Signal::TERM);
        });
        server.wait_for_end().report().assert_sums();
    }
}

/// One connection of a client that minds neither a refusal nor a reset; what it receives is right.
fn connect_and_exchange(address: SocketAddr, size: usize) -> std::io::Result<()> {
    let mut client = Client::try_connect(address)?;
    client.try_send(size)?;
    client.try_finish()?;
    client.wait_for_end();
    Ok(())
}

/// Sends and reads until the server ends the stream, in order. Every byte until then is checked.
fn transfer_until_the_end(address: SocketAddr) {
    let (mut reader, mut writer) = Client::connect_narrow(address).split();
    thread::scope(|scope| {
        scope.spawn(move || while writer.try_send(10_000).is_ok() {});
        reader.receive_until_the_end();
        reader.finish_reading();
    });
}

#[test]
fn a_peer_that_never_reads_is_waited_for_no_longer_than_the_drain_timeout() {
    let server = Server::start(&["--drain-timeout", "1s"]);
    let mut client = Client::connect(server.address);
    client.fill(MORE_THAN_FITS);
    let ended = server.terminate();
    assert!(ended.took >= Duration::from_millis(900), "it did not wait: {:?}", ended.took);
    assert!(ended.took < Duration::from_secs(1) + MARGIN, "it waited for {:?}", ended.took);
    let report = ended.report();
    report.assert_sums();
    let total = &report.total;
    assert_eq!((total.accepted, total.open, total.cut_off), (1, 1, 1), "cut off by the timeout");
}

#[test]
fn a_drain_timeout_of_0_cuts_everything_off_at_once() {
    let server = Server::start(&["--drain-timeout", "0s"]);
    let mut client = Client::connect(server.address);
    client.fill(MORE_THAN_FITS);
    let ended = server.terminate();
    assert!(ended.took < MARGIN, "it waited for {:?}", ended.took);
    ended.report();
}

#[test]
fn a_second_signal_ends_the_wait() {
    let mut server = Server::start(LONG);
    let mut client = Client::connect(server.address);
    client.fill(MORE_THAN_FITS);
    server.signal(Signal::TERM);
    wait_until_refused(&server);
    assert!(server.is_running(), "it drains");
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert!(ended.took < MARGIN, "it waited for {:?}", ended.took);
    assert_eq!(ended.report().total.cut_off, 1);
}

#[test]
fn new_connections_are_refused_while_the_server_drains() {
    let server = Server::start(LONG);
    let mut client = Client::connect(server.address);
    client.fill_the_server(MORE_THAN_FITS);
    server.signal(Signal::TERM);
    wait_until_refused(&server);
    client.receive_all();
}

/// A connection that is made in the moment of the signal may still be accepted, or reset.
fn wait_until_refused(server: &Server) {
    let start = Instant::now();
    wait_until("connections refused", || {
        let refused = Client::try_connect(server.address).err();
        refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(start.elapsed() < MARGIN, "it accepted for {:?} after the signal", start.elapsed());
}
