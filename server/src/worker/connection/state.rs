//! The states of a connection, how bytes come to it, and what the kernel may hold of it.

/// Requests of a connection that the kernel holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    /// A receive, or the watch for bytes that are to be spliced.
    pub(super) receive: Option<Way>,
    pub(super) send: bool,
    pub(super) cancel: bool,
    /// A look at the socket, at its CPU or at its unsent bytes, a change of its options, or the wish for a
    /// plain descriptor.
    pub(super) look: bool,
    pub(super) shutdown: bool,
    /// A zero-copy send was done, and the kernel still reads from its pieces.
    pub(super) notification: bool,
}

impl InFlight {
    /// What must end before the descriptor is closed.
    pub(super) fn any_on_descriptor(self) -> bool {
        let Self { receive, send, cancel, look, shutdown, notification } = self;
        receive.is_some() || send && !notification || cancel || look || shutdown
    }
}

/// How bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into buffers of the pool.
    Pool,
    /// Through the worker's pipe, straight back.
    Pipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The slot has no connection.
    Free,
    /// Bytes go both ways.
    Open,
    /// The peer has sent its FIN. What is queued is sent, then closed.
    Finishing,
    /// The server drains. No more is received; what is queued is sent, then the FIN.
    Ending,
    /// The server has sent its FIN first. Bytes that crossed it are read and dropped, until the peer closes
    /// or has acknowledged everything: closing before would reset the connection, and the peer lose what it
    /// has not got yet.
    Lingering,
    /// Reset, or out of time: nothing more is sent.
    Aborting,
    /// The descriptor was asked to be closed; the kernel still reads from what was sent.
    Closed,
}
