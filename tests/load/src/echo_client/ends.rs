//! How the connections of the echo mode begin and end.

use std::io;
use std::net::Shutdown;
use std::time::Instant;

use rustix::io::Errno;

use super::{Connection, EchoClient};
use crate::echo::Transport;
use crate::flow::Flow;
use crate::patience::Patience;
use crate::ring::Operation;
use crate::socket::{tcp, udp};
use crate::stats::ThreadStats;
use crate::{Error, Limit};

/// Connections that one thread opens at once: more would overflow a listener's backlog for nothing.
const OPENING_AT_ONCE: usize = 64;

impl<F: Flow> EchoClient<'_, F> {
    /// Opens all connections of this thread; those that fail are counted.
    pub(crate) fn open(&mut self) -> Result<(), Error> {
        let mut patience = Patience::new(self.options.timeout, Instant::now());
        loop {
            while self.opening < OPENING_AT_ONCE && self.connections.len() < self.ids.len() {
                self.open_next()?;
            }
            if self.opening == 0 {
                return Ok(());
            }
            if self.turn(patience.next())? {
                patience.renew(self.now);
            } else if patience.is_over(self.now) {
                self.give_up_openings();
            }
        }
    }

    fn open_next(&mut self) -> Result<(), Error> {
        let (slot, options) = (self.connections.len(), self.options);
        let id = self.ids[slot];
        let source = options.sources.as_ref().map(|sources| sources.nth(id.into()));
        let opened = match options.transport {
            Transport::Tcp => tcp(self.server, source),
            Transport::Udp => udp(self.server, source),
        };
        let messages = match options.limit {
            Limit::Duration(_) if options.rate.is_some() => 0,
            Limit::Duration(_) => u64::MAX,
            Limit::Count(count) => count,
        };
        let connection = match opened {
            Ok(socket) => {
                let flow = F::new(id, messages, &self.shape);
                let established = options.transport == Transport::Udp;
                Some(Connection { socket, flow, established, closing: false })
            }
            Err(error) => {
                self.count_failed_opening(&error);
                None
            }
        };
        self.connections.push(connection);
        let Some(connection) = &self.connections[slot] else { return Ok(()) };
        if connection.established {
            self.stats.counts.connections += 1;
            return self.ring.receive(slot, &connection.socket);
        }
        self.opening += 1;
        self.ring.connect(slot, &connection.socket, self.server)
    }

    pub(super) fn opened(&mut self, slot: usize, result: Result<usize, Errno>) -> Result<(), Error> {
        // Given up already if it is not there.
        let Some(connection) = self.connections[slot].as_mut() else { return Ok(()) };
        self.opening -= 1;
        match result {
            Ok(_) => {
                connection.established = true;
                self.stats.counts.connections += 1;
                self.ring.receive(slot, &connection.socket)
            }
            Err(errno) => {
                self.connections[slot] = None;
                self.count_failed_opening(&errno.into());
                Ok(())
            }
        }
    }

    fn give_up_openings(&mut self) {
        self.opening = 0;
        for slot in 0..self.connections.len() {
            if self.connections[slot].as_ref().is_some_and(|connection| !connection.established) {
                self.connections[slot] = None;
                self.count_failed_opening(&io::Error::other("no answer"));
            }
        }
    }

    fn count_failed_opening(&mut self, error: &io::Error) {
        self.stats.counts.count_connect_error(error);
        if let Limit::Count(count) = self.options.limit {
            self.stats.counts.operations_missing += count;
        }
    }

    /// Half-closes a connection, unless it is: what comes now but the end was never sent.
    pub(super) fn half_close(&mut self, slot: usize) {
        let Some(connection) = self.connections[slot].as_mut().filter(|connection| !connection.closing)
        else {
            return;
        };
        match connection.socket.shutdown(Shutdown::Write) {
            Ok(()) => connection.closing = true,
            Err(error) => {
                self.stats.counts.count_io_error(&error);
                self.connections[slot] = None;
            }
        }
    }

    /// Half-closes every connection and waits for the server to close: bytes that come now were never sent.
    pub(crate) fn close(mut self) -> Result<ThreadStats, Error> {
        if self.options.transport == Transport::Udp {
            return Ok(self.stats);
        }
        (0..self.connections.len()).for_each(|slot| self.half_close(slot));
        let mut open = self.connections.iter().flatten().count();
        let mut patience = Patience::new(self.options.timeout, Instant::now());
        while open > 0 && !patience.is_over(self.now) {
            self.ring.wait(patience.next())?;
            self.now = Instant::now();
            while let Some(completion) = self.ring.next() {
                let slot = completion.slot;
                let was_open = self.connections[slot].is_some();
                if completion.operation == Operation::Receive {
                    self.received(completion)?;
                }
                open -= usize::from(was_open && self.connections[slot].is_none());
            }
        }
        for _ in 0..open {
            self.stats.counts.count_io_error(&io::Error::other("not closed by the peer"));
        }
        Ok(self.stats)
    }
}
