//! The server does not care what the bytes are or how they are cut.

use std::io::{Read, Write};
use std::net::TcpStream;

use socket2::SockRef;

use crate::common::{Client, DEADLINE, Server};

#[test]
fn one_byte_at_a_time_comes_back_byte_by_byte() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address);
    (0..2_000).for_each(|_| client.echo(1));
    (0..2_000).for_each(|_| client.send(1));
    client.receive_all();
    drop(client);
    server.stop_when_nothing_is_open().assert_exactly(1, 4_000);
}

#[test]
fn requests_of_other_protocols_and_nul_bytes_are_echoed_like_any() {
    let server = Server::start(&[]);
    let tls_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let http = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
    for message in [&http[..], &tls_hello, &[0; 10_000], &[0xff; 10_000], b"\r\n\r\n", b"\x04\x1a"] {
        let mut stream = connect(&server);
        stream.write_all(message).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, message);
    }
}

/// Urgent data is not part of the stream (tcp(7), SO_OOBINLINE off); the receive that meets it ends early.
#[test]
fn urgent_data_does_not_end_or_shift_the_stream() {
    let server = Server::start(&[]);
    let mut stream = connect(&server);
    stream.write_all(b"before").unwrap();
    SockRef::from(&stream).send_out_of_band(b"!").unwrap();
    stream.write_all(b"after").unwrap();
    let mut back = [0; 11];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"beforeafter");
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    stream
}
