//! The worker's pipe, through which large messages go back to where they came from, mostly without being
//! copied: `splice(2)` moves references to their pages from the socket to the pipe, and from there to the
//! socket. What is in no page of its own, or goes where pages cannot, the kernel copies.
//!
//! Neither call sleeps: accepted sockets are `O_NONBLOCK`, which both look at (`tcp_splice_read` in the
//! kernel's `net/ipv4/tcp.c`; `splice_to_socket` in its `fs/splice.c`, before 6.5 `sock_sendpage` in its
//! `net/socket.c`), and the pipe is, too. io_uring does not mind: a request that is to wait does. Splicing to
//! a connection that is broken raises SIGPIPE, which Rust's runtime has set to be ignored.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use super::kernel::Spliced;

/// Bytes that are spliced at a time: with the sockets' own memory, what a core's second-level cache keeps.
/// Measured: see server/README.md.
pub(super) const MOST: usize = 256 * 1024;

/// Sizes of a pipe, largest first. It has a place for each of its pages, and a place may have to do for as
/// little as one segment. The first is what `fs.pipe-max-size` allows by default; the last is what a pipe has
/// that nobody asks for more, unless its user has many (`fs.pipe-user-pages-soft`).
const SIZES: [usize; 3] = [1 << 20, 256 * 1024, 64 * 1024];

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A pipe, empty between splices.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// `None` if it would be so small that splicing does not pay.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub(super) fn new() -> io::Result<Option<Self>> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = SIZES.into_iter().find(|&size| fcntl_setpipe_size(&write, size).is_ok());
        let large = fcntl_getpipe_size(&write)? >= SIZES[SIZES.len() - 1];
        Ok(large.then_some(Self { read, write }))
    }

    /// Moves what waits in a socket back into it, as much as goes at a time.
    ///
    /// # Errors
    /// That of the connection, which the socket forgets thereby; EAGAIN if nothing waits.
    pub(super) fn echo(&self, socket: BorrowedFd<'_>) -> Result<Spliced, Errno> {
        let came = splice(socket, None, &self.write, None, MOST, FLAGS)?;
        let mut gone = 0;
        while gone < came {
            // An error is the next send's to find.
            match splice(&self.read, None, socket, None, came - gone, FLAGS) {
                Ok(bytes) if bytes > 0 => gone += bytes,
                _ => break,
            }
        }
        Ok(Spliced { came, gone })
    }

    /// Reads what is left in the pipe, as far as it fits. Returns the number of bytes.
    pub(super) fn read(&self, bytes: &mut [u8]) -> usize {
        let read = rustix::io::read(&self.read, bytes).expect("bytes in a pipe are read without sleeping");
        assert!(read > 0, "bytes are in the pipe");
        read
    }
}
