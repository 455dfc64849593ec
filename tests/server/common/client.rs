//! A client of an echo server that checks every byte it gets back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::{DEADLINE, pattern, sockets, wait_until};

/// Bytes written or read at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

/// A stream that takes no byte for this long is full.
const FULL: Duration = Duration::from_secs(1);

/// One connection. What it sends is the pattern of its number from 0 on; what it receives must be the same.
pub(crate) struct Client {
    stream: TcpStream,
    number: u32,
    sent: u64,
    received: u64,
}

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

impl Client {
    /// Connects to the server.
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::try_connect(server).unwrap_or_else(|error| panic!("connect to {server}: {error}"))
    }

    /// As [`Client::connect`], for a server that may refuse.
    pub(crate) fn try_connect(server: SocketAddr) -> std::io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&server, DEADLINE)?)
    }

    /// Connects with small segments and small buffers on both sides of the client's end: about 100 KiB fill
    /// the connection in each direction, so that many of them can be full at once.
    pub(crate) fn connect_narrow(server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("make a socket");
        socket.set_tcp_mss(1400).expect("set the segment size");
        socket.set_recv_buffer_size(16 * 1024).expect("set the receive buffer");
        socket.set_send_buffer_size(16 * 1024).expect("set the send buffer");
        let connected = socket.connect_timeout(&server.into(), DEADLINE).map(|()| socket.into());
        connected.and_then(Self::over).unwrap_or_else(|error| panic!("connect to {server}: {error}"))
    }

    fn over(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { stream, number, sent: 0, received: 0 })
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes received, and found right, so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Sends the next `count` bytes.
    pub(crate) fn send(&mut self, count: usize) {
        self.try_send(count).unwrap_or_else(|error| panic!("send after {} bytes: {error}", self.sent));
    }

    /// As [`Client::send`], for a server that may end meanwhile.
    pub(crate) fn try_send(&mut self, count: usize) -> std::io::Result<()> {
        let mut rest = count;
        while rest > 0 {
            let bytes = pattern::bytes(self.number, self.sent, rest.min(CHUNK));
            self.stream.write_all(bytes)?;
            self.sent += bytes.len() as u64;
            rest -= bytes.len();
        }
        Ok(())
    }

    /// Sends a byte that is no part of the stream (`MSG_OOB`).
    pub(crate) fn send_urgent(&mut self) {
        let sent = SockRef::from(&self.stream).send_out_of_band(b"!");
        assert_eq!(sent.expect("send urgent data"), 1);
    }

    /// Receives and checks the next `count` bytes.
    pub(crate) fn receive(&mut self, count: u64) {
        let end = self.received + count;
        let mut buffer = vec![0; CHUNK];
        while self.received < end {
            let want = usize::try_from(end - self.received).map_or(CHUNK, |rest| rest.min(CHUNK));
            let got = self.read(&mut buffer[..want]);
            assert!(got > 0, "the stream ends after {} of {end} bytes", self.received);
        }
    }

    /// Receives and checks everything sent so far.
    pub(crate) fn receive_all(&mut self) {
        self.receive(self.sent - self.received);
    }

    /// Sends a message and waits for its echo.
    pub(crate) fn echo(&mut self, count: usize) {
        self.send(count);
        self.receive_all();
    }

    /// Sends a message and waits for its echo; false if the server ends the stream instead, in good order.
    ///
    /// # Panics
    /// If it resets the connection, or ends it within a message.
    pub(crate) fn echo_or_end(&mut self, count: usize) -> bool {
        // After the end of the server's stream a send may fail; the end is still there to be read.
        let sent = self.try_send(count).map_or(0, |()| count);
        let before = self.received;
        let mut buffer = vec![0; CHUNK];
        while self.received < before + sent as u64 || sent == 0 {
            if self.read(&mut buffer) == 0 {
                assert_eq!(self.received, before, "the stream ends within a message");
                return false;
            }
        }
        true
    }

    /// True once everything sent has come back, as far as it is here already: does not wait.
    pub(crate) fn has_received_all(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("set non-blocking");
        let mut buffer = vec![0; CHUNK];
        while self.received < self.sent {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the stream ends after {} of {} bytes", self.received, self.sent),
                Ok(got) => self.take(&buffer[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("receive after {} of {} bytes: {error}", self.received, self.sent),
            }
        }
        self.stream.set_nonblocking(false).expect("set blocking");
        self.received == self.sent
    }

    /// Sends without reading until the connection is full in both directions; returns the bytes sent in all.
    ///
    /// # Panics
    /// If `limit` bytes do not fill it.
    pub(crate) fn fill(&mut self, limit: u64) -> u64 {
        fill_all(std::slice::from_mut(self), CHUNK, limit);
        self.sent
    }

    /// As [`Client::fill`]; then reads until the server's kernel has everything that was sent. What is still
    /// in the client's comes as fast as the machine is, and a server that drains ends who has been quiet for
    /// a while.
    pub(crate) fn fill_the_server(&mut self, limit: u64) -> u64 {
        self.fill(limit);
        while !self.is_acknowledged() {
            self.receive((self.sent - self.received).min(CHUNK as u64));
        }
        self.sent
    }

    /// Waits until the server's kernel has everything that was sent, without reading.
    pub(crate) fn wait_until_acknowledged(&self) {
        wait_until("the server's kernel has all", || self.is_acknowledged());
    }

    fn is_acknowledged(&self) -> bool {
        sockets::all_acknowledged(self.stream.local_addr().expect("an address").port())
    }

    /// Sends what the kernel takes at once; returns how much that was.
    pub(crate) fn send_what_fits(&mut self, at_a_time: usize) -> std::io::Result<u64> {
        let before = self.sent;
        self.stream.set_nonblocking(true).expect("set non-blocking");
        let end = loop {
            let bytes = pattern::bytes(self.number, self.sent, at_a_time);
            match self.stream.write(bytes) {
                Ok(count) => self.sent += count as u64,
                Err(error) => break error,
            }
        };
        self.stream.set_nonblocking(false).expect("set blocking");
        if end.kind() == ErrorKind::WouldBlock { Ok(self.sent - before) } else { Err(end) }
    }

    /// Ends the client's stream; the other direction stays open.
    pub(crate) fn finish(&mut self) {
        self.try_finish().expect("end the stream");
    }

    /// As [`Client::finish`], for a server that may end meanwhile.
    pub(crate) fn try_finish(&mut self) -> std::io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Waits for the end of the server's stream.
    ///
    /// # Panics
    /// If a byte comes, or a reset.
    pub(crate) fn expect_end(&mut self) {
        let mut byte = [0];
        let end = self.read_once(&mut byte);
        assert!(matches!(end, Ok(0)), "after {} bytes: {end:?} instead of the end", self.received);
    }

    /// Receives and checks until the server ends the stream.
    ///
    /// # Panics
    /// If it resets the connection.
    pub(crate) fn receive_until_the_end(&mut self) {
        let mut buffer = vec![0; CHUNK];
        while self.read(&mut buffer) > 0 {}
    }

    /// Lets a writer in another thread fail: nothing is sent or received any more.
    pub(crate) fn finish_reading(&mut self) {
        // Fails if the connection is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits until the server has ended the connection in whatever way; bytes of the stream are checked.
    /// Returns how long that took.
    pub(crate) fn wait_for_end(&mut self) -> Duration {
        let start = Instant::now();
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.read_once(&mut buffer) {
                Ok(0) => break,
                Ok(got) => self.take(&buffer[..got]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("wait for the end: {error}"),
            }
        }
        start.elapsed()
    }

    /// Closes with a reset: whatever is under way in either direction is thrown away.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER to 0");
    }

    /// The two directions, to be used by a thread each.
    pub(crate) fn split(self) -> (Self, Self) {
        let stream = self.stream.try_clone().expect("duplicate a socket");
        (Self { stream, ..self }, self)
    }

    /// A read with a timeout is interrupted when a stopped process goes on (signal(7)).
    fn read_once(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        match self.read_once(buffer) {
            Ok(got) => {
                self.take(&buffer[..got]);
                got
            }
            Err(error) => panic!("receive after {} bytes: {error}", self.received),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        pattern::check(self.number, self.received, bytes);
        self.received += bytes.len() as u64;
    }
}

/// As [`Client::fill`], for many connections at the same time, in writes of `at_a_time` bytes.
///
/// # Panics
/// If `limit` bytes do not fill a connection.
pub(crate) fn fill_all(clients: &mut [Client], at_a_time: usize, limit: u64) {
    let lost = fill_some(clients, at_a_time, limit);
    assert!(lost.is_empty(), "{:?}", lost[0].1);
}

/// As [`fill_all`], for a server that may reset connections. Gives those that it has not reset.
pub(crate) fn fill_or_be_reset(mut clients: Vec<Client>, limit: u64) -> Vec<Client> {
    loop {
        let lost = fill_some(&mut clients, CHUNK, limit);
        if lost.is_empty() {
            return clients;
        }
        for (index, error) in lost.into_iter().rev() {
            let reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            assert!(reset, "send after {} bytes: {error}", clients[index].sent);
            clients.swap_remove(index);
        }
    }
}

/// Fills these connections until nothing goes any more, or some are lost: these, in order, and how.
fn fill_some(clients: &mut [Client], at_a_time: usize, limit: u64) -> Vec<(usize, std::io::Error)> {
    loop {
        let (mut progress, mut lost) = (0, Vec::new());
        for (index, client) in clients.iter_mut().enumerate() {
            match client.send_what_fits(at_a_time) {
                Ok(bytes) => progress += bytes,
                Err(error) => lost.push((index, error)),
            }
            assert!(client.sent < limit, "{} bytes sent, none read: nothing bounds them", client.sent);
        }
        if !lost.is_empty() || progress == 0 && !any_writable_within(FULL, clients) {
            return lost;
        }
    }
}

/// In which order clients hear from the server.
pub(crate) struct Arrivals<'c> {
    clients: &'c [Client],
    ready: OwnedFd,
}

