//! What a worker asks the kernel for, one function each. Every request's promise about memory is kept here.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};

use super::buffers::GROUP;
use super::descriptors::raw;
use super::kernel::{Listener, MOST_PIECES, Manner, Request, Sample};
use super::memory::{Memory, Span};
use super::ring::Ring;
use super::token::{Descriptor, Token};

/// Bytes that one armed multishot receive may bring before it ends (Linux 6.17 and later), so that a peer
/// that writes and does not read can have no more than this queued beyond [`super::connection::PAUSE_AT`].
pub(crate) const RECEIVE_CREDIT: u32 = 256 * 1024;

/// Offset in `struct io_uring_sqe` of `optlen`: the byte credit of a multishot receive, the length of a
/// socket option.
const SQE_OPTLEN: usize = 44;

/// Offset in `struct io_uring_sqe` of `ioprio`.
const SQE_IOPRIO: usize = 2;

/// `IORING_SEND_ZC_REPORT_USAGE` of `linux/io_uring.h` (since 6.2): the notification says whether the bytes
/// were copied.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;

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

    /// A header of these pieces, and how many they are; its address stays valid until [`VectorArena::clear`],
    /// since the lists never grow past the capacity that they were made with.
    fn header(&mut self, pieces: impl Iterator<Item = (*const u8, usize)>) -> (*const libc::msghdr, usize) {
        let first = self.vectors.len();
        self.vectors.extend(
            pieces.map(|(start, length)| libc::iovec { iov_base: start.cast_mut().cast(), iov_len: length }),
        );
        // SAFETY: msghdr is plain data for which all zeros is a value: no name, no control message, no flags.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.vectors[first..].as_mut_ptr();
        header.msg_iovlen = self.vectors.len() - first;
        self.headers.push(header);
        (self.headers.last().expect("just pushed"), self.vectors.len() - first)
    }
}

/// Gives a multishot receive its byte credit. Kernels before 6.17 refuse such a request with EINVAL.
pub(super) fn set_receive_credit(receive: &mut Entry, credit: u32) {
    patch(receive, SQE_OPTLEN, credit);
}

/// Sets a field of a request that the `io-uring` crate has no setter for.
pub(super) fn patch<T: Copy>(entry: &mut Entry, offset: usize, value: T) {
    assert!(offset + size_of::<T>() <= size_of::<Entry>());
    // SAFETY: the offset lies inside the entry by the check above.
    let field = unsafe { std::ptr::from_mut(entry).cast::<u8>().add(offset) };
    // SAFETY: `Entry` is `repr(C)` over the 64-byte `struct io_uring_sqe`, in which every bit pattern is a
    // value.
    unsafe { field.cast::<T>().write_unaligned(value) };
}

/// The descriptor number as a request names it; [`on`] says of which kind it is.
fn fd(descriptor: Descriptor) -> Fd {
    let (Descriptor::Direct(number) | Descriptor::Plain(number)) = descriptor;
    Fd(raw(number))
}

/// The flag of a request on a descriptor of this kind.
fn on(descriptor: Descriptor) -> Flags {
    match descriptor {
        Descriptor::Direct(_) => Flags::FIXED_FILE,
        Descriptor::Plain(_) => Flags::empty(),
    }
}

/// `struct linger` that makes a close a reset.
static RESET: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a span is no longer than a buffer, whose size is a u32")
}

