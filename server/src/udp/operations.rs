//! The worker's ring and what it asks the kernel for. Every request's promise about memory is kept here.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode};
use rustix::io::Errno;

use super::flight::BufferId;
use super::message::{CONTROL_ROOM, Control, HEAD, Message, NAME_AT, NAME_ROOM, UDP_GRO};
use super::token::Token;
use crate::worker::buffers::{Buffers, GROUP};
use crate::worker::enter::enter;

/// An answer of the kernel.
#[derive(Debug)]
pub(super) struct Completion {
    /// What it answers; `None` if `user_data` is none of ours.
    pub(super) token: Option<Token>,
    /// Bytes in the buffer or sent, or the error.
    pub(super) result: Result<usize, Errno>,
    /// The multishot request stays armed (`IORING_CQE_F_MORE`).
    pub(super) more: bool,
    /// The buffer that holds the message; the worker's now.
    pub(super) buffer: Option<BufferId>,
}

/// What a send with control messages points to, beside its buffer.
struct SendSlot {
    header: libc::msghdr,
    vector: libc::iovec,
    control: Control,
}

/// A message header without anything.
fn empty_header() -> libc::msghdr {
    // SAFETY: msghdr is plain data for which all zeros is a value: no name, no control message, no flags.
    unsafe { std::mem::zeroed() }
}

impl SendSlot {
    fn new() -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { header: empty_header(), vector, control: Control { bytes: [0; CONTROL_ROOM], length: 0 } }
    }

    /// A header that sends `payload` to the peer of `name`. Valid while the slot, and what the slices are of,
    /// stay.
    fn fill(&mut self, name: &[u8], payload: &[u8], control: Control) -> *const libc::msghdr {
        self.control = control;
        self.vector.iov_base = payload.as_ptr().cast_mut().cast();
        self.vector.iov_len = payload.len();
        self.header.msg_name = name.as_ptr().cast_mut().cast();
        self.header.msg_namelen = length(name.len());
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        self.header.msg_control = self.control.bytes.as_mut_ptr().cast();
        self.header.msg_controllen = control.length as _;
        &raw const self.header
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a part of a buffer, whose size is a u32")
}

/// Submission and completion side of one ring, borrowed for the life of the worker's loop.
pub(super) struct Ring<'r> {
    submitter: Submitter<'r>,
    submissions: SubmissionQueue<'r>,
    completions: CompletionQueue<'r>,
    enter_flags: EnterFlags,
    /// Requests queued since the ring was made.
    queued: u64,
    /// How much of each buffer is for names and control messages; all receives are alike.
    receive_header: Box<libc::msghdr>,
    /// One for each buffer of the pool.
    slots: Box<[SendSlot]>,
}

impl<'r> Ring<'r> {
    /// Takes a ring over, with a slot for each of `buffers`. Registers its descriptor, which spares each
    /// `io_uring_enter` the look-up.
    pub(super) fn new(uring: &'r mut IoUring, buffers: usize) -> io::Result<Self> {
        let no_iowait = uring.params().is_feature_no_iowait();
        let (mut submitter, submissions, completions) = uring.split();
        submitter.register_ring_fd()?;
        let mut enter_flags = EnterFlags::GETEVENTS;
        enter_flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        let mut receive_header = Box::new(empty_header());
        receive_header.msg_namelen = length(NAME_ROOM);
        receive_header.msg_controllen = CONTROL_ROOM as _;
        let slots = std::iter::repeat_with(SendSlot::new).take(buffers).collect();
        Ok(Self { submitter, submissions, completions, enter_flags, queued: 0, receive_header, slots })
    }