impl<'c> Arrivals<'c> {
    /// From now on; nothing has arrived yet.
    pub(crate) fn of(clients: &'c [Client]) -> Self {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("make an epoll instance");
        for (index, client) in (0..).zip(clients) {
            let added =
                epoll::add(&ready, &client.stream, epoll::EventData::new_u64(index), epoll::EventFlags::IN);
            added.expect("watch a socket");
        }
        Self { clients, ready }
    }

    /// Waits until each has heard something. The kernel appends a socket to the list of those that are ready
    /// when its first bytes arrive (`ep_poll_callback` in its `fs/eventpoll.c`): the list is read once, when
    /// all are in it.
    pub(crate) fn wait_for_all(self) -> Vec<usize> {
        let all = self.clients.len();
        wait_until("each has heard something", || {
            let mut sockets: Vec<_> =
                self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)).collect();
            poll(&mut sockets, Some(&Timespec::default())).expect("poll sockets") == all
        });
        let mut events = Vec::with_capacity(all);
        epoll::wait(&self.ready, spare_capacity(&mut events), None).expect("read the list");
        events.iter().map(|event| usize::try_from(event.data.u64()).expect("an index")).collect()
    }
}

fn any_writable_within(time: Duration, clients: &[Client]) -> bool {
    let mut ready: Vec<_> = clients.iter().map(|c| PollFd::new(&c.stream, PollFlags::OUT)).collect();
    let timeout = Timespec::try_from(time).expect("a short time");
    poll(&mut ready, Some(&timeout)).expect("poll sockets") > 0
}
