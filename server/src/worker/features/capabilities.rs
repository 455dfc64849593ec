//! Everything of this kernel's io_uring that the server uses, could use or has tried: for `server doctor`,
//! which alone tries all of it. What workers need to know is in [`Features`].
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use io_uring::squeue::Flags;
use io_uring::types::{DestinationSlot, Fd, Fixed, Napi};
use io_uring::{Builder, IoUring, Probe, opcode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use super::super::buffers::{Buffers, GROUP, Pages};
use super::super::operations::{SOCKET_URING_OP_GETSOCKOPT, SOCKET_URING_OP_SIOCOUTQ, SQE_CMD_OP, patch};
use super::super::ring::{self, SetupError};
use super::{Features, answer, trying_failed};

/// `IORING_SETUP_CQE_MIXED` of `linux/io_uring.h`.
const SETUP_CQE_MIXED: u32 = 1 << 18;

/// What a kernel's io_uring can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Capability {
    /// `IORING_SETUP_SINGLE_ISSUER` with `IORING_SETUP_DEFER_TASKRUN`.
    DeferTaskrun,
    /// `IORING_ACCEPT_MULTISHOT`
    MultishotAccept,
    /// `IORING_RECV_MULTISHOT`
    MultishotReceive,
    /// `IORING_REGISTER_PBUF_RING`
    BufferRing,
    /// `IOSQE_CQE_SKIP_SUCCESS`
    CqeSkip,
    /// `IORING_REGISTER_RING_FDS`
    RingDescriptor,
    /// Direct descriptors whose file is let go when they are closed.
    DirectDescriptors,
    /// Socket commands: SETSOCKOPT, GETSOCKOPT, SIOCOUTQ.
    SocketCommands,
    /// `IORING_ENTER_NO_IOWAIT`
    NoIowait,
    /// The byte credit of a multishot receive.
    ReceiveCredit,
    /// `splice(2)` from a socket and back.
    Splice,
    /// `IORING_OP_MSG_RING`, between rings with `DEFER_TASKRUN`.
    Messages,
    /// `IORING_MSG_SEND_FD` between such rings.
    MessageDescriptor,
    /// The same without a detour over the task of the other ring.
    FastMessages,
    /// `IORING_OP_SEND_ZC` and `IORING_OP_SENDMSG_ZC`
    ZeroCopySend,
    /// `IORING_RECV_MULTISHOT` of recvmsg.
    MultishotReceiveMessage,
    /// `IORING_REGISTER_NAPI`
    Napi,
    /// `min_wait_usec` of `struct io_uring_getevents_arg`.
    MinWait,
    /// `IORING_SETUP_NO_SQARRAY`
    NoSqArray,
    /// `IORING_SETUP_CQE_MIXED`
    CqeMixed,
}

/// One way to find a capability out. It leaves nothing in flight.
type Try = fn(&mut IoUring) -> io::Result<bool>;

const TRIES: [(Capability, Try); 16] = [
    (Capability::MultishotAccept, accepts_many),
    (Capability::MultishotReceive, receives_many),
    (Capability::BufferRing, takes_a_buffer_ring),
    (Capability::CqeSkip, |ring| Ok(ring.params().is_feature_skip_cqe_on_success())),
    (Capability::RingDescriptor, registers_its_descriptor),
    (Capability::SocketCommands, takes_socket_commands),
    (Capability::NoIowait, |ring| Ok(ring.params().is_feature_no_iowait())),
    (Capability::Messages, sends_messages),
    (Capability::MessageDescriptor, sends_descriptors),
    // No behaviour tells: the operation that came with the same change of 6.11.
    (Capability::FastMessages, |ring| {
        has_operations(ring, &[opcode::MsgRingData::CODE, opcode::Listen::CODE])
    }),
    (Capability::ZeroCopySend, |ring| has_operations(ring, &[opcode::SendZc::CODE, opcode::SendMsgZc::CODE])),
    (Capability::MultishotReceiveMessage, receives_many_messages),
    (Capability::Napi, registers_napi),
    (Capability::MinWait, |ring| Ok(ring.params().is_feature_min_timeout())),
    (Capability::NoSqArray, |_| is_had(small_ring(Builder::setup_no_sqarray))),
    (Capability::CqeMixed, |_| is_had(ring_with_flags(SETUP_CQE_MIXED))),
];

