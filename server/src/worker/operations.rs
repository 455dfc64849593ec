//! What a worker asks the kernel for, one function each. Every request's promise about memory is kept here.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use rustix::io::Errno;

use super::buffers::{Buffers, GROUP};
use super::connection::Connection;
use super::ring::Ring;
use super::send_queue::{Chunk, Storage};
use super::token::{ConnectionId, Descriptor, Token};

/// Bytes that one armed multishot receive may bring before it ends (Linux 6.17 and later), so that a peer that writes
/// and does not read can have no more than this queued beyond [`super::connection::PAUSE_AT`].
pub(crate) const RECEIVE_CREDIT: u32 = 256 * 1024;

/// Most pieces that one send gathers.
const MOST_PIECES: usize = 64;

/// Offset in `struct io_uring_sqe` of `optlen`: the byte credit of a multishot receive, the length of a socket option.
const SQE_OPTLEN: usize = 44;

/// Offset in `struct io_uring_sqe` of `cmd_op`.
pub(super) const SQE_CMD_OP: usize = 8;

/// `SOCKET_URING_OP_SIOCOUTQ` of `linux/io_uring.h` (since 6.7).
pub(super) const SOCKET_URING_OP_SIOCOUTQ: u32 = 1;

/// `SOCKET_URING_OP_GETSOCKOPT` of `linux/io_uring.h` (since 6.7).
pub(super) const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;

/// Message headers and vectors of sends; the kernel copies them when it takes the request
/// (`IORING_FEAT_SUBMIT_STABLE`, 5.5), so they are reused after each submission.
pub(super) struct VectorArena {
    headers: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
}

impl VectorArena {
    const HEADERS: usize = 512;
    const VECTORS: usize = 4096;

    pub(super) fn new() -> Self {
        Self { headers: Vec::with_capacity(Self::HEADERS), vectors: Vec::with_capacity(Self::VECTORS) }
    }

    /// Forgets all; only when the kernel has taken every queued request.
    pub(super) fn clear(&mut self) {
        self.headers.clear();
        self.vectors.clear();
    }

    fn has_room(&self) -> bool {
        self.headers.len() < Self::HEADERS && self.vectors.len() + MOST_PIECES <= Self::VECTORS
    }

    /// A header of these pieces; its address stays valid until [`VectorArena::clear`], since the lists never grow past
    /// the capacity that they were made with.
    fn header(&mut self, pieces: impl Iterator<Item = (*const u8, usize)>) -> *const libc::msghdr {
        let first = self.vectors.len();
        self.vectors.extend(
            pieces.map(|(start, length)| libc::iovec { iov_base: start.cast_mut().cast(), iov_len: length }),
        );
        // SAFETY: msghdr is plain data for which all zeros is a value: no name, no control message, no flags.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.vectors[first..].as_mut_ptr();
        header.msg_iovlen = self.vectors.len() - first;
        self.headers.push(header);
        self.headers.last().expect("just pushed")
    }
}

/// Gives a multishot receive its byte credit. Kernels before 6.17 refuse such a request with EINVAL.
pub(super) fn set_receive_credit(receive: &mut Entry) {
    patch(receive, SQE_OPTLEN, RECEIVE_CREDIT);
}

/// Sets 32 bits of a request that the `io-uring` crate has no setter for.
pub(super) fn patch(entry: &mut Entry, offset: usize, value: u32) {
    assert!(offset + size_of::<u32>() <= size_of::<Entry>());
    // SAFETY: the offset lies inside the entry by the check above.
    let field = unsafe { std::ptr::from_mut(entry).cast::<u8>().add(offset) };
    // SAFETY: `Entry` is `repr(C)` over the 64-byte `struct io_uring_sqe`, in which every bit pattern is a value.
    unsafe { field.cast::<u32>().write_unaligned(value) };
}

/// The address and length of a chunk's unsent bytes.
fn piece(chunk: &Chunk, buffers: &Buffers) -> (*const u8, usize) {
    let bytes = match &chunk.storage {
        Storage::Pool(id) => buffers.bytes(*id, chunk.start, chunk.end),
        Storage::Heap(bytes) => &bytes[chunk.start..chunk.end],
    };
    (bytes.as_ptr(), bytes.len())
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a chunk is no longer than a buffer, whose size is a u32")
}

/// The descriptor number as a request names it; [`on`] says of which kind it is.
fn fd(descriptor: Descriptor) -> Fd {
    let (Descriptor::Direct(number) | Descriptor::Plain(number)) = descriptor;
    Fd(raw(number))
}

fn raw(number: u32) -> RawFd {
    RawFd::try_from(number).expect("the kernel numbers descriptors in 31 bits")
}

