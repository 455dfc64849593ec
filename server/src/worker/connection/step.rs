//! What a connection tells the worker to do, and how what it asked for may end. Pure.

/// How a receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveEnd {
    /// The peer has sent its FIN. Sending to it still works.
    Eof,
    /// No buffer was free. Not an error: the receive is armed again when buffers have come back.
    NoBuffers,
    /// Ended by a cancel, used up, or cut short by a full completion queue: to be armed again when wanted.
    Stopped,
    /// The connection is broken.
    Failed,
}

/// What a connection asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Arm a multishot receive into the pool.
    Receive,
    /// Get a plain descriptor beside this direct one, for `splice(2)`.
    Install(u32),
    /// Tell when bytes wait, which are to be spliced.
    Watch,
    /// Send what is queued; fail rather than wait when the socket is full.
    SendNow,
    /// Send what is queued, all of it, waiting for the peer. The bytes may be moved out of the pool before.
    SendWaiting,
    /// Count the bytes that the peer has not acknowledged.
    CountUnsent,
    /// Make the close a reset.
    ResetOnClose,
    /// End the receive or the watch.
    CancelReceive,
    /// Send a FIN.
    Shutdown,
    /// End the send.
    CancelSend,
    /// Close the descriptor, and before it the plain one beside it.
    Close,
}