impl Ring<'_> {
    /// The request as the kernel reads it.
    pub(super) fn entry(&mut self, request: Request) -> Entry {
        let (entry, token) = match request {
            Request::AcceptMultishot(listener) => {
                (self.accept_multishot(listener), Token::Accept(listener.index))
            }
            Request::AcceptOne(listener) => (self.accept_one(listener), Token::AcceptOne(listener.index)),
            Request::CancelAccepts(Listener { index, descriptor }) => {
                let all = CancelBuilder::fd(Fd(descriptor)).all();
                (opcode::AsyncCancel2::new(all).build(), Token::CancelAccept(index))
            }
            Request::PollWake(eventfd) => {
                (opcode::PollAdd::new(Fd(eventfd), libc::POLLIN.unsigned_abs().into()).build(), Token::Wake)
            }
            Request::Receive(id, descriptor, credit) => {
                (self.receive(descriptor, credit), Token::Receive(id))
            }
            Request::Watch(id, descriptor) => {
                let entry = opcode::PollAdd::new(fd(descriptor), libc::POLLIN.unsigned_abs().into()).build();
                (entry.flags(on(descriptor)), Token::Receive(id))
            }
            Request::Install(id, number) => {
                (opcode::FixedFdInstall::new(Fixed(number), 0).build(), Token::Install(id))
            }
            // By `user_data`, for which the kernel has a hash; by descriptor it would go through all that is
            // armed.
            Request::Cancel(id, request) => {
                let all = CancelBuilder::user_data(request.encode()).all();
                (opcode::AsyncCancel2::new(all).build(), Token::Cancel(id))
            }
            Request::Shutdown(id, descriptor) => {
                let entry = opcode::Shutdown::new(fd(descriptor), libc::SHUT_WR).build();
                (entry.flags(on(descriptor)), Token::Shutdown(id))
            }
            Request::ResetOnClose(id, number) => (reset_on_close(number), Token::ResetOnClose(id)),
            Request::Close(id, descriptor) => (close(descriptor), Token::Close(id)),
            Request::LookForCpu(Sample::Accept, id, number) => {
                (self.look_for_cpu(number), Token::AcceptSample(id))
            }
            Request::LookForCpu(Sample::Receive, id, number) => {
                (self.look_for_cpu(number), Token::ReceiveSample(id))
            }
            Request::LookForUnsent(id, number) => {
                (opcode::UringCmd16::new(Fixed(number), SOCKET_URING_OP_SIOCOUTQ).build(), Token::Unsent(id))
            }
            Request::HandOver { ring, number, member } => {
                (message(ring, number, Token::TakeOver), Token::HandOver { number, member })
            }
            Request::TellOfRoom(ring) => (message(ring, 0, Token::Room), Token::Room),
        };
        entry.user_data(token.encode())
    }

    fn accept_multishot(&self, listener: Listener) -> Entry {
        let accept = opcode::AcceptMulti::new(Fd(listener.descriptor));
        if self.features.direct_descriptors {
            accept.allocate_file_index(true).flags(libc::SOCK_NONBLOCK).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build()
        }
    }

    fn accept_one(&self, listener: Listener) -> Entry {
        let accept = opcode::Accept::new(Fd(listener.descriptor), std::ptr::null_mut(), std::ptr::null_mut());
        if self.features.direct_descriptors {
            accept.file_index(Some(DestinationSlot::auto_target())).flags(libc::SOCK_NONBLOCK).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build()
        }
    }

    fn receive(&self, descriptor: Descriptor, credit: u32) -> Entry {
        let mut entry = opcode::RecvMulti::new(fd(descriptor), GROUP).build();
        if self.features.receive_credit {
            set_receive_credit(&mut entry, credit);
        }
        entry.flags(on(descriptor))
    }

    /// Reads the CPU into this ring's own table, which is never resized.
    fn look_for_cpu(&mut self, number: u32) -> Entry {
        let value = std::ptr::from_mut(&mut self.incoming_cpus[number as usize]);
        let mut entry =
            socket_option(number, libc::SO_INCOMING_CPU, value.cast_const().cast(), size_of::<i32>());
        patch(&mut entry, SQE_CMD_OP, SOCKET_URING_OP_GETSOCKOPT);
        entry
    }

    /// As [`Kernel::sampled_cpu`](super::kernel::Kernel::sampled_cpu).
    pub(super) fn read_sampled_cpu(&self, number: u32) -> Option<u32> {
        let value = std::ptr::from_ref(&self.incoming_cpus[number as usize]);
        // SAFETY: the pointer is to a live element; volatile, because the kernel wrote it.
        let cpu = unsafe { value.read_volatile() };
        u32::try_from(cpu).ok()
    }

    /// A send of these spans, and how many of them it takes.
    ///
    /// A silent one completes only if it is short or fails: `MSG_DONTWAIT` sets `REQ_F_NOWAIT`, and
    /// `MSG_WAITALL` makes a short send a failure, which `IOSQE_CQE_SKIP_SUCCESS` does not hide (`io_send`
    /// and `io_sendrecv_fail` in the kernel's `io_uring/net.c`).
    pub(super) fn send_entry(
        &mut self,
        descriptor: Descriptor,
        spans: impl Iterator<Item = Span> + Clone,
        memory: &Memory,
        manner: Manner,
    ) -> (Entry, usize) {
        let now = if manner == Manner::Silent { libc::MSG_DONTWAIT } else { 0 };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | now;
        let most = if self.vectors.has_room() { MOST_PIECES } else { 1 };
        let pieces =
            spans.take(most).map(|span| memory.bytes(span)).map(|bytes| (bytes.as_ptr(), bytes.len()));
        let mut rest = pieces.clone();
        let (Some((start, bytes)), None) = (rest.next(), rest.next()) else {
            let (header, count) = self.vectors.header(pieces);
            let entry = match manner {
                Manner::ZeroCopy => {
                    let send = opcode::SendMsgZc::new(fd(descriptor), header).flags(flags.unsigned_abs());
                    let mut entry = send.build();
                    patch(&mut entry, SQE_IOPRIO, SEND_ZC_REPORT_USAGE);
                    entry
                }
                _ => opcode::SendMsg::new(fd(descriptor), header).flags(flags.unsigned_abs()).build(),
            };
            return (entry.flags(send_flags(descriptor, manner)), count);
        };
        let entry = match manner {
            Manner::ZeroCopy => {
                let send = opcode::SendZc::new(fd(descriptor), start, length(bytes)).flags(flags);
                send.zc_flags(SEND_ZC_REPORT_USAGE).build()
            }
            _ => opcode::Send::new(fd(descriptor), start, length(bytes)).flags(flags).build(),
        };
        (entry.flags(send_flags(descriptor, manner)), 1)
    }
}

