//! A client of `--udp`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::SockRef;

use crate::common::{DEADLINE, WATCH, pattern};

/// One socket that checks every byte it gets back.
pub(super) struct Client {
    pub(super) socket: UdpSocket,
    number: u32,
    pub(super) sent: u64,
    received: u64,
    sizes: VecDeque<usize>,
}

impl Client {
    pub(super) fn connect(server: SocketAddr) -> Self {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).expect("bind a socket");
        Self::over(socket, server)
    }

    /// A connected socket takes datagrams from `server` alone.
    pub(super) fn over(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.connect(server).expect("connect");
        socket.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
        SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("set the receive buffer");
        let number = u32::from(socket.local_addr().expect("an address").port());
        Self { socket, number, sent: 0, received: 0, sizes: VecDeque::new() }
    }

    /// Sends the next datagram.
    pub(super) fn send(&mut self, size: usize) {
        let sent = self.socket.send(pattern::bytes(self.number, self.sent, size));
        assert_eq!(sent.expect("send a datagram"), size);
        self.sent += size as u64;
        self.sizes.push_back(size);
    }

    /// Receives the oldest datagram that has not come back yet: those of one client keep their order.
    fn receive(&mut self) {
        let size = self.sizes.pop_front().expect("a datagram was sent");
        let mut buffer = vec![0; 1 << 16];
        let got = self.socket.recv(&mut buffer).expect("receive a datagram");
        assert_eq!(got, size, "bytes of a datagram");
        pattern::check(self.number, self.received, &buffer[..got]);
        self.received += size as u64;
    }

    pub(super) fn receive_all(&mut self) {
        while !self.sizes.is_empty() {
            self.receive();
        }
    }

    pub(super) fn echo(&mut self, size: usize) {
        self.send(size);
        self.receive_all();
    }

    /// # Panics
    /// If anything more comes within [`WATCH`].
    pub(super) fn expect_silence(&self) {
        self.socket.set_read_timeout(Some(WATCH)).expect("set a timeout");
        let got = self.socket.recv(&mut [0; 100]);
        assert!(got.is_err(), "{got:?} bytes more");
    }
}