/// The flag of a request on a descriptor of this kind.
fn on(descriptor: Descriptor) -> Flags {
    match descriptor {
        Descriptor::Direct(_) => Flags::FIXED_FILE,
        Descriptor::Plain(_) => Flags::empty(),
    }
}

/// Takes an accepted socket over.
pub(super) fn plain(socket: OwnedFd) -> Descriptor {
    Descriptor::Plain(socket.into_raw_fd().unsigned_abs())
}

/// Closes a plain descriptor now, without the ring. Only for a worker that ends.
pub(super) fn close_now(descriptor: Descriptor) {
    if let Descriptor::Plain(number) = descriptor {
        // SAFETY: the worker that accepted the socket owns it. It calls this once for each connection that it leaves open,
        // when it asks for nothing more.
        drop(unsafe { OwnedFd::from_raw_fd(raw(number)) });
    }
}

/// Reads `SO_INCOMING_CPU`, the CPU on which the connection's last segment was received (`socket(7)`), of a plain
/// descriptor; `None` if the kernel knows no CPU.
pub(super) fn incoming_cpu(number: u32) -> Option<u32> {
    // SAFETY: the worker asks for a connection that is open, so the descriptor is open during this call.
    let socket = unsafe { BorrowedFd::borrow_raw(raw(number)) };
    let cpu = rustix::net::sockopt::socket_incoming_cpu(socket).ok()?;
    (cpu <= i32::MAX.unsigned_abs()).then_some(cpu) // -1: none yet
}

/// Bytes that were sent on a plain descriptor and that the peer has not acknowledged, its FIN counted as one: `SIOCOUTQ`
/// (`tcp(7)`).
pub(super) fn unsent_bytes(number: u32) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ (`linux/sockios.h`), writes one int to the address given.
    let result = unsafe { libc::ioctl(raw(number), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) };
    if result == 0 { Ok(bytes.unsigned_abs()) } else { Err(Errno::NOTCONN) }
}

