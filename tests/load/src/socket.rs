//! Non-blocking TCP sockets: open, ask how the opening ended, close by reset.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Starts a connection; it is established, or has failed, when the socket becomes writable.
pub(crate) fn start_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// How the opening of a connection stands.
pub(crate) enum Opening {
    Pending,
    Established,
    Failed(io::Error),
}

/// Asks how the opening of `socket` stands.
pub(crate) fn opening(socket: &TcpStream) -> Opening {
    match socket.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Opening::Failed(error),
    }
    match socket.peer_addr() {
        Ok(_) => Opening::Established,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Opening::Pending,
        Err(error) => Opening::Failed(error),
    }
}

/// Closes with RST instead of FIN, so that no TIME_WAIT keeps the port (`SO_LINGER` with 0 seconds, socket(7)).
pub(crate) fn close_by_reset(socket: TcpStream) -> io::Result<()> {
    let set = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    drop(socket);
    set
}
