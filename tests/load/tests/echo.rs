//! `load` against small servers that echo rightly and wrongly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use load::connect::{self, ConnectOptions};
use load::echo::{self, EchoOptions};
use load::{Error, Limit};

/// A listener whose every connection is served by `serve` on a thread of its own, until the test ends.
fn listen(serve: impl Fn(TcpStream) + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind to a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|socket| drop(thread::spawn(move || serve(socket))));
    });
    address
}

/// Echoes, after `change` was applied to the `count`-th read.
fn echo_with(mut socket: TcpStream, change: fn(usize, &mut Vec<u8>)) {
    let mut buffer = vec![0; 64 * 1024];
    for count in 0.. {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let mut bytes = buffer[..length].to_vec();
                change(count, &mut bytes);
                if socket.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    }
}

fn good() -> SocketAddr {
    listen(|socket| echo_with(socket, |_, _| {}))
}

fn short(address: SocketAddr) -> EchoOptions {
    EchoOptions { limit: Limit::Count(20), timeout: Duration::from_millis(300), ..EchoOptions::new(address) }
}

#[test]
fn every_size_and_depth_comes_back() {
    let address = good();
    for (connections, size, depth) in [(1, 1, 1), (3, 1, 64), (5, 64, 8), (2, 65_537, 3), (2, 1 << 20, 2)] {
        let options =
            EchoOptions { connections, size, depth, timeout: Duration::from_secs(10), ..short(address) };
        let report = echo::run(&options).unwrap();
        assert_eq!(report.failure(), None, "{options:?}");
        assert_eq!(report.connections, u64::from(connections));
        assert_eq!(report.operations, 20 * u64::from(connections));
        assert_eq!(report.bytes, report.operations * u64::from(size));
    }
}

#[test]
fn connections_are_dealt_out_evenly() {
    let cores = load::threads::allowed_cpus().unwrap();
    let connections = u32::try_from(cores.len()).unwrap() * 5;
    let report = echo::run(&EchoOptions { connections, ..short(good()) }).unwrap();
    assert_eq!(report.threads.iter().map(|thread| thread.core).collect::<Vec<_>>(), cores);
    assert!(report.threads.iter().all(|thread| thread.connections == 5), "{:?}", report.threads);
}

#[test]
fn a_duration_ends_and_nothing_is_lost() {
    let limit = Limit::Duration(Duration::from_millis(200));
    let report = echo::run(&EchoOptions { connections: 4, depth: 3, limit, ..short(good()) }).unwrap();
    assert_eq!(report.failure(), None);
    assert!(report.operations > 0 && report.latency_us.p50 > 0.0 && report.client_cpu_s > 0.0, "{report:?}");
    assert!((0.15..0.6).contains(&report.elapsed_s), "{report:?}");
}

#[test]
fn a_changed_byte_is_seen() {
    let flip = |count, bytes: &mut Vec<u8>| {
        if count == 3 {
            bytes[0] ^= 0x40;
        }
    };
    let address = listen(move |socket| echo_with(socket, flip));
    let report = echo::run(&short(address)).unwrap();
    assert_eq!(report.failure().unwrap(), "1 wrong bytes");
}

#[test]
fn a_dropped_byte_is_lost() {
    let drop_one = |count, bytes: &mut Vec<u8>| {
        if count == 0 {
            bytes.pop();
        }
    };
    let address = listen(move |socket| echo_with(socket, drop_one));
    let report = echo::run(&short(address)).unwrap();
    assert_eq!(
        report.failure().unwrap(),
        "1 lost bytes, 20 operations missing, 1 x no answer on a connection"
    );
}

#[test]
fn a_byte_too_many_is_seen() {
    let add_one = |count, bytes: &mut Vec<u8>| {
        if count == 19 {
            bytes.push(0);
        }
    };
    let address = listen(move |socket| echo_with(socket, add_one));
    assert_eq!(echo::run(&short(address)).unwrap().failure().unwrap(), "1 bytes that were never sent");
}

#[test]
fn errors_are_counted_by_kind() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = echo::run(&EchoOptions { connections: 7, ..short(refused) }).unwrap();
    assert_eq!(report.failure().unwrap(), "7 x ECONNREFUSED to connect");
    let closing = listen(|mut socket| {
        let _ = socket.read(&mut [0; 64]);
    });
    let report = echo::run(&EchoOptions { connections: 2, ..short(closing) }).unwrap();
    assert_eq!(report.io_errors["closed by the peer"], 2);
    assert_eq!((report.bytes_lost, report.operations_missing), (128, 40));
}

#[test]
fn impossible_options_are_refused() {
    let address = "127.0.0.1:1".parse().unwrap();
    for options in [
        EchoOptions { connections: 0, ..short(address) },
        EchoOptions { size: 0, ..short(address) },
        EchoOptions { size: (1 << 20) + 1, ..short(address) },
        EchoOptions { depth: 0, ..short(address) },
    ] {
        assert!(matches!(echo::run(&options), Err(Error::Option { .. })), "{options:?}");
    }
}

#[test]
fn connecting_counts_and_closes_by_reset() {
    for echo in [false, true] {
        let limit = Limit::Count(500);
        let report = connect::run(&ConnectOptions { echo, limit, ..ConnectOptions::new(good()) }).unwrap();
        assert_eq!(report.failure(), None);
        assert_eq!((report.operations, report.connections), (500, 500));
        assert_eq!(report.bytes, if echo { 500 * 64 } else { 0 });
    }
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let limit = Limit::Count(10);
    let report = connect::run(&ConnectOptions { limit, ..ConnectOptions::new(refused) }).unwrap();
    assert_eq!((report.connect_errors["ECONNREFUSED"], report.operations_missing), (10, 10));
}

#[test]
fn the_program_prints_json_and_fails_with_one_line() {
    let load = |address: SocketAddr, size: &str| {
        let address = address.to_string();
        let args = ["echo", "--connect", &address, "--size", size, "--count", "5", "--cores", "0", "--json"];
        Command::new(env!("CARGO_BIN_EXE_load")).args(args).output().unwrap()
    };
    let output = load(good(), "100");
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["schema"], &json["operations"], &json["threads"][0]["core"]),
        (&1.into(), &5.into(), &0.into())
    );
    assert!(json["latency_us"]["p99.9"].as_f64().unwrap() > 0.0);

    let output = load(good(), "0");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "load: --size 0: give 1 to 1048576 bytes\n");
}
