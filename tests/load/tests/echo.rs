//! `load` against small servers that echo rightly and wrongly.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{echo_with, good, listen};
use load::arrivals::Spacing;
use load::backlog::{self, BacklogOptions};
use load::connect::{self, ConnectOptions};
use load::echo::{self, EchoOptions};
use load::{Error, Limit};
use rustix::process::{Pid, Signal, kill_process};

/// A timeout that does not come, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(60);

/// One that must come: nothing more happens. Longer than a busy machine stalls.
const TIMEOUT: Duration = Duration::from_secs(2);

fn short(address: SocketAddr) -> EchoOptions {
    EchoOptions { limit: Limit::Count(20), timeout: PATIENT, ..EchoOptions::new(address) }
}

#[test]
fn every_size_and_depth_comes_back() {
    let address = good();
    for (connections, size, depth) in [(1, 1, 1), (3, 1, 64), (5, 64, 8), (2, 65_537, 3), (2, 1 << 20, 2)] {
        let options = EchoOptions { connections, size, depth, ..short(address) };
        let report = echo::run(&options).unwrap();
        assert_eq!(report.failure(), None, "{options:?}");
        assert_eq!(report.counts.connections, u64::from(connections));
        assert_eq!(report.counts.operations, 20 * u64::from(connections));
        assert_eq!(report.counts.bytes, report.counts.operations * u64::from(size));
    }
}

#[test]
fn connections_are_dealt_out_evenly() {
    let cores: Vec<_> = tune::affinity::allowed().unwrap().iter().collect();
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
    let counts = &report.counts;
    assert!(counts.operations > 0 && report.latency_us.p50 > 0.0 && report.client_cpu_s > 0.0, "{report:?}");
    assert!(report.elapsed_s >= 0.2, "the last answers come after the time is over: {report:?}");
}

#[test]
fn a_backlog_is_worked_off_and_every_byte_of_it_checked() {
    let flip = |_, bytes: &mut Vec<u8>| bytes[0] ^= 0x40;
    for (address, failure) in
        [(good(), None), (listen(move |socket| echo_with(socket, flip)), Some("50 wrong bytes"))]
    {
        let core = tune::affinity::allowed().unwrap().iter().next().unwrap();
        let options = BacklogOptions { address, connections: 50, core, timeout: Duration::from_secs(10) };
        let report = backlog::run_observed(&options, &|_| {}).unwrap();
        assert_eq!((report.failure().as_deref(), report.counts.operations), (failure, 50), "{report:?}");
    }
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
    let report = echo::run(&EchoOptions { timeout: TIMEOUT, ..short(address) }).unwrap();
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

/// A server that serves a connection to its end before it accepts the next.
#[test]
fn one_at_a_time_all_are_served_if_each_closes_when_it_is_done() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|socket| echo_with(socket, |_, _| {})));
    let options = EchoOptions { connections: 20, close_each: true, ..short(address) };
    let report = echo::run(&options).unwrap();
    assert_eq!((report.failure(), report.counts.operations), (None, 400));
}

#[test]
fn errors_are_counted_by_kind() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = echo::run(&EchoOptions { connections: 7, ..short(refused) }).unwrap();
    assert_eq!(report.failure().unwrap(), "140 operations missing, 7 x ECONNREFUSED to connect");
    let closing = listen(|mut socket| {
        let _ = socket.read(&mut [0; 64]);
    });
    let report = echo::run(&EchoOptions { connections: 2, ..short(closing) }).unwrap();
    assert_eq!(report.counts.io_errors["closed by the peer"], 2);
    assert_eq!((report.counts.bytes_lost, report.counts.operations_missing), (128, 40));
}

#[test]
fn impossible_options_are_refused() {
    let address = "127.0.0.1:1".parse().unwrap();
    for options in [
        EchoOptions { connections: 0, ..short(address) },
        EchoOptions { size: 0, ..short(address) },
        EchoOptions { size: (1 << 20) + 1, ..short(address) },
        EchoOptions { depth: 0, ..short(address) },
        EchoOptions { limit: Limit::Count(0), ..short(address) },
        EchoOptions { limit: Limit::Duration(Duration::MAX), ..short(address) },
        EchoOptions { timeout: Duration::ZERO, ..short(address) },
    ] {
        assert!(matches!(echo::run(&options), Err(Error::Option { .. })), "{options:?}");
    }
}

