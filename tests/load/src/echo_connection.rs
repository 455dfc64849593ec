//! One connection of the echo mode: what is sent, what came back, which messages are under way.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::pattern::Pattern;
use crate::stats::ThreadStats;

/// What all connections of a run share.
pub(crate) struct Shape<'a> {
    pub(crate) pattern: &'a Pattern,
    /// Bytes of a message.
    pub(crate) size: u64,
    /// Messages that may be under way at once.
    pub(crate) depth: usize,
    /// Each message that comes back is an operation; false where the operation is the whole connection.
    pub(crate) count_messages: bool,
}

/// A connection from its opening to its end. An edge-triggered event is answered by [`EchoConnection::read`] and
/// then [`EchoConnection::write`], each until the kernel has no more.
pub(crate) struct EchoConnection {
    socket: TcpStream,
    /// Number of the connection in the whole run: the stream of the pattern.
    id: u32,
    established: bool,
    /// Bytes that the kernel took.
    sent: u64,
    /// Bytes that came back.
    received: u64,
    /// Start of each message under way, oldest first. A message is under way from before its first byte is
    /// written until its last byte is read.
    started: VecDeque<Instant>,
    /// Messages that may still be started.
    left: u64,
    /// Open loop: when each message that waits to be started should have been, oldest first.
    due: VecDeque<Instant>,
}

impl EchoConnection {
    pub(crate) fn new(socket: TcpStream, id: u32, messages: u64) -> Self {
        let (started, due) = (VecDeque::new(), VecDeque::new());
        Self { socket, id, established: false, sent: 0, received: 0, started, left: messages, due }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    pub(crate) fn set_established(&mut self) {
        self.established = true;
    }

    /// Starts no further message; those under way are finished.
    pub(crate) fn stop(&mut self) {
        self.left = 0;
    }

    /// Open loop: a message that should start at `time`. True if it can: not as many as allowed are under way or waiting.
    pub(crate) fn schedule(&mut self, shape: &Shape<'_>, time: Instant) -> bool {
        self.due.push_back(time);
        self.started.len() + self.due.len() <= shape.depth
    }

    /// True if no message is under way and none is to be started.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.started.is_empty() && self.due.is_empty()
    }

    /// Messages under way or still to be started.
    pub(crate) fn unfinished(&self) -> u64 {
        self.left + (self.started.len() + self.due.len()) as u64
    }

    /// Bytes that the kernel took and that have not come back.
    pub(crate) fn outstanding(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Starts messages up to the depth, and writes until the socket is full or everything is written.
    ///
    /// # Errors
    /// What `send(2)` says other than that the socket is full.
    pub(crate) fn write(&mut self, shape: &Shape<'_>) -> io::Result<()> {
        if self.left > 0 && self.started.len() < shape.depth {
            let now = Instant::now();
            while self.left > 0 && self.started.len() < shape.depth {
                self.started.push_back(now);
                self.left -= 1;
            }
        }
        let free = shape.depth.saturating_sub(self.started.len());
        self.started.extend(self.due.drain(..free.min(self.due.len())));
        let finished = self.received / shape.size;
        let end = (finished + self.started.len() as u64) * shape.size;
        while self.sent < end {
            let bytes = shape.pattern.bytes(self.id, self.sent, end - self.sent);
            match self.socket.write(bytes) {
                Ok(written) => self.sent += written as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads and checks until the socket is empty, or with `to_the_end` until the end of what the peer has sent. False
    /// at the end of the stream.
    ///
    /// # Errors
    /// What `recv(2)` says other than that the socket is empty.
    pub(crate) fn read(
        &mut self,
        shape: &Shape<'_>,
        buffer: &mut [u8],
        to_the_end: bool,
        stats: &mut ThreadStats,
    ) -> io::Result<bool> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.check(shape, &buffer[..length], stats);
                    // A short read has emptied the socket; bytes that come later are a new event (epoll(7)).
                    if length < buffer.len() && !to_the_end {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Compares received bytes with the stream and counts the messages that they finish.
    fn check(&mut self, shape: &Shape<'_>, bytes: &[u8], stats: &mut ThreadStats) {
        let expected = usize::try_from(self.outstanding()).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (echo, extra) = bytes.split_at(expected);
        stats.bytes_wrong += shape.pattern.count_wrong(self.id, self.received, echo);
        stats.bytes_extra += extra.len() as u64;
        stats.bytes += echo.len() as u64;
        let finished = (self.received + echo.len() as u64) / shape.size - self.received / shape.size;
        self.received += echo.len() as u64;
        let finished = usize::try_from(finished).expect("no more than were started");
        if finished > 0 {
            let now = Instant::now();
            let started = self.started.drain(..finished);
            if shape.count_messages {
                started.for_each(|start| stats.count_operation(now - start));
            }
        }
    }
}