/// What this kernel has, all of it tried out: takes some milliseconds.
///
/// # Errors
/// As [`Features::detect`].
pub(crate) fn capabilities() -> Result<BTreeSet<Capability>, SetupError> {
    let mut ring = ring::create_small()?;
    let mut found = BTreeSet::from([Capability::DeferTaskrun]); // without it there is no ring
    for (capability, is_there) in TRIES {
        if is_there(&mut ring).map_err(trying_failed)? {
            found.insert(capability);
        }
    }
    let features = Features::detect_on(&mut ring).map_err(trying_failed)?;
    found.extend(features.direct_descriptors.then_some(Capability::DirectDescriptors));
    found.extend(features.receive_credit.then_some(Capability::ReceiveCredit));
    found.extend(features.splice.then_some(Capability::Splice));
    Ok(found)
}

/// Makes at once what the workers would have: a ring for each, with `buffers` buffers and as many direct
/// descriptors as its element of `slots` says. Returns how many could be made, and why not more. All is given
/// back before this returns, except that the kernel takes rings apart a little later.
pub(crate) fn try_rings(slots: &[u32], buffers: u16) -> (usize, Option<SetupError>) {
    // When the workers make theirs, the ring that features were tried out on may still count as locked
    // memory.
    let _tried_on = ring::create_small();
    let mut rings = Vec::with_capacity(slots.len());
    let made = slots.iter().try_for_each(|&slots| {
        rings.push(full_ring(slots, buffers)?);
        Ok::<_, SetupError>(())
    });
    (rings.len(), made.err())
}

/// The ring comes first so that it is dropped before its buffers.
fn full_ring(slots: u32, buffers: u16) -> Result<(IoUring, Buffers), SetupError> {
    let failed = |operation, hint| move |error| SetupError::Failed { operation, error, hint };
    let memory = Buffers::map(buffers, 1, Pages::Small).map_err(failed("map the buffers", ""))?;
    let ring = ring::create()?;
    let memlock = "; raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)";
    memory.register(&ring.submitter()).map_err(failed("register the buffers", memlock))?;
    if slots > 0 {
        let files = "; raise the limit of open files (ulimit -n, LimitNOFILE=)";
        let table = ring.submitter().register_files_sparse(slots);
        table.map_err(failed("register the direct descriptor table", files))?;
    }
    Ok((ring, memory))
}

/// Whether all of these operations are in the kernel's own list.
fn has_operations(ring: &mut IoUring, operations: &[u8]) -> io::Result<bool> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    Ok(operations.iter().all(|&operation| probe.is_supported(operation)))
}

/// A kernel that does not know multishot accepts refuses the request as such, before it looks at the socket,
/// which here can accept nothing.
fn accepts_many(ring: &mut IoUring) -> io::Result<bool> {
    let (socket, _peer) = UnixDatagram::pair()?;
    let accept = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).build();
    Ok(answer(ring, &[accept])? != Err(Errno::INVAL))
}

/// Without a buffer group and with nothing to receive, the answer is ENOBUFS or the end of the stream.
fn receives_many(ring: &mut IoUring) -> io::Result<bool> {
    let (socket, peer) = UnixStream::pair()?;
    drop(peer);
    let receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
    Ok(answer(ring, &[receive])? != Err(Errno::INVAL))
}

/// A datagram waits, and there is no buffer group for it.
fn receives_many_messages(ring: &mut IoUring) -> io::Result<bool> {
    let (socket, peer) = UnixDatagram::pair()?;
    peer.send(&[0])?;
    // SAFETY: msghdr is plain data for which all zeros is a value: no name, no control message, no vectors.
    let header: libc::msghdr = unsafe { std::mem::zeroed() };
    let receive = opcode::RecvMsgMulti::new(Fd(socket.as_raw_fd()), &raw const header, GROUP).build();
    Ok(answer(ring, &[receive])? != Err(Errno::INVAL))
}

