//! What a worker asks of the kernel: the narrow interface behind which the ring is, or, in tests, a simulated
//! kernel.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::memory::{Memory, Span};
use super::token::{BufferId, ConnectionId, Descriptor, Token};

/// A request without data of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Accept connections of the listener until it is cancelled. Accepted sockets inherit the listener's
    /// options.
    AcceptMultishot(Listener),
    /// Accept one connection.
    AcceptOne(Listener),
    /// End all accepts of the listener.
    CancelAccepts(Listener),
    /// Wait until the eventfd is written to.
    PollWake(RawFd),
    /// Receive into buffers of the pool until it ends: `IORING_CQE_F_MORE` clear. Where the kernel has a
    /// receive credit it does once it has brought so many bytes.
    Receive(ConnectionId, Descriptor, u32),
    /// Wait until bytes, the end of the stream or an error can be received; the result is `poll(2)`'s mask.
    Watch(ConnectionId, Descriptor),
    /// Make a plain descriptor beside this direct one (Linux 6.8 and later).
    Install(ConnectionId, u32),
    /// End what this token stands for, a connection's receive, watch or send. The answer is how many it hit.
    Cancel(ConnectionId, Token),
    /// Send a FIN. The kernel does this on a thread of io-wq, so it is for the end of a drain only.
    Shutdown(ConnectionId, Descriptor),
    /// Make the close of this direct descriptor a reset: `SO_LINGER` of 0 s.
    ResetOnClose(ConnectionId, u32),
    /// Close the descriptor. Only when nothing else is in flight for it: an armed receive would keep the
    /// socket, and its FIN, back. It is closed when the kernel has taken the request, before all that is
    /// asked for later, and completes only if it fails, which no peer can make it do.
    Close(ConnectionId, Descriptor),
    /// Read `SO_INCOMING_CPU` of this direct descriptor; after the completion [`Kernel::sampled_cpu`] has it.
    LookForCpu(Sample, ConnectionId, u32),
    /// Count the bytes that this direct descriptor's peer has not acknowledged (`SIOCOUTQ`); the result has
    /// it.
    LookForUnsent(ConnectionId, u32),
    /// Give this plain descriptor to the member of the crew that has this ring.
    HandOver {
        /// The other worker's ring.
        ring: RawFd,
        /// The connection's descriptor.
        number: u32,
        /// The other worker's place in the crew.
        member: u32,
    },
    /// Tell the worker that has this ring that this one has room again. Completes only if it fails.
    TellOfRoom(RawFd),
}

/// A listening socket: its place among the worker's, and its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Index among the worker's listeners.
    pub(crate) index: u32,
    /// Its descriptor.
    pub(crate) descriptor: RawFd,
}

/// When a connection's CPU is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    /// Right after it was accepted.
    Accept,
    /// After bytes were received.
    Receive,
}

/// How a send ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It sends what the socket has room for. Nothing completes when that is all, else a completion says how
    /// much, EAGAIN if nothing.
    Silent,
    /// The kernel waits for the peer and completes when all is sent, or with the error.
    Waiting,
    /// As `Waiting`, and the kernel reads from the pieces until the peer has acknowledged them: a second
    /// completion, [`Completion::notification`], follows a first one that has [`Completion::more`].
    ZeroCopy,
}

/// An answer of the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    /// What it answers; `None` if `user_data` is none of ours.
    pub(crate) token: Option<Token>,
    /// Bytes, a descriptor number, 0, or the error.
    pub(crate) result: Result<u32, Errno>,
    /// More completions of the request follow (`IORING_CQE_F_MORE`).
    pub(crate) more: bool,
    /// The buffer that holds the bytes (`IORING_CQE_F_BUFFER`). It is the worker's now, whatever the result
    /// is.
    pub(crate) buffer: Option<BufferId>,
    /// A receive left bytes in the socket (`IORING_CQE_F_SOCK_NONEMPTY`).
    pub(crate) left_some: bool,
    /// The kernel reads no more from a zero-copy send's pieces (`IORING_CQE_F_NOTIF`).
    pub(crate) notification: bool,
}

/// What was spliced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spliced {
    /// Bytes that were taken out of the socket; 0 at the end of the stream.
    pub(crate) came: usize,
    /// Those of them that went back into it.
    pub(crate) gone: usize,
}