fn send_flags(descriptor: Descriptor, manner: Manner) -> Flags {
    if manner == Manner::Silent { on(descriptor) | Flags::SKIP_SUCCESS } else { on(descriptor) }
}

/// Sets a socket option of a direct descriptor, which is at `value`.
fn socket_option(number: u32, option: libc::c_int, value: *const libc::c_void, bytes: usize) -> Entry {
    let level = libc::SOL_SOCKET.unsigned_abs();
    opcode::SetSockOpt::new(Fixed(number), level, option.unsigned_abs(), value, length(bytes)).build()
}

fn reset_on_close(number: u32) -> Entry {
    socket_option(number, libc::SO_LINGER, std::ptr::from_ref(&RESET).cast(), size_of_val(&RESET))
}

/// It succeeds without a completion, and at once: a socket has no `flush`, which alone makes the kernel close
/// it elsewhere (`io_close` in the kernel's `io_uring/openclose.c`).
fn close(descriptor: Descriptor) -> Entry {
    let close = match descriptor {
        Descriptor::Direct(number) => opcode::Close::new(Fixed(number)),
        Descriptor::Plain(_) => opcode::Close::new(fd(descriptor)),
    };
    close.build().flags(Flags::SKIP_SUCCESS)
}

fn message(ring: RawFd, number: u32, token: Token) -> Entry {
    let message = opcode::MsgRingData::new(Fd(ring), raw(number), token.encode(), None);
    message.build().flags(Flags::SKIP_SUCCESS)
}
