//! What this kernel's io_uring can do, found out by trying it once, on a ring of its own, before anything
//! listens. Versions are no guide: distributions take features back into older kernels.
#![allow(unsafe_code)]

mod capabilities;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode};
use rustix::io::Errno;
use serde::Serialize;

use super::buffers::GROUP;
use super::kernel::Spliced;
use super::operations::{RECEIVE_CREDIT, set_receive_credit};
use super::pipe::Pipe;
use super::ring::{self, SetupError};
use crate::config::Feature;
pub(crate) use capabilities::{Capability, capabilities, try_rings};

/// What the workers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Connections are direct descriptors: entries of a table of the worker's own ring. Else they are entries
    /// of the process's table of open files, which all workers lock for every accept and close.
    pub direct_descriptors: bool,
    /// A multishot receive takes a byte credit (6.17 and later).
    pub receive_credit: bool,
    /// Large messages are echoed by `splice(2)`.
    pub splice: bool,
}

impl Features {
    /// What this kernel has.
    ///
    /// # Errors
    /// If there is no io_uring to be had, or descriptors or memory are short.
    pub(crate) fn detect() -> Result<Self, SetupError> {
        Self::detect_on(&mut ring::create_small()?).map_err(trying_failed)
    }

    /// The same, on this ring, which keeps a table of direct descriptors and a poll in flight.
    fn detect_on(ring: &mut IoUring) -> io::Result<Self> {
        Ok(Self {
            receive_credit: takes_receive_credit(ring)?,
            direct_descriptors: closes_direct_descriptors(ring)?,
            splice: splices()?,
        })
    }

    /// The same but for these.
    pub(crate) fn without(self, features: &[Feature]) -> Self {
        Self {
            direct_descriptors: self.direct_descriptors && !features.contains(&Feature::DirectDescriptors),
            receive_credit: self.receive_credit && !features.contains(&Feature::ReceiveCredit),
            splice: self.splice && !features.contains(&Feature::Splice),
        }
    }
}

fn trying_failed(error: io::Error) -> SetupError {
    SetupError::failed("try io_uring out", error)
}

/// Whether a direct descriptor's file is let go when it is closed, though requests on others are in flight.
/// Before 6.13 all requests of a ring share one reference to its table, and a closed file, with its FIN,
/// waits for the oldest of them (`io_rsrc_node` in the kernel's `io_uring/rsrc.c`): for as long as a receive
/// is armed on any other connection.
fn closes_direct_descriptors(ring: &mut IoUring) -> io::Result<bool> {
    let (armed, _peer) = UnixStream::pair()?;
    let (closed, mut peer) = UnixStream::pair()?;
    peer.set_nonblocking(true)?;
    ring.submitter().register_files(&[armed.as_raw_fd(), closed.as_raw_fd()])?;
    drop((armed, closed)); // the ring's table alone holds these files now
    let poll = opcode::PollAdd::new(Fixed(0), u32::from(libc::POLLIN.unsigned_abs())).build();
    let close = opcode::Close::new(Fixed(1)).build();
    // The poll does not complete: its peer says nothing.
    answer(ring, &[poll, close])?.map_err(io::Error::from)?;
    match peer.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        read => read.map(|bytes| bytes == 0),
    }
}

/// Whether a multishot receive with a byte credit is refused with EINVAL, as before 6.17.
fn takes_receive_credit(ring: &mut IoUring) -> io::Result<bool> {
    let (socket, peer) = UnixStream::pair()?;
    drop(peer);
    let mut receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
    set_receive_credit(&mut receive, RECEIVE_CREDIT);
    // There is no buffer group, and nothing to receive: a kernel that takes the credit says ENOBUFS or end of
    // file.
    Ok(answer(ring, &[receive])? != Err(Errno::INVAL))
}

/// Whether a byte of a socket goes back into it through a pipe. Kernels do that; a filter of system calls
/// may refuse it, and a user who has many pipes gets small ones.
fn splices() -> io::Result<bool> {
    let (socket, mut peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    peer.write_all(&[0])?;
    let spliced = Pipe::new().ok().flatten().map(|pipe| pipe.echo(socket.as_fd()));
    Ok(spliced == Some(Ok(Spliced { came: 1, gone: 1 })))
}

/// Submits requests of which one completes, and returns its result.
fn answer(ring: &mut IoUring, requests: &[Entry]) -> io::Result<Result<u32, Errno>> {
    // SAFETY: the requests of this module and its child point to no memory or to memory of their caller,
    // which is there until this returns; none of those is still in flight then, since it is the one that
    // completes.
    unsafe { ring.submission().push_multiple(requests) }.map_err(|_| Errno::NOBUFS)?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next().ok_or(Errno::NODATA)?;
    Ok(ring::result_of(completion.result()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_can_do_without_each() {
        let all = Features { direct_descriptors: true, receive_credit: true, splice: true };
        assert_eq!(all.without(&[]), all);
        assert_eq!(all.without(&[Feature::DirectDescriptors]), Features { direct_descriptors: false, ..all });
        assert_eq!(all.without(&[Feature::ReceiveCredit]), Features { receive_credit: false, ..all });
        assert_eq!(all.without(&[Feature::Splice]), Features { splice: false, ..all });
    }

    /// A kernel that has the byte credit (6.17) has had separate references to direct descriptors since 6.13.
    #[test]
    fn the_answers_agree_with_each_other() {
        match Features::detect() {
            Ok(found) => assert!(found.direct_descriptors || !found.receive_credit, "{found:?}"),
            Err(error) => eprintln!("SKIPPED: no io_uring here: {error}"),
        }
    }
}