/// A ring, and the few system calls beside it.
pub(crate) trait Kernel {
    /// How many requests may be asked for before the next [`Kernel::enter`].
    fn room(&self) -> usize;

    /// Queues a request, which has [room](Kernel::room). The kernel gets it with the next [`Kernel::enter`].
    fn ask(&mut self, request: Request);

    /// Queues a send of these spans, which stay where they are until it has ended; at most [`MOST_PIECES`].
    /// Returns how many of them it took, at least one.
    fn send(
        &mut self,
        id: ConnectionId,
        descriptor: Descriptor,
        spans: impl Iterator<Item = Span> + Clone,
        memory: &Memory,
        manner: Manner,
    ) -> usize;

    /// Requests queued so far. A request's number is the value just after it was queued.
    fn queued(&self) -> u64;

    /// Requests that the kernel has taken, of those queued so far, in order. Right after an
    /// [`Kernel::enter`].
    fn consumed(&self) -> u64;

    /// True while completions wait in the kernel because the completion queue was full.
    fn has_overflowed(&self) -> bool;

    /// True if, right after an [`Kernel::enter`] that did not sleep, nothing that is ready is left in the
    /// kernel.
    fn has_caught_up(&mut self) -> bool;

    /// Makes the free buffers known, submits what is queued, runs requests that are ready, and sleeps until
    /// there are `want` completions or `timeout` has passed.
    ///
    /// # Errors
    /// Any but those that a later call mends.
    fn enter(&mut self, memory: &mut Memory, want: u32, timeout: Option<Duration>) -> io::Result<()>;

    /// Makes the completions that the kernel has posted visible to [`Kernel::next`], and gives back the room
    /// of those taken. Returns how many there are.
    fn sync_completions(&mut self) -> usize;

    /// The next completion, oldest first.
    fn next(&mut self) -> Option<Completion>;

    /// Ends a request and waits until it has ended.
    fn cancel_now(&mut self, request: Token);

    /// What an accept's result says of the connection.
    fn accepted(&self, number: u32) -> Descriptor;

    /// What the last completed look at this direct descriptor read; `None` if the kernel knows no CPU.
    fn sampled_cpu(&self, number: u32) -> Option<u32>;

    /// Reads `SO_INCOMING_CPU`, the CPU on which the connection's last segment was received (`socket(7)`), of
    /// a plain descriptor; `None` if the kernel knows no CPU.
    fn incoming_cpu(&self, number: u32) -> Option<u32>;

    /// Bytes that were sent on a plain descriptor and that the peer has not acknowledged, its FIN counted as
    /// one: `SIOCOUTQ` (`tcp(7)`).
    fn unsent_bytes(&self, number: u32) -> Result<u32, Errno>;

    /// Makes the close of a plain descriptor a reset.
    fn reset_on_close(&mut self, number: u32);

    /// Bytes that a [`Kernel::splice`] moves at most; 0 without a pipe to splice through.
    fn most_spliced(&self) -> usize;

    /// Moves what waits in the socket of a plain descriptor back into it, as much as goes at a time.
    ///
    /// # Errors
    /// The connection's error, which no receive tells after that; EAGAIN if nothing waits.
    fn splice(&mut self, number: u32) -> Result<Spliced, Errno>;

    /// Takes what the socket did not at the last [`Kernel::splice`], as far as it fits. Returns the number of
    /// bytes.
    fn left_over(&mut self, bytes: &mut [u8]) -> usize;

    /// Closes a plain descriptor now. Only for one that is asked for nothing more.
    fn close_now(&mut self, descriptor: Descriptor);

    /// Accepts a connection that waits already (`accept(2)`).
    fn accept_now(&mut self, listener: BorrowedFd<'_>) -> Result<Descriptor, Errno>;

    /// What the kernel has dropped at the listener so far, modulo 2^32; `None` if it does not say.
    fn drops(&self, listener: BorrowedFd<'_>) -> Option<u32>;

    /// Lets the listener's queue take no more than it must.
    fn stop_queueing(&mut self, listener: BorrowedFd<'_>);

    /// Empties the eventfd.
    fn take_wake(&mut self, wake: BorrowedFd<'_>);

    /// The time.
    fn now(&self) -> Instant;
}

/// Most pieces that one send gathers.
pub(crate) const MOST_PIECES: usize = 64;