/// Bytes and the end of the stream in one segment are one event, and a read that does not fill the buffer
/// must not be taken for all there is.
#[test]
fn an_end_that_comes_with_the_last_bytes_is_seen_at_once() {
    let half_and_end = |mut socket: TcpStream| {
        socket2::SockRef::from(&socket).set_tcp_cork(true).unwrap();
        let _ = socket.read(&mut [0; 64]);
        let _ = socket.write(&[0; 32]);
    };
    let address = listen(half_and_end);
    let options = EchoOptions { connections: 20, ..short(address) };
    let report = echo::run(&options).unwrap();
    assert_eq!(report.counts.io_errors["closed by the peer"], 20, "{report:?}");
    let limit = Limit::Count(20);
    let options = ConnectOptions { echo: true, limit, timeout: PATIENT, ..ConnectOptions::new(address) };
    let report = connect::run(&options).unwrap();
    assert_eq!(report.counts.io_errors["closed by the peer"], 20, "not \"no answer\": {report:?}");
}

#[test]
fn a_run_that_cannot_be_says_why_once() {
    let args = ["echo", "--connect", "127.0.0.1:1", "--cores", "8191"];
    let output = Command::new(env!("CARGO_BIN_EXE_load")).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "load: pin a thread to CPU 8191: EINVAL: invalid argument; give --cores CPUs that exist and that \
         this process may use\n"
    );
}

