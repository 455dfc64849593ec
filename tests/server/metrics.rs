//! `--metrics`: what the endpoint answers, and that nothing that its clients do hurts the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::common::openmetrics::Exposition;
use crate::common::pattern::Numbers;
use crate::common::{Client, DEADLINE, Launch, Server, cpus, proc, skipped, wait_until};

/// A server with an endpoint on a port that the kernel chooses, and that address.
fn start(args: &[&str]) -> (Server, SocketAddr) {
    let server = Server::start(&[&["--metrics", "127.0.0.1:0"], args].concat());
    let mut address = None;
    wait_until("the line that says where the metrics are", || {
        address = server.stderr().iter().find_map(|line| {
            line.strip_prefix("server: metrics on http://")?.strip_suffix("/metrics")?.parse().ok()
        });
        address.is_some()
    });
    (server, address.expect("waited for"))
}

fn connect(endpoint: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&endpoint, DEADLINE).expect("connect to the endpoint");
    stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    stream
}

/// Sends these bytes; gives all that comes back until the endpoint closes.
fn exchange(endpoint: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(endpoint);
    stream.write_all(request).expect("send a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("read the response");
    response
}

/// Status, head and body of the response to a request.
fn ask(endpoint: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: test\r\n\r\n");
    let response = exchange(endpoint, request.as_bytes());
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {response:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).map(str::parse);
    let Some(Ok(status)) = status else { panic!("no status line: {head}") };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    if method != "HEAD" {
        assert_eq!(length.parse(), Ok(body.len()), "{head}");
    }
    (status, head.to_owned(), body.to_owned())
}

fn metrics(endpoint: SocketAddr) -> Exposition {
    let (status, head, body) = ask(endpoint, "GET", "/metrics");
    assert_eq!(status, 200);
    let content_type = "\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(head.contains(content_type), "{head}");
    Exposition::read(&body)
}

#[test]
fn the_counters_are_open_metrics_and_what_the_clients_did() {
    let cores = cpus::allowed();
    let (server, endpoint) = start(&["--cores", &cores.to_string()]);
    let before = metrics(endpoint);
    assert_eq!(before.sum("accepted_connections_total"), 0.0);
    assert!(before.get("process_start_time_seconds").is_some_and(|start| start > 1.7e9));
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(1_000));
    wait_until("all is counted", || {
        let now = metrics(endpoint);
        now.sum("received_bytes_total") == 5_000.0 && now.sum("open_connections") == 5.0
    });
    let during = metrics(endpoint);
    assert_eq!(during.sum("accepted_connections_total"), 5.0);
    drop(clients);
    wait_until("all is closed", || metrics(endpoint).sum("open_connections") == 0.0);
    assert_eq!(metrics(endpoint).sum("sent_bytes_total"), 5_000.0);
    for cpu in cores.iter() {
        let series = format!("corelocal_server_accepted_connections_total{{core=\"{cpu}\"}}");
        assert!(during.get(&series).is_some(), "{series}");
    }
    assert!(during.len() > 20, "{during:?}");
    server.stop().assert_exactly(5, 5_000);
}

/// With the hash, a client's connections are accepted on all cores, and each core's samples say where they
/// came from.
#[test]
fn samples_are_counted_by_the_cpu_that_received_the_segment() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let (server, endpoint) = start(&["--steer", "hash", "--cores", &format!("{first},{second}")]);
    cpus::on_cpu(first, || {
        for _ in 0..60 {
            Client::connect(server.address).echo(100);
        }
    });
    server.wait_until_nothing_is_open();
    let all = metrics(endpoint);
    let from = |what: &str, core, cpu| {
        all.get(&format!("corelocal_server_{what}_total{{core=\"{core}\",cpu=\"{cpu}\"}}")).unwrap_or(0.0)
    };
    let samples = all.sum("accept_samples_total");
    assert_eq!(samples, 60.0);
    let (here, there) =
        (from("accept_source_samples", first, first), from("accept_source_samples", second, first));
    assert!(here > 0.0 && there > 0.0, "{all:?}");
    assert_eq!(here + there, samples, "{all:?}");
    assert_eq!(here, all.sum("accept_local_samples_total"));
    assert!(from("request_source_samples", second, first) > 0.0, "{all:?}");
    assert_eq!(all.sum("request_source_samples_total"), all.sum("request_samples_total"));
    let report: serde_json::Value = serde_json::from_str(&server.terminate().stdout).expect("a report");
    assert_eq!(report["total"]["accept_from"][first.to_string()], 60, "{report}");
    assert_eq!(report["cores"][1]["accept_from"][first.to_string()].as_f64(), Some(there), "{report}");
    let spread = report["total"]["accepted_spread"].as_f64().expect("a number");
    assert!((spread - here.max(there) / 30.0).abs() < 1e-9, "{report}");
}

#[test]
fn the_table_says_where_what_is_not_local_came_from() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = Launch::new(&["--steer", "cpu", "--cores", &second.to_string()]).human().start();
    cpus::on_cpu(first, || Client::connect(server.address).echo(100));
    server.wait_until_nothing_is_open();
    let ended = server.terminate();
    let expected = format!("core {second}: 1 of 1 sampled connections came in on CPU {first} (1)");
    assert!(ended.stderr.iter().any(|line| line.starts_with(&expected)), "{:#?}", ended.stderr);
}

