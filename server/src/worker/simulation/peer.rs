//! The simulated peers: each follows a script and checks every byte that it gets.

use std::collections::VecDeque;

/// One step of a peer's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Sends this many bytes, as the window allows.
    Send(u32),
    /// Sends this many bytes, one at a time.
    Trickle(u32),
    /// Waits until all is here that is owed for what was sent.
    Await,
    /// Reads no more until [`Action::Read`], or until nothing else would ever happen.
    StopReading,
    Read,
    /// From now on reads at most so many bytes between two enters of a worker.
    ReadSlowly(u32),
    /// Sends its FIN, with or without bytes pending.
    HalfClose,
    Reset,
    /// Stays, silent, until the server ends the connection or nothing else would ever happen.
    Stay,
}

/// The peer's end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) script: VecDeque<Action>,
    /// Which listener it connects to.
    pub(super) listener: usize,
    /// Bytes sent so far.
    pub(super) sent: u64,
    /// Bytes read so far.
    pub(super) read: u64,
    /// What its kernel has acknowledged and it has not read; at most `receive_buffer`.
    pub(super) inbox: VecDeque<u8>,
    pub(super) receive_buffer: usize,
    pub(super) reads: bool,
    /// Bytes that it reads at most between two enters, and that it still may until the next.
    pub(super) pace: Option<usize>,
    pub(super) allowance: usize,
    /// It has sent its FIN.
    pub(super) has_finished: bool,
    /// The server's FIN has come, behind what is in the inbox.
    pub(super) fin: bool,
    /// The server's reset has come.
    pub(super) reset: bool,
    /// It has come to its end.
    pub(super) done: bool,
}

impl Peer {
    pub(super) fn new(script: Vec<Action>, listener: usize, receive_buffer: usize) -> Self {
        Self {
            script: script.into(),
            listener,
            sent: 0,
            read: 0,
            inbox: VecDeque::new(),
            receive_buffer,
            reads: true,
            pace: None,
            allowance: usize::MAX,
            has_finished: false,
            fin: false,
            reset: false,
            done: false,
        }
    }

    /// A worker enters its kernel. True if the peer may read more than before.
    pub(super) fn may_read_on(&mut self) -> bool {
        let before = std::mem::replace(&mut self.allowance, self.pace.unwrap_or(usize::MAX));
        self.pace.is_some() && before < self.allowance && !self.done
    }
}

/// The byte at this position of what a peer sends: two peers' or two positions' are rarely the same.
pub(super) fn pattern(peer: usize, position: u64) -> u8 {
    let mixed = ((peer as u64) << 40 ^ position).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_le_bytes()[7]
}
