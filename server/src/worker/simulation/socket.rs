//! The simulated network: one TCP connection between a peer and a worker, as the worker's kernel has it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::worker::token::ConnectionId;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The peer has not connected.
    Unborn,
    /// In the accept queue.
    Queued,
    /// Accepted.
    Open,
    /// Closed by the server.
    Closed,
}

/// Whether the worker waits for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    /// A send or a splice found no room for all of its bytes, or was such that the worker waits for the peer.
    Yes,
    /// The send has taken all.
    Over,
    /// The worker knows it since this turn.
    Known,
}

/// The server's end of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) life: Life,
    /// Bytes of the peer that wait to be received; at most `receive_buffer`.
    pub(super) incoming: VecDeque<u8>,
    pub(super) receive_buffer: usize,
    /// The peer's FIN is here, behind what is incoming.
    pub(super) fin: bool,
    /// The peer has reset the connection.
    pub(super) reset: bool,
    /// Bytes that the peer's kernel has not acknowledged; at most `send_buffer`.
    pub(super) outgoing: VecDeque<u8>,
    pub(super) send_buffer: usize,
    /// The server's FIN is behind what is outgoing.
    pub(super) shut: bool,
    /// The peer's kernel has acknowledged the server's FIN.
    pub(super) fin_acknowledged: bool,
    pub(super) wait: Wait,
    /// `SO_LINGER` of 0 s.
    pub(super) reset_on_close: bool,
    /// The worker that has it, and as whom.
    pub(super) owner: Option<(usize, ConnectionId)>,
    /// The plain descriptor beside a direct one.
    pub(super) alias: Option<u32>,
    /// Bytes that the worker got.
    pub(super) received: u64,
    /// Bytes that the kernel took from the worker.
    pub(super) sent: u64,
    /// Those of them that the peer's kernel has.
    pub(super) acknowledged: u64,
    /// When bytes last went to or from the worker.
    pub(super) active: Instant,
    /// The longest time in which none did.
    pub(super) longest_rest: Duration,
}

impl Socket {
    pub(super) fn new(receive_buffer: usize, send_buffer: usize, now: Instant) -> Self {
        Self {
            life: Life::Unborn,
            incoming: VecDeque::new(),
            receive_buffer,
            fin: false,
            reset: false,
            outgoing: VecDeque::new(),
            send_buffer,
            shut: false,
            fin_acknowledged: false,
            wait: Wait::No,
            reset_on_close: false,
            owner: None,
            alias: None,
            received: 0,
            sent: 0,
            acknowledged: 0,
            active: now,
            longest_rest: Duration::ZERO,
        }
    }

    /// Whether a receive would end or bring something.
    pub(super) fn is_readable(&self) -> bool {
        !self.incoming.is_empty() || self.fin || self.reset
    }

    /// Bytes that a send can take now.
    pub(super) fn room(&self) -> usize {
        self.send_buffer - self.outgoing.len()
    }

    /// `SIOCOUTQ`.
    pub(super) fn unacknowledged(&self) -> usize {
        self.outgoing.len() + usize::from(self.shut && !self.fin_acknowledged)
    }

    fn touch(&mut self, now: Instant) {
        self.longest_rest = self.longest_rest.max(now - self.active);
        self.active = now;
    }

    /// True if it ever was idle for this long: bytes may come while the worker closes it for that.
    pub(super) fn was_idle(&self, timeout: Duration, now: Instant) -> bool {
        self.longest_rest.max(now - self.active) >= timeout
    }

    /// The kernel takes bytes from the worker.
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant) {
        assert!(self.life == Life::Open && !self.shut, "bytes behind the FIN");
        assert!(bytes.len() <= self.room());
        self.outgoing.extend(bytes);
        self.sent += bytes.len() as u64;
        self.touch(now);
    }

    /// The worker gets bytes.
    pub(super) fn receive(&mut self, length: usize, now: Instant) -> Vec<u8> {
        self.received += length as u64;
        self.touch(now);
        self.incoming.drain(..length).collect()
    }

    /// The peer resets the connection. `forgets`: what has come before is not read any more.
    pub(super) fn reset(&mut self, forgets: bool) {
        self.reset = true;
        self.outgoing.clear();
        if forgets {
            self.incoming.clear();
        }
    }
}
