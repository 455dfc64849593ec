//! Small servers that echo, rightly and wrongly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A listener whose every connection is served by `serve` on a thread of its own, until the test ends.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind to a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|socket| drop(thread::spawn(move || serve(socket))));
    });
    address
}

/// Echoes, after `change` was applied to the `count`-th read.
pub(crate) fn echo_with(mut socket: TcpStream, change: fn(usize, &mut Vec<u8>)) {
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

pub(crate) fn good() -> SocketAddr {
    listen(|socket| echo_with(socket, |_, _| {}))
}
