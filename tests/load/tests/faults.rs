//! `load` finds what a faulty server does to bytes and connections, and says so by its exit code.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use common::{echo_with, good, listen};

/// What is done to the first bytes of a stream, at least [`LEAST`], or to each tenth datagram.
type Fault = fn(&mut Vec<u8>);

const FLIP: Fault = |bytes| bytes[7] ^= 1;
const LOSE: Fault = |bytes| {
    bytes.remove(7);
};
const REPEAT: Fault = |bytes| bytes.insert(7, bytes[7]);
const SWAP: Fault = |bytes| bytes.swap(7, 8);
const EMPTY: Fault = Vec::clear;

/// As many as every fault needs.
const LEAST: usize = 9;

/// A timeout that does not come: what the server does is seen before.
const PATIENT: [&str; 2] = ["--timeout", "60s"];

/// How long the servers may take to say what they saw; far longer than they need.
const DEADLINE: Duration = Duration::from_secs(60);

fn load(mode: &str, address: SocketAddr, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(mode.split(' ')).args(["--connect", &address.to_string(), "--cores", "0"]).args(args);
    command.output().expect("run load")
}

#[track_caller]
fn assert_found(output: &Output, what: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr.contains(what) && stderr.lines().count() == 1, "not \"{what}\": {stderr}");
}

/// Echoes, but for one fault; after one that leaves bytes out, the stream ends.
fn faulty(fault: Fault) -> SocketAddr {
    listen(move |mut socket| {
        let mut bytes = Vec::new();
        while bytes.len() < LEAST {
            let mut buffer = [0; 4096];
            let Ok(length @ 1..) = socket.read(&mut buffer) else { return };
            bytes.extend_from_slice(&buffer[..length]);
        }
        let before = bytes.len();
        fault(&mut bytes);
        if socket.write_all(&bytes).is_ok() && bytes.len() >= before {
            echo_with(socket, |_, _| {});
        } else {
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
        }
    })
}

/// Answers datagrams; every tenth is changed, and then sent `times` times.
fn faulty_udp(fault: Fault, times: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind to a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        for count in 0.. {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { return };
            let mut bytes = buffer[..length].to_vec();
            let tenth = count % 10 == 9;
            if tenth {
                fault(&mut bytes);
            }
            for _ in 0..if tenth { times } else { 1 } {
                let _ = socket.send_to(&bytes, peer);
            }
        }
    });
    address
}

#[test]
fn a_flipped_lost_repeated_or_swapped_byte_of_a_stream_is_found() {
    let args = [&["--count", "50"], &PATIENT[..]].concat();
    for (fault, what) in [
        (FLIP, "1 wrong bytes"),
        (LOSE, "1 lost bytes"),
        (REPEAT, "bytes that were never sent"),
        (SWAP, "2 wrong bytes"),
        (EMPTY, "64 lost bytes"),
    ] {
        assert_found(&load("echo", faulty(fault), &args), what);
    }
    let open_loop = ["--rate", "1000", "--arrivals", "poisson", "--duration", "100ms"];
    assert_found(&load("echo", faulty(FLIP), &[&open_loop, &PATIENT[..]].concat()), "1 wrong bytes");
    assert!(load("echo", good(), &args).status.success());
}

#[test]
fn bytes_of_another_connection_are_found() {
    // Each connection gets what the one before it has sent.
    let (give, take) = std::sync::mpsc::channel::<Vec<u8>>();
    let shared = std::sync::Arc::new(std::sync::Mutex::new((give, take)));
    let shared: &'static _ = Box::leak(Box::new(shared));
    let address = listen(move |mut socket| {
        let mut buffer = [0; 64];
        while socket.read_exact(&mut buffer).is_ok() {
            let pair = shared.lock().unwrap();
            let other = pair.1.try_recv();
            pair.0.send(buffer.to_vec()).unwrap();
            let _ = socket.write_all(&other.unwrap_or_else(|_| buffer.to_vec()));
        }
    });
    assert_found(&load("echo", address, &["--connections", "2", "--count", "5"]), "wrong bytes");
}