impl Ring<'_> {
    /// Accepts connections until it is cancelled. The accepted socket inherits the listener's options.
    pub(super) fn accept_multishot(&mut self, listener: RawFd) {
        let accept = opcode::AcceptMulti::new(Fd(listener));
        let entry = if self.features.direct_descriptors {
            accept.allocate_file_index(true).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC).build()
        };
        // SAFETY: an accept without an address buffer points to no memory.
        unsafe { self.push(entry.user_data(Token::Accept.encode())) };
    }

    /// Accepts one connection.
    pub(super) fn accept_one(&mut self, listener: RawFd) {
        let accept = opcode::Accept::new(Fd(listener), std::ptr::null_mut(), std::ptr::null_mut());
        let entry = if self.features.direct_descriptors {
            accept.file_index(Some(DestinationSlot::auto_target())).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC).build()
        };
        // SAFETY: an accept without an address buffer points to no memory.
        unsafe { self.push(entry.user_data(Token::AcceptOne.encode())) };
    }

    /// What an accept's result says of the connection.
    pub(super) fn accepted(&self, number: u32) -> Descriptor {
        if self.features.direct_descriptors { Descriptor::Direct(number) } else { Descriptor::Plain(number) }
    }

    /// Ends all accepts.
    pub(super) fn cancel_accepts(&mut self, listener: RawFd) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(listener)).all()).build();
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(entry.user_data(Token::CancelAccept.encode())) };
    }

    /// Waits until the eventfd is written to.
    pub(super) fn poll_wake(&mut self, eventfd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(eventfd), u32::from(libc::POLLIN.unsigned_abs())).build();
        // SAFETY: a poll points to no memory.
        unsafe { self.push(entry.user_data(Token::Wake.encode())) };
    }

    /// Receives into buffers of the pool until it ends: `IORING_CQE_F_MORE` clear.
    pub(super) fn receive(&mut self, id: ConnectionId, descriptor: Descriptor) {
        let mut entry = opcode::RecvMulti::new(fd(descriptor), GROUP).build();
        if self.features.receive_credit {
            set_receive_credit(&mut entry);
        }
        // SAFETY: the request names a buffer group, no address; the pool outlives the ring.
        unsafe { self.push(entry.flags(on(descriptor)).user_data(Token::Receive(id).encode())) };
    }

    /// Sends what the connection has queued, at most [`MOST_PIECES`] chunks of it. The request's number
    /// ([`Ring::queued`]) is noted in the connection.
    ///
    /// With `wait` the kernel waits for the peer and completes when all is sent, or with the error. Without, it sends
    /// what the socket has room for: nothing completes when that is all, else a completion says how much, EAGAIN if
    /// nothing. (`MSG_DONTWAIT` sets `REQ_F_NOWAIT`; `MSG_WAITALL` makes a short send a failure, which
    /// `IOSQE_CQE_SKIP_SUCCESS` does not hide: `io_send` and `io_sendrecv_fail` in the kernel's `io_uring/net.c`.)
    pub(super) fn send(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        buffers: &Buffers,
        wait: bool,
    ) {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | if wait { 0 } else { libc::MSG_DONTWAIT };
        let descriptor = connection.descriptor();
        let most = if self.vectors.has_room() { MOST_PIECES } else { 1 };
        let chunks = connection.queue().len().min(most);
        let entry = if let (1, Some(chunk)) = (chunks, connection.queue().iter().next()) {
            let (start, bytes) = piece(chunk, buffers);
            opcode::Send::new(fd(descriptor), start, length(bytes)).flags(flags).build()
        } else {
            let pieces = connection.queue().iter().take(chunks).map(|chunk| piece(chunk, buffers));
            let header = self.vectors.header(pieces);
            opcode::SendMsg::new(fd(descriptor), header).flags(flags.unsigned_abs()).build()
        };
        let entry = if wait { entry } else { entry.flags(Flags::SKIP_SUCCESS) };
        // SAFETY: `send_started` makes the connection keep these chunks where they are, and their buffers held, until
        // the worker reports the send as ended; it does so on its completion or, for a send that does not wait, when
        // the kernel has taken it and no completion came. The header stays until the request is taken: `Ring::enter`
        // clears the arena only then.
        unsafe { self.push(entry.flags(on(descriptor)).user_data(Token::Send(id).encode())) };
        connection.send_started(chunks, self.queued());
    }

    /// Ends the connection's receive or send, whichever `request` is. The answer is how many it hit.
    ///
    /// By `user_data`, for which the kernel has a hash; by descriptor it would go through all requests that are armed.
    pub(super) fn cancel(&mut self, id: ConnectionId, request: Token) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(request.encode()).all()).build();
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(entry.user_data(Token::Cancel(id).encode())) };
    }

    /// Sends a FIN. The kernel does this on a thread of io-wq, so it is for the end of a drain only.
    pub(super) fn shutdown(&mut self, id: ConnectionId, descriptor: Descriptor) {
        let entry = opcode::Shutdown::new(fd(descriptor), libc::SHUT_WR).build();
        // SAFETY: a shutdown points to no memory.
        unsafe { self.push(entry.flags(on(descriptor)).user_data(Token::Shutdown(id).encode())) };
    }

    /// Closes the descriptor. Only when nothing else is in flight for it: an armed receive would keep the socket, and its
    /// FIN, back.
    pub(super) fn close(&mut self, id: ConnectionId, descriptor: Descriptor) {
        let entry = match descriptor {
            Descriptor::Direct(number) => opcode::Close::new(Fixed(number)).build(),
            Descriptor::Plain(number) => opcode::Close::new(Fd(raw(number))).build(),
        };
        // SAFETY: a close points to no memory.
        unsafe { self.push(entry.user_data(Token::Close(id).encode())) };
    }

    /// As [`incoming_cpu`], for a direct descriptor; after the completion [`Ring::sampled_cpu`] has it. `token` is one of
    /// the two samples.
    pub(super) fn look_for_cpu(&mut self, number: u32, token: Token) {
        let value = std::ptr::from_mut(&mut self.incoming_cpus[number as usize]);
        let mut entry = opcode::SetSockOpt::new(
            Fixed(number),
            libc::SOL_SOCKET.unsigned_abs(),
            libc::SO_INCOMING_CPU.unsigned_abs(),
            value.cast_const().cast(),
            length(size_of::<i32>()),
        )
        .build();
        patch(&mut entry, SQE_CMD_OP, SOCKET_URING_OP_GETSOCKOPT);
        // SAFETY: the value lives in the ring's own table, which is never resized, and holds the 4 bytes that `optlen`
        // names; nobody reads it before the completion, since a connection has one look in flight.
        unsafe { self.push(entry.user_data(token.encode())) };
    }

    /// What the last completed look at this direct descriptor read; `None` if the kernel knows no CPU.
    pub(super) fn sampled_cpu(&self, number: u32) -> Option<u32> {
        let value = std::ptr::from_ref(&self.incoming_cpus[number as usize]);
        // SAFETY: the pointer is to a live element; volatile, because the kernel wrote it.
        let cpu = unsafe { value.read_volatile() };
        u32::try_from(cpu).ok()
    }

    /// As [`unsent_bytes`], for a direct descriptor; the completion's result has it.
    pub(super) fn look_for_unsent(&mut self, id: ConnectionId, number: u32) {
        let entry = opcode::UringCmd16::new(Fixed(number), SOCKET_URING_OP_SIOCOUTQ).build();
        // SAFETY: the command points to no memory.
        unsafe { self.push(entry.user_data(Token::Unsent(id).encode())) };
    }
}