    /// For registering the buffer pool.
    pub(super) fn submitter(&self) -> &Submitter<'r> {
        &self.submitter
    }

    /// True if a request can be queued.
    pub(super) fn has_room(&self) -> bool {
        !self.submissions.is_full()
    }

    /// Requests that the kernel has taken, in order. Right after an [`Ring::enter`].
    pub(super) fn consumed(&self) -> u64 {
        self.queued - self.submissions.len() as u64
    }

    /// True while completions wait in the kernel because the completion queue was full.
    pub(super) fn has_overflowed(&self) -> bool {
        self.submissions.cq_overflow()
    }

    /// True while requests wait that the kernel has not taken.
    pub(super) fn has_unsubmitted(&self) -> bool {
        !self.submissions.is_empty()
    }

    /// True if completions can be taken.
    pub(super) fn has_completions(&mut self) -> bool {
        self.completions.sync();
        !self.completions.is_empty()
    }

    /// True if requests are ready that the next [`Ring::enter`] runs. It may stay true when there are none: a
    /// flag that the kernel sets for a request which it then runs in the same turn is not cleared before the
    /// next one that is ready (`io_req_local_work_add` and `__io_run_local_work` in its
    /// `io_uring/io_uring.c`).
    pub(super) fn may_run_more(&self) -> bool {
        self.submissions.taskrun()
    }

    /// # Safety
    /// As for [`SubmissionQueue::push`]; see each caller.
    unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: the caller's promise is the one that `push` asks for.
        unsafe { self.submissions.push(entry) }.expect("the caller has asked whether there is room");
        self.queued += 1;
    }

    /// Waits until the eventfd is written to. Needs room.
    pub(super) fn poll_wake(&mut self, eventfd: &OwnedFd) {
        let entry = opcode::PollAdd::new(Fd(eventfd.as_raw_fd()), u32::from(libc::POLLIN.unsigned_abs()));
        // SAFETY: a poll points to no memory.
        unsafe { self.push(&entry.build().user_data(Token::Wake.encode())) };
    }

    /// Receives messages into buffers of the pool until it ends: `IORING_CQE_F_MORE` clear. Needs room.
    pub(super) fn receive(&mut self, index: usize, socket: RawFd) {
        let entry = opcode::RecvMsgMulti::new(Fd(socket), &raw const *self.receive_header, GROUP).build();
        // SAFETY: the header, which the kernel copies when it takes the request, lives as long as the ring;
        // the request names a buffer group, whose pool outlives the ring.
        unsafe { self.push(&entry.user_data(Token::Receive(index).encode())) };
    }

    /// Sends what a buffer holds back to where it came from, in as many datagrams as it came in (GSO). Needs
    /// room. Gives the request's number.
    ///
    /// The kernel sends while it takes the request: with `MSG_DONTWAIT` nothing is tried again later
    /// (`REQ_F_NOWAIT`), and a UDP socket copies what it sends. A datagram is sent whole or not at all, so a
    /// success has nothing to tell.
    pub(super) fn send(
        &mut self,
        socket: RawFd,
        buffer: BufferId,
        message: &Message,
        buffers: &Buffers,
    ) -> u64 {
        let bytes = buffers.bytes(buffer, 0, HEAD + message.payload);
        let (head, payload) = bytes.split_at(HEAD);
        let name = &head[NAME_AT..NAME_AT + message.name_length];
        let control = message.answer(true);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let entry = if control.length == 0 {
            opcode::Send::new(Fd(socket), payload.as_ptr(), length(payload.len()))
                .dest_addr(name.as_ptr().cast())
                .dest_addr_len(length(name.len()))
                .flags(flags)
                .build()
        } else {
            let header = self.slots[usize::from(buffer)].fill(name, payload, control);
            opcode::SendMsg::new(Fd(socket), header).flags(flags.unsigned_abs()).build()
        };
        let request = self.queued + 1;
        let token = Token::send(buffer, request);
        // SAFETY: `Sends` keeps the buffer held, and so its slot unused, until the kernel has taken the
        // request; it reads name, header, control messages and payload only while it takes it.
        unsafe { self.push(&entry.flags(Flags::SKIP_SUCCESS).user_data(token.encode())) };
        request
    }

    /// As [`enter`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        enter(&self.submitter, &mut self.submissions, self.enter_flags, want, timeout)
    }

    /// Ends the receives of so many sockets now. An armed receive would keep its socket, and the port, until
    /// some time after the end of the process.
    pub(super) fn end_receives(&mut self, sockets: usize) {
        for socket in 0..sockets {
            let receive = CancelBuilder::user_data(Token::Receive(socket).encode());
            // ENOENT: it has ended.
            let _ = self.submitter.register_sync_cancel(Some(Timespec::new().sec(1)), receive);
        }
        // They let go of their sockets when they are run. If this fails, that is later.
        let _ = self.enter(0, None);
    }

    /// Makes the completions that the kernel has posted visible to [`Ring::next`], and gives back the room of
    /// those taken.
    pub(super) fn sync_completions(&mut self) {
        self.completions.sync();
    }

    /// The next completion, oldest first.
    pub(super) fn next(&mut self) -> Option<Completion> {
        let entry = self.completions.next()?;
        let result = entry.result();
        Some(Completion {
            token: Token::decode(entry.user_data()),
            result: usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result)),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        })
    }
}

impl Drop for Ring<'_> {
    /// Lets the ring go when it is dropped: a registered descriptor would keep it until the thread ends.
    fn drop(&mut self) {
        // If it fails there is nothing left to do about it.
        let _ = self.submitter.unregister_ring_fd();
    }
}

/// Sends the segments of a message one by one, now. Gives how many datagrams and bytes of them the kernel
/// took.
pub(super) fn send_segments(socket: RawFd, bytes: &[u8], message: &Message) -> (u64, u64) {
    let name = &bytes[NAME_AT..NAME_AT + message.name_length];
    let control = message.answer(false);
    let (mut datagrams, mut sent) = (0, 0);
    for segment in message.segments() {
        let mut slot = SendSlot::new();
        let header = slot.fill(name, &bytes[segment], control);
        // SAFETY: the header and what it points to live until the call returns.
        let result = unsafe { libc::sendmsg(socket, header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        match u64::try_from(result) {
            Ok(length) => {
                datagrams += 1;
                sent += length;
            }
            // The socket is full: the others would find it full as well.
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => {}
        }
    }
    (datagrams, sent)
}

/// Asks for the address that each datagram was sent to: `IP_PKTINFO`, `IPV6_RECVPKTINFO`.
pub(super) fn ask_for_destination(socket: &OwnedFd, v6: bool) -> io::Result<()> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    set_option(socket, level, name, 1)
}

/// Lets the kernel put datagrams of one peer together: `UDP_GRO`.
pub(super) fn coalesce(socket: &OwnedFd) -> io::Result<()> {
    set_option(socket, UDP_GRO.0, UDP_GRO.1, 1)
}

/// Sets a socket option that is an int.
pub(super) fn set_option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).expect("4 bytes");
    // SAFETY: the option takes an int; it lives until the call returns.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