#[test]
fn a_reset_and_a_stall_are_found() {
    let resetting = listen(|mut socket| {
        let _ = socket.read(&mut [0; 10]);
        let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    });
    for mode in ["echo", "connect --echo"] {
        let output = load(mode, resetting, &[&["--count", "50"], &PATIENT[..]].concat());
        assert_found(&output, "ECONNRESET on a connection");
    }
    let args = ["--count", "50", "--timeout", "300ms"];
    let stalling =
        listen(|socket| echo_with(socket, |count, _| thread::sleep(Duration::from_secs(count as u64 / 10))));
    assert_found(&load("echo", stalling, &args), "1 x no answer on a connection");
    let deaf = listen(|_: TcpStream| thread::sleep(Duration::from_secs(5)));
    assert_found(&load("echo", deaf, &args), "64 lost bytes, 50 operations missing");
}

#[test]
fn a_datagram_that_is_lost_changed_or_cut_is_found() {
    let args = ["--count", "50", "--connections", "3", "--depth", "4"];
    let nothing: Fault = |_| {};
    let lost = load("udp", faulty_udp(nothing, 0), &[&args[..], &["--timeout", "2s"]].concat());
    assert_found(&lost, "15 lost datagrams");
    let args = [&args, &PATIENT[..]].concat();
    assert_found(&load("udp", faulty_udp(FLIP, 1), &args), "15 wrong bytes");
    assert_found(&load("udp", faulty_udp(LOSE, 1), &args), "15 lost bytes");
    assert_found(&load("udp", faulty_udp(REPEAT, 1), &args), "15 bytes that were never sent");
    let twice = load("udp", faulty_udp(nothing, 2), &[&args[..], &["--json"]].concat());
    assert!(twice.status.success(), "a repeated datagram is no lost one: {twice:?}");
    let json: serde_json::Value = serde_json::from_slice(&twice.stdout).unwrap();
    assert_eq!(json["operations"], 150);
    assert!(json["datagrams_again"].as_u64().unwrap() >= 12, "{json}");
}

#[test]
fn datagrams_of_every_size_and_a_server_that_is_not_there() {
    let address = faulty_udp(|_| {}, 1);
    for size in ["8", "1472", "65507"] {
        let args = ["--size", size, "--count", "20", "--depth", "2"];
        let output = load("udp", address, &[&args, &PATIENT[..]].concat());
        assert!(output.status.success(), "{size}: {output:?}");
    }
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_found(&load("udp", gone, &["--count", "5", "--timeout", "200ms"]), "ECONNREFUSED on a connection");
    // So deep that none has to wait for the answer to another.
    let rate = ["--rate", "500", "--duration", "200ms", "--connections", "5", "--depth", "100"];
    let output = load("udp", address, &[&rate, &PATIENT[..]].concat());
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("100 in"),
        "{output:?}"
    );
}

/// A server that accepts and resets at once, as in `server --mode accept-close`, may be faster than the
/// client.
#[test]
fn a_connection_that_the_server_resets_was_made() {
    let closing = listen(|socket| drop(socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))));
    for close in ["reset", "fin"] {
        let output = load("connect", closing, &["--count", "300", "--close", close, "--json"]);
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&json["operations"], &json["connections_failed"]), (&300.into(), &0.into()), "{json}");
    }
}