/// One buffer, and a byte that comes in it.
fn takes_a_buffer_ring(ring: &mut IoUring) -> io::Result<bool> {
    let buffers = Buffers::map(1, 64, Pages::Small)?;
    if !is_had(buffers.register(&ring.submitter()))? {
        return Ok(false);
    }
    let (socket, mut peer) = UnixStream::pair()?;
    peer.write_all(&[0])?;
    let receive = opcode::Recv::new(Fd(socket.as_raw_fd()), std::ptr::null_mut(), 1).buf_group(GROUP).build();
    let received = answer(ring, &[receive.flags(Flags::BUFFER_SELECT)]);
    ring.submitter().unregister_buf_ring(GROUP)?;
    Ok(received? == Ok(1))
}

fn registers_its_descriptor(ring: &mut IoUring) -> io::Result<bool> {
    let mut submitter = ring.submitter();
    let registered = is_had(submitter.register_ring_fd())?;
    if registered {
        submitter.unregister_ring_fd()?;
    }
    Ok(registered)
}

/// `SO_INCOMING_CPU` and the bytes in the send queue, of a TCP socket that is not connected.
fn takes_socket_commands(ring: &mut IoUring) -> io::Result<bool> {
    let tcp = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let (level, name) = (libc::SOL_SOCKET.unsigned_abs(), libc::SO_INCOMING_CPU.unsigned_abs());
    let mut cpu = 0i32;
    let value = (&raw mut cpu).cast_const().cast();
    let mut option = opcode::SetSockOpt::new(Fd(tcp.as_raw_fd()), level, name, value, 4).build();
    patch(&mut option, SQE_CMD_OP, SOCKET_URING_OP_GETSOCKOPT);
    let unsent = opcode::UringCmd16::new(Fd(tcp.as_raw_fd()), SOCKET_URING_OP_SIOCOUTQ).build();
    Ok(answer(ring, &[option])?.is_ok() && answer(ring, &[unsent])?.is_ok())
}

fn sends_messages(ring: &mut IoUring) -> io::Result<bool> {
    const WORD: u64 = 7;
    let mut other = other_ring()?;
    let message = opcode::MsgRingData::new(Fd(other.as_raw_fd()), 1, WORD, None).build();
    let sent = answer(ring, &[message])?;
    Ok(sent.is_ok() && arrived(&mut other)? == Some((WORD, 1)))
}

/// Sends a direct descriptor from one table to the other.
fn sends_descriptors(ring: &mut IoUring) -> io::Result<bool> {
    const WORD: u64 = 8;
    let mut other = other_ring()?;
    other.submitter().register_files_sparse(1)?;
    let (socket, _peer) = UnixStream::pair()?;
    ring.submitter().register_files(&[socket.as_raw_fd()])?;
    let slot = DestinationSlot::auto_target();
    let message = opcode::MsgRingSendFd::new(Fd(other.as_raw_fd()), Fixed(0), slot, WORD).build();
    let sent = answer(ring, &[message]);
    ring.submitter().unregister_files()?;
    Ok(sent?.is_ok() && arrived(&mut other)?.is_some_and(|(word, result)| word == WORD && result >= 0))
}

/// `user_data` and result of the message that this ring has got.
fn arrived(ring: &mut IoUring) -> io::Result<Option<(u64, i32)>> {
    // The sender has its answer: the message is here, or waits for this ring to look at it.
    ring.submitter().submit_and_wait(1)?;
    Ok(ring.completion().next().map(|completion| (completion.user_data(), completion.result())))
}

fn registers_napi(ring: &mut IoUring) -> io::Result<bool> {
    let mut napi = Napi::new().set_busy_poll_timeout(1);
    match ring.submitter().register_napi(&mut napi) {
        Ok(()) => ring.submitter().unregister_napi(&mut napi).map(|()| true),
        // CONFIG_NET_RX_BUSY_POLL is off.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => is_had(Err::<(), _>(error)),
    }
}