#[test]
fn healthz_says_ok_until_a_signal_comes_and_metrics_go_on() {
    let (mut server, endpoint) = start(&["--drain-timeout", "1h"]);
    // Keeps the server draining: it does not read what it is owed.
    let mut stalled = Client::connect(server.address);
    stalled.fill(crate::echo::MORE_THAN_FITS);
    let (status, _, body) = ask(endpoint, "GET", "/healthz");
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    assert_eq!(metrics(endpoint).get("corelocal_server_draining"), Some(0.0));
    server.signal(rustix::process::Signal::TERM);
    wait_until("healthz is 503", || ask(endpoint, "GET", "/healthz").0 == 503);
    assert_eq!(ask(endpoint, "GET", "/healthz").2, "draining\n");
    let draining = metrics(endpoint);
    assert_eq!(draining.get("corelocal_server_draining"), Some(1.0));
    assert_eq!(draining.sum("open_connections"), 1.0);
    assert!(server.is_running());
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_end().status.code(), Some(0));
}

#[test]
fn other_requests_get_the_status_that_fits() {
    let (server, endpoint) = start(&[]);
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics/x", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "metrics", 404),
        ("GET", "/metrics?debug=1", 200),
    ] {
        assert_eq!(ask(endpoint, method, path).0, status, "{method} {path}");
    }
    let (status, head, body) = ask(endpoint, "HEAD", "/metrics");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(!head.contains("Content-Length: 0"), "{head}");
    assert_eq!(ask(endpoint, "HEAD", "/").2, "", "no body of a refusal either");
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET /metrics HTTP/1.0\r\nA: {}\r\n\r\n", "a".repeat(100_000)), "431"),
    ] {
        let response = exchange(endpoint, request.as_bytes());
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
    server.stop().assert_exactly(0, 0);
}

/// Clients that send the beginning of a request and no more.
fn slow_clients(endpoint: SocketAddr) -> Vec<TcpStream> {
    let slow = |_| {
        let mut stream = connect(endpoint);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").expect("send a beginning");
        stream
    };
    (0..100).map(slow).collect()
}

/// The endpoint has neither answered nor cut off this client.
fn waits(mut client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("set non-blocking");
    let read = client.read(&mut [0]);
    client.set_nonblocking(false).expect("set blocking");
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn clients_that_never_finish_a_request_keep_nobody_waiting() {
    let (server, endpoint) = start(&[]);
    // On a busy machine they may have timed out before the others are through; not each time.
    let answered_meanwhile = || {
        let slow = slow_clients(endpoint);
        assert_eq!(ask(endpoint, "GET", "/healthz").0, 200);
        metrics(endpoint);
        waits(&slow[99])
    };
    assert!((0..5).any(|_| answered_meanwhile()), "answers come when the slow clients have timed out");
    server.stop().assert_exactly(0, 0);
}

#[test]
fn clients_that_never_finish_a_request_are_cut_off() {
    let (server, endpoint) = start(&[]);
    // The first to make room, the last because its time is up; neither ever gets a byte.
    let slow = slow_clients(endpoint);
    for mut stream in [&slow[0], &slow[99]] {
        let end = stream.read(&mut [0]);
        let reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(reset), "{end:?}");
    }
    assert_eq!(ask(endpoint, "GET", "/healthz").0, 200);
    server.stop().assert_exactly(0, 0);
}

#[test]
fn noise_hurts_neither_the_endpoint_nor_the_server() {
    let (server, endpoint) = start(&[]);
    let mut numbers = Numbers::new(7);
    for _ in 0..200 {
        let length = numbers.between(1, 3_000);
        let noise: Vec<u8> =
            (0..length).map(|_| u8::try_from(numbers.between(0, 255)).expect("a byte")).collect();
        let mut stream = connect(endpoint);
        // The endpoint may close as soon as it has seen enough.
        let _ = stream.write_all(&noise);
    }
    assert_eq!(ask(endpoint, "GET", "/healthz").0, 200);
    Client::connect(server.address).echo(1_000);
    server.stop_when_nothing_is_open().assert_exactly(1, 1_000);
}

#[test]
fn a_server_with_clients_at_its_endpoint_ends_in_good_order() {
    let (server, endpoint) = start(&[]);
    let _idle: Vec<TcpStream> = (0..10).map(|_| connect(endpoint)).collect();
    assert_eq!(ask(endpoint, "GET", "/healthz").0, 200);
    server.stop().assert_exactly(0, 0);
}

#[test]
fn an_address_that_cannot_be_had_is_refused_before_anything_listens() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = Launch::new(&["--metrics", &address]).refused();
    let expected = format!("server: serve metrics on {address}: EADDRINUSE: ");
    assert!(ended.error_line().starts_with(&expected), "{ended:?}");
    let ended = Launch::new(&["--metrics", "192.0.2.1:0"]).refused();
    assert!(ended.error_line().contains("192.0.2.1:0: EADDRNOTAVAIL: "), "{ended:?}");
    Launch::new(&["--metrics", "nowhere"]).refused().assert_refused();
}

/// Its thread may run wherever the process may: no worker shares its core by force.
#[test]
fn the_endpoint_is_on_a_thread_that_is_not_pinned() {
    if cpus::allowed().len() == 1 {
        return skipped("with one CPU every thread is pinned to it");
    }
    let (server, _) = start(&["--cores", &cpus::first().to_string()]);
    // It gives itself its name when it first runs, which on a busy machine is after the server listens.
    let mut own = None;
    wait_until("it has a thread of its own", || {
        own = proc::threads(server.pid()).into_iter().find(|thread| thread.name == "metrics");
        own.is_some()
    });
    assert_eq!(own.map(|thread| thread.allowed), Some(cpus::allowed()));
}