/// epoll_wait(2) is interrupted when a stopped process goes on (signal(7)); that is no deadline.
#[test]
fn a_stop_while_the_peers_close_is_awaited_is_survived() {
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let ends: &'static _ = Box::leak(Box::new(Mutex::new((tell, wait))));
    let address = listen(move |socket| {
        let kept = socket.try_clone().unwrap();
        echo_with(socket, |_, _| {});
        let (tell, wait) = &*ends.lock().unwrap();
        tell.send(()).unwrap();
        let _ = wait.recv(); // until the test has stopped the client and let it go on, or has failed
        drop(kept);
    });
    let args = ["echo", "--connect", &address.to_string(), "--count", "1", "--cores", "0"];
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
    load.args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    let load = load.spawn().unwrap();
    let pid = Pid::from_child(&load);
    told.recv_timeout(PATIENT).unwrap();
    for signal in [Signal::STOP, Signal::CONT] {
        kill_process(pid, signal).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    drop(go_on);
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn only_a_count_misses_operations() {
    let closing = |mut socket: TcpStream| drop(socket.read(&mut [0; 64]));
    let limit = Limit::Duration(Duration::from_millis(50));
    let options = ConnectOptions { echo: true, limit, ..ConnectOptions::new(listen(closing)) };
    let report = connect::run(&options).unwrap();
    assert!(report.counts.io_errors["closed by the peer"] > 0);
    assert_eq!(report.counts.operations_missing, 0, "{report:?}");
    let silent = |_: TcpStream| thread::sleep(Duration::from_secs(5));
    let (limit, timeout) = (Limit::Count(100), Duration::from_millis(200));
    let options =
        ConnectOptions { echo: true, limit, timeout, parallel: 2, ..ConnectOptions::new(listen(silent)) };
    let report = connect::run(&options).unwrap();
    assert_eq!((report.counts.operations, report.counts.operations_missing), (0, 100), "{report:?}");
}

#[test]
fn more_connections_than_open_files_are_refused_before_the_first() {
    let address = good().to_string();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100 && exec \"$0\" echo --connect \"$1\" --connections 90 --cores 0"])
        .args([env!("CARGO_BIN_EXE_load"), &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    let begin =
        "load: 90 connections at once: the hard limit of open files is 100; give at most 67, or raise";
    assert!(line.starts_with(begin) && line.lines().count() == 1, "{line}");
}

#[test]
fn connecting_counts_and_closes_by_reset() {
    for echo in [false, true] {
        let limit = Limit::Count(500);
        let report = connect::run(&ConnectOptions { echo, limit, ..ConnectOptions::new(good()) }).unwrap();
        assert_eq!(report.failure(), None);
        assert_eq!((report.counts.operations, report.counts.connections), (500, 500));
        assert_eq!(report.counts.bytes, if echo { 500 * 64 } else { 0 });
    }
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let limit = Limit::Count(10);
    let report = connect::run(&ConnectOptions { limit, ..ConnectOptions::new(refused) }).unwrap();
    assert_eq!((report.counts.connect_errors["ECONNREFUSED"], report.counts.operations_missing), (10, 10));
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

    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = load(refused, "100");
    assert_eq!(output.status.code(), Some(1));
    let line = "load: 5 operations missing, 1 x ECONNREFUSED to connect\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), line);
    assert_eq!(load(good(), "0").status.code(), Some(2));
}

#[test]
fn an_open_loop_starts_every_message_and_at_its_rate() {
    for (connections, spin) in [(1, false), (7, true)] {
        let limit = Limit::Duration(Duration::from_millis(500));
        let options = EchoOptions { connections, rate: Some(1000), spin, limit, ..short(good()) };
        let report = echo::run(&options).unwrap();
        let all = report.counts.operations + report.counts.operations_not_started;
        assert_eq!((report.failure(), all), (None, 500), "{report:?}");
        assert!(report.counts.operations > 0, "{report:?}");
        assert_eq!(report.rate_asked_per_s, Some(1000));
        assert!(report.elapsed_s >= 0.499, "{report:?}");
    }
}

/// The server answers once in 50 ms; a client that waited for the answer before it counted the next message
/// would see 50 ms for each. What cannot be started by the end is counted, with the time that it has waited.
#[test]
fn a_message_that_starts_late_counts_from_when_it_should_have_started() {
    let slow = |_: usize, _: &mut Vec<u8>| thread::sleep(Duration::from_millis(50));
    let address = listen(move |socket| echo_with(socket, slow));
    let limit = Limit::Duration(Duration::from_millis(500));
    for arrivals in [Spacing::Uniform, Spacing::Poisson] {
        let options = EchoOptions { rate: Some(200), arrivals, limit, cores: vec![0], ..short(address) };
        let report = echo::run(&options).unwrap();
        assert_eq!((report.failure(), report.arrivals), (None, Some(arrivals)), "{report:?}");
        let (done, not_started) = (report.counts.operations, report.counts.operations_not_started);
        assert!(done <= 11 && not_started > 0 && report.counts.operations_late > 0, "{report:?}");
        if arrivals == Spacing::Uniform {
            assert_eq!(done + not_started, 100, "{report:?}");
        }
        // Half of them should have started in the first 250 ms, and the queue grows by 9 in 10.
        assert!(report.latency_us.p50 >= 150_000.0, "{report:?}");
        let raw = report.latency_raw_us.unwrap();
        assert!(raw.p50 >= 50_000.0 && raw.p50 < report.latency_us.p50, "{report:?}");
    }
}

#[test]
fn an_open_loop_counts_what_a_lost_connection_leaves() {
    let closing = listen(|mut socket| drop(socket.read(&mut [0; 64])));
    let limit = Limit::Duration(Duration::from_millis(50));
    let options = EchoOptions { rate: Some(1000), limit, cores: vec![0], ..short(closing) };
    let report = echo::run(&options).unwrap();
    assert_eq!(report.counts.operations, 0, "{report:?}");
    assert_eq!(report.counts.operations_missing + report.counts.operations_not_started, 50, "{report:?}");
    assert!(report.failure().unwrap().contains("closed by the peer"));
    let count = EchoOptions { rate: Some(1), ..short(closing) };
    assert!(matches!(echo::run(&count), Err(Error::Option { option: "--rate", .. })));
}

#[test]
fn the_observer_sees_the_exchange_alone() {
    let counts = Mutex::new(Vec::new());
    let observer = |moment| counts.lock().unwrap().push(moment);
    let report = echo::run_observed(&short(good()), &observer).unwrap();
    assert_eq!(report.failure(), None);
    assert_eq!(counts.into_inner().unwrap(), [load::Moment::Start, load::Moment::End]);
}

#[test]
fn a_spinning_client_ends_at_its_timeout() {
    let silent = listen(|_: TcpStream| thread::sleep(Duration::from_secs(5)));
    let timeout = Duration::from_millis(300);
    let options = EchoOptions { spin: true, cores: vec![0], timeout, ..short(silent) };
    let report = echo::run(&options).unwrap();
    assert_eq!(report.counts.io_errors["no answer"], 1, "{report:?}");
}
