//! What the server does with a connection: `--mode`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::common::{DEADLINE, Server, wait_until};

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server.address, DEADLINE).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream
}

#[test]
fn discard_reads_everything_and_answers_nothing() {
    let server = Server::start(&["--mode", "discard", "--buffers", "4"]);
    let mut stream = connect(&server);
    let bytes = vec![7; 4 << 20];
    stream.write_all(&bytes).expect("a server that reads");
    stream.shutdown(Shutdown::Write).expect("send a FIN");
    assert_eq!(stream.read(&mut [0; 16]).expect("the end"), 0, "no byte comes back");
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.total.bytes_in, report.total.bytes_out), (bytes.len() as u64, 0));
}

/// Byte `i` of what a server sends in this mode is `i % 251`.
fn receive_source(stream: &mut TcpStream, from: u64, count: u64) {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = from;
    while at < from + count {
        let want = usize::try_from(from + count - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let got = stream.read(&mut buffer[..want]).expect("a response");
        assert!(got > 0, "the stream ends at byte {at}");
        for (offset, &byte) in (at..).zip(&buffer[..got]) {
            assert_eq!(u64::from(byte), offset % 251, "byte {offset}");
        }
        at += got as u64;
    }
}

#[test]
fn sink_source_answers_each_request_with_a_response() {
    let server =
        Server::start(&["--mode", "sink-source", "--request-size", "100", "--response-size", "1000"]);
    let mut stream = connect(&server);
    stream.write_all(&[1; 99]).expect("send");
    stream.set_nonblocking(true).expect("set O_NONBLOCK");
    wait_until("99 bytes received", || server.held() == 1);
    let error = stream.read(&mut [0; 1]).expect_err("99 bytes are no request");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("clear O_NONBLOCK");
    stream.write_all(&[1; 1]).expect("send");
    receive_source(&mut stream, 0, 1000);
    stream.write_all(&[1; 250]).expect("send");
    receive_source(&mut stream, 1000, 2000);
    stream.shutdown(Shutdown::Write).expect("send a FIN");
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0, "half a request has no answer");
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.total.bytes_in, report.total.bytes_out), (350, 3000));
}

#[test]
fn a_response_may_be_larger_than_every_buffer() {
    let size = 300 << 20;
    let response = size.to_string();
    let server =
        Server::start(&["--mode", "sink-source", "--request-size", "1", "--response-size", &response]);
    let mut stream = connect(&server);
    stream.write_all(&[1]).expect("send");
    receive_source(&mut stream, 0, size);
    drop(stream);
    assert_eq!(server.stop_when_nothing_is_open().total.bytes_out, size);
}

/// A client that asks and does not read is not read from either: what it is owed is a number, not memory.
#[test]
fn a_client_that_only_asks_costs_no_memory() {
    let server =
        Server::start(&["--mode", "sink-source", "--request-size", "1", "--response-size", "1000000"]);
    let mut stream = connect(&server);
    stream.set_nonblocking(true).expect("set O_NONBLOCK");
    let mut asked = 0;
    while asked < 64 << 20 {
        match stream.write(&[1; 4096]) {
            Ok(bytes) => asked += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("send: {error}"),
        }
    }
    assert!(asked < 64 << 20, "the server goes on reading");
    let report = server.stop();
    assert_eq!(report.total.bytes_copied, 0, "nothing is kept for it");
}

#[test]
fn accept_close_resets_each_connection_at_once() {
    let server = Server::start(&["--mode", "accept-close"]);
    for _ in 0..200 {
        // The reset may come before `connect` has returned.
        let connected = TcpStream::connect_timeout(&server.address, DEADLINE);
        let error =
            connected.and_then(|mut stream| stream.read(&mut [0; 1])).expect_err("a reset, not a FIN");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let report = server.stop_when_nothing_is_open();
    assert_eq!((report.total.accepted, report.total.reset, report.total.open), (200, 0, 0));
}