/// A ring to send to.
fn other_ring() -> io::Result<IoUring> {
    small_ring(|builder| builder.setup_single_issuer().setup_defer_taskrun())
}

fn small_ring(set_up: fn(&mut Builder) -> &mut Builder) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    set_up(&mut builder);
    builder.build(4)
}

/// A ring with set-up flags that the crate does not know.
fn ring_with_flags(flags: u32) -> io::Result<OwnedFd> {
    /// Words in `struct io_uring_params`, 120 bytes; the flags are the third.
    const WORDS: usize = 30;
    let mut parameters = [0u32; WORDS];
    parameters[2] = flags;
    // SAFETY: the parameters have the size of `struct io_uring_params`, which the kernel reads and writes,
    // and live until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, parameters.as_mut_ptr()) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// False if the kernel does not know what was asked for.
fn is_had<T>(result: io::Result<T>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Option<BTreeSet<Capability>> {
        match capabilities() {
            Ok(found) => Some(found),
            Err(error) => {
                eprintln!("SKIPPED: no io_uring here: {error}");
                None
            }
        }
    }

    /// Each of the second kind came with a later release than the first of its row.
    #[test]
    fn the_answers_agree_with_each_other_and_with_the_workers() {
        let Some(found) = here() else { return };
        for (older, newer) in [
            (Capability::MultishotAccept, Capability::MultishotReceive),
            (Capability::BufferRing, Capability::SocketCommands),
            (Capability::Messages, Capability::MessageDescriptor),
            (Capability::MessageDescriptor, Capability::FastMessages),
            (Capability::MinWait, Capability::DirectDescriptors),
            (Capability::DirectDescriptors, Capability::ReceiveCredit),
            (Capability::NoSqArray, Capability::CqeMixed),
        ] {
            assert!(found.contains(&older) || !found.contains(&newer), "{newer:?} without {older:?}");
        }
        let features = Features::detect().unwrap();
        assert_eq!(features.direct_descriptors, found.contains(&Capability::DirectDescriptors));
        assert_eq!(features.receive_credit, found.contains(&Capability::ReceiveCredit));
        assert_eq!(features.splice, found.contains(&Capability::Splice));
    }

    /// What Linux 6.1 has, the oldest that the server runs on.
    #[test]
    fn whoever_has_the_flags_of_6_1_has_what_came_before() {
        let Some(found) = here() else { return };
        for capability in [
            Capability::MultishotAccept,
            Capability::MultishotReceive,
            Capability::BufferRing,
            Capability::CqeSkip,
            Capability::RingDescriptor,
            Capability::ZeroCopySend,
            Capability::MultishotReceiveMessage,
        ] {
            assert!(found.contains(&capability), "{capability:?}");
        }
    }

    #[test]
    fn a_trial_counts_the_rings_and_says_why_there_are_no_more() {
        if here().is_none() {
            return;
        }
        let (made, error) = try_rings(&[4, 4], 4);
        assert!(made == 2 && error.is_none(), "{made}: {error:?}");
        let (made, error) = try_rings(&[4, u32::MAX], 4);
        assert!(made == 1 && error.unwrap().to_string().contains("direct descriptor table"));
    }

    #[test]
    fn what_the_kernel_does_not_know_is_absent_and_other_errors_stay_errors() {
        let error = |errno: Errno| Err::<(), _>(io::Error::from(errno));
        assert!(!is_had(error(Errno::INVAL)).unwrap());
        assert!(is_had(Ok(())).unwrap());
        assert!(is_had(error(Errno::MFILE)).is_err());
        assert!(!is_had(ring_with_flags(1 << 30)).unwrap(), "a flag that no kernel has");
        if here().is_some() {
            assert!(is_had(ring_with_flags(0)).unwrap(), "no flags at all");
        }
    }
}
