//! One connection: read, send back, keep what the socket did not take.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Full buffers that one connection may bring at one event before the others have their turn.
const TURN: u32 = 16;

/// A connection. While bytes are pending nothing is read, so that no more than one receive buffer is pending.
pub(crate) struct Connection {
    socket: OwnedFd,
    pending: Option<Pending>,
}

/// Bytes that the socket did not take.
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything that has come has gone back.
    Idle,
    /// It has had its turn, and there may be more to read.
    More,
    /// The socket is full: bytes are pending.
    Blocked,
    /// Over: the peer has ended it, and everything has gone back; or it has failed.
    Ended,
}

/// What the connections of a thread share.
pub(crate) struct Buffers {
    receive: Box<[u8]>,
    /// Vectors for pending bytes that are not in use: at most [`Buffers::SPARE`].
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    const SPARE: usize = 64;

    pub(crate) fn new(size: usize) -> Self {
        Self { receive: vec![0; size].into_boxed_slice(), spare: Vec::with_capacity(Self::SPARE) }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, pending: None }
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.pending.is_some()
    }

    /// Sends what is pending, then reads and sends back until there is nothing to read or the turn is over.
    /// `ended`: the peer has ended its side, so that it is read to the end; otherwise a read that does not
    /// fill the buffer has emptied the socket, and what comes later is a new event (epoll(7)).
    pub(crate) fn advance(&mut self, buffers: &mut Buffers, ended: bool) -> Progress {
        self.try_advance(buffers, ended).unwrap_or(Progress::Ended)
    }

    fn try_advance(&mut self, buffers: &mut Buffers, ended: bool) -> Result<Progress, Errno> {
        if !self.flush(&mut buffers.spare)? {
            return Ok(Progress::Blocked);
        }
        for _ in 0..TURN {
            let received = match recv(&self.socket, &mut *buffers.receive, RecvFlags::empty()) {
                Ok((0, _)) => return Ok(Progress::Ended),
                Ok((received, _)) => received,
                Err(Errno::AGAIN) => return Ok(Progress::Idle),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let bytes = &buffers.receive[..received];
            let sent = self.send(bytes)?;
            if sent < received {
                let mut pending = buffers.spare.pop().unwrap_or_default();
                pending.extend_from_slice(&bytes[sent..]);
                self.pending = Some(Pending { bytes: pending, sent: 0 });
                return Ok(Progress::Blocked);
            }
            if received < buffers.receive.len() && !ended {
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::More)
    }

    /// Sends what is pending; true if nothing is left.
    fn flush(&mut self, spare: &mut Vec<Vec<u8>>) -> Result<bool, Errno> {
        let Some(mut pending) = self.pending.take() else { return Ok(true) };
        pending.sent += self.send(&pending.bytes[pending.sent..])?;
        if pending.sent < pending.bytes.len() {
            self.pending = Some(pending);
            return Ok(false);
        }
        if spare.len() < Buffers::SPARE {
            pending.bytes.clear();
            spare.push(pending.bytes);
        }
        Ok(true)
    }

    /// Sends once; gives how much the socket took.
    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            result => result,
        }
    }
}
