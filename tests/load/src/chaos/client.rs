//! One connection of a behaviour, and what its connections have met with.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Behaviour, Context};
use crate::counts::{ErrorCounts, error_kind};
use crate::pattern::Pattern;

/// What came of a behaviour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was done.
    pub behaviour: Behaviour,
    /// Connections that were established.
    pub connections: u64,
    /// Bytes that came back.
    pub bytes: u64,
    /// Bytes that came back and are not what was sent at that offset.
    pub bytes_wrong: u64,
    /// Bytes that were sent, and waited for, and did not come back.
    pub bytes_lost: u64,
    /// Bytes that came back beyond what was sent.
    pub bytes_extra: u64,
    /// What went wrong on connections, by errno name.
    pub errors: ErrorCounts,
}

impl Outcome {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        let errors = ErrorCounts::new();
        Self { behaviour, connections: 0, bytes: 0, bytes_wrong: 0, bytes_lost: 0, bytes_extra: 0, errors }
    }

    /// Counts the error, if it is one.
    pub(super) fn count<T>(&mut self, result: io::Result<T>) -> Option<T> {
        let count = |error| *self.errors.entry(error_kind(&error)).or_default() += 1;
        result.map_err(count).ok()
    }

    pub(super) fn failure(&self) -> Option<String> {
        let counts = [
            (self.bytes_wrong, "wrong bytes"),
            (self.bytes_lost, "lost bytes"),
            (self.bytes_extra, "bytes that were never sent"),
        ];
        let bad: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!bad.is_empty()).then(|| format!("{}: {}", self.name(), bad.join(", ")))
    }

    fn name(&self) -> String {
        use clap::ValueEnum;
        self.behaviour.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { connections, bytes, bytes_wrong, bytes_lost, .. } = self;
        let name = self.name();
        write!(
            out,
            "{name}: {connections} connections, {bytes} bytes back ({bytes_wrong} wrong, {bytes_lost} lost)"
        )?;
        for (kind, count) in &self.errors {
            write!(out, ", {count} x {kind}")?;
        }
        writeln!(out)
    }
}

/// What a read has given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    Bytes,
    Nothing,
    End,
}

/// A connection that verifies what comes back.
pub(super) struct Client<'a> {
    socket: TcpStream,
    pattern: &'a Pattern,
    id: u32,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl<'a> Client<'a> {
    /// Connects; counts the connection, or why there is none.
    pub(super) fn open(context: &Context<'a>, id: u32, outcome: &mut Outcome) -> Option<Self> {
        let connect = || {
            let socket = TcpStream::connect_timeout(&context.address, context.timeout)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(context.timeout))?;
            socket.set_write_timeout(Some(context.timeout))?;
            Ok(socket)
        };
        let socket = outcome.count(connect())?;
        outcome.connections += 1;
        Some(Self { socket, pattern: context.pattern, id, sent: 0, received: 0 })
    }

    /// Opens as many as there should be. Afterwards no call waits.
    pub(super) fn open_all(context: &Context<'a>, outcome: &mut Outcome) -> Vec<Self> {
        let open = |id| {
            let client = Self::open(context, id, outcome)?;
            outcome.count(client.socket.set_nonblocking(true))?;
            Some(client)
        };
        (0..context.connections).filter_map(open).collect()
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Sends up to `most` bytes of the pattern.
    pub(super) fn send(&mut self, most: u64) -> io::Result<u64> {
        let bytes = self.pattern.bytes(self.id, self.sent, most);
        match self.socket.write(bytes) {
            Ok(length) => {
                self.sent += length as u64;
                Ok(length as u64)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads once, up to `most` bytes, and checks them.
    pub(super) fn read(&mut self, most: usize, outcome: &mut Outcome) -> io::Result<Came> {
        let mut buffer = [0; 16 * 1024];
        let most = most.min(buffer.len());
        let length = match self.socket.read(&mut buffer[..most]) {
            Ok(0) => return Ok(Came::End),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Came::Nothing),
            Err(error) => return Err(error),
        };
        let awaited =
            usize::try_from(self.sent - self.received).map_or(length, |awaited| awaited.min(length));
        outcome.bytes_wrong += self.pattern.count_wrong(self.id, self.received, &buffer[..awaited]);
        outcome.bytes_extra += (length - awaited) as u64;
        outcome.bytes += awaited as u64;
        self.received += awaited as u64;
        Ok(Came::Bytes)
    }

    /// Reads until everything came back, or, with `end`, until the end of the stream.
    pub(super) fn read_rest(
        &mut self,
        end: bool,
        deadline: Instant,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        while end || self.received < self.sent {
            match self.read(usize::MAX, outcome)? {
                Came::End if self.received == self.sent => return Ok(()),
                Came::End => return Err(io::Error::other("closed by the peer")),
                // The socket has a timeout.
                Came::Nothing => return Err(io::Error::other("no answer")),
                Came::Bytes if Instant::now() >= deadline => return Err(io::Error::other("no answer")),
                Came::Bytes => {}
            }
        }
        Ok(())
    }
}