#[test]
fn connections_come_from_where_they_should_and_end_as_they_should() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell: &'static _ = Box::leak(Box::new(std::sync::Mutex::new(tell)));
    let address = listen(move |mut socket| {
        // One that was reset before it was accepted has no peer any more (ENOTCONN).
        let peer = socket.peer_addr().map_or_else(|_| String::new(), |peer| peer.ip().to_string());
        let end = socket.read_to_end(&mut Vec::new());
        let _ = tell.lock().unwrap().send((peer, end.is_ok()));
    });
    let run = |args: &[&str]| {
        let output = load("connect", address, &[&["--count", "6"], args].concat());
        assert!(output.status.success(), "{output:?}");
        let mut all: Vec<(String, bool)> = (0..6).map(|_| told.recv_timeout(DEADLINE).unwrap()).collect();
        all.sort();
        all
    };
    let list = ["--sources", "127.0.0.5,127.9.0.0/30", "--close", "fin"];
    let expected = [("127.0.0.5", true), ("127.9.0.1", true), ("127.9.0.2", true)];
    let twice: Vec<_> =
        expected.iter().flat_map(|&(ip, end)| [(ip.to_owned(), end), (ip.to_owned(), end)]).collect();
    assert_eq!(run(&list), twice);
    let reset = run(&[]);
    assert!(reset.iter().all(|(peer, end)| ["", "127.0.0.1"].contains(&&**peer) && !end), "{reset:?}");
    let spread = run(&["--close", "fin"]);
    assert!(spread.windows(2).all(|pair| pair[0].0 != pair[1].0), "{spread:?}");
    let six = load("connect", address, &["--sources", "::1"]);
    assert_found(&six, "--sources ::1: give IPv4 addresses");
}

#[test]
fn the_articles_processes_each_make_their_connections() {
    let output = load("replay-article accept", good(), &["--processes", "3", "--count", "200", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["operations"], json["threads"].as_array().unwrap().len()), (&600.into(), 3), "{json}");
    assert!(
        json.get("histogram_ns").is_none() && json["latency_us"]["p50"].as_f64().unwrap() > 0.0,
        "{json}"
    );
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = load("replay-article accept", refused, &["--processes", "2", "--count", "5"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.last(), Some(&"load: 10 operations missing, 10 x ECONNREFUSED to connect"), "{said}");
    let of_process = |line: &&&str| {
        line.starts_with("load: process ")
            && line.ends_with(": load: 5 operations missing, 5 x ECONNREFUSED to connect")
    };
    assert_eq!(lines.iter().filter(of_process).count(), 2, "{said}");
}

#[test]
fn chaos_does_not_hurt_a_good_server_and_finds_what_a_bad_one_does() {
    let args = ["--duration", "500ms", "--connections", "8", "--timeout", "60s"];
    let output = load("chaos", good(), &[&args[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let behaviours = json["behaviours"].as_array().unwrap();
    assert_eq!((&json["schema"], behaviours.len()), (&1.into(), 6));
    for outcome in behaviours {
        assert!(outcome["connections"].as_u64().unwrap() > 0, "{outcome}");
        assert_eq!(outcome["errors"], serde_json::json!({}), "{outcome}");
    }
    for behaviour in ["slow-reader", "half-close", "byte-at-a-time"] {
        let args = [&args[..], &["--behaviour", behaviour]].concat();
        assert_found(&load("chaos", faulty(FLIP), &args), &format!("{behaviour}: "));
    }
    let closes_early = listen(|mut socket| {
        let mut buffer = [0; 1000];
        while let Ok(length @ 1..) = socket.read(&mut buffer) {
            let _ = socket.write_all(&buffer[..length]);
        }
    });
    assert!(
        load("chaos", closes_early, &[&args[..], &["--behaviour", "half-close"]].concat()).status.success()
    );
    let forgets = listen(|mut socket| {
        // Ends as soon as the peer has, without what it still owes.
        let mut all = Vec::new();
        let _ = socket.read_to_end(&mut all);
        let _ = socket.write_all(&all[..all.len() / 2]);
    });
    let args = ["--duration", "200ms", "--timeout", "300ms", "--behaviour", "half-close"];
    assert_found(&load("chaos", forgets, &args), "half-close: ");
}
