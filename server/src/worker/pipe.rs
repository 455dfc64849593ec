//! The worker's pipe, through which large messages go back to where they came from without being copied:
//! `splice(2)` moves references to their pages from the socket to the pipe, and from there to the socket.
//!
//! Neither call sleeps: accepted sockets are `O_NONBLOCK`, which both look at (`tcp_splice_read` in the
//! kernel's `net/ipv4/tcp.c`, `splice_to_socket` in its `fs/splice.c`), and the pipe is, too. io_uring does
//! not mind: a request that is to wait does.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::kernel::Spliced;

/// Bytes that are spliced at a time: with the sockets' own memory, what a core's second-level cache keeps.
/// Measured: see server/README.md.
const MOST: usize = 256 * 1024;

/// Bytes for which the pipe has places, of a page each; a page of a socket may hold as little as one segment.
/// What an unprivileged user may ask for (`fs.pipe-max-size`).
const SIZE: usize = 1 << 20;

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A pipe, empty between splices.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// # Errors
    /// EMFILE, ENFILE.
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // EPERM where the user has many (`fs.pipe-user-pages-soft`): then less goes through at a time.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Ok(Self { read, write })
    }

    /// Moves what waits in a socket back into it, as much as goes at a time.
    pub(super) fn echo(&self, socket: BorrowedFd<'_>) -> Spliced {
        let length = |result: Result<usize, Errno>| result.unwrap_or(0);
        let came = length(splice(socket, None, &self.write, None, MOST, FLAGS));
        let mut gone = 0;
        while gone < came {
            // An error is the next send's to find.
            match length(splice(&self.read, None, socket, None, came - gone, FLAGS)) {
                0 => break,
                bytes => gone += bytes,
            }
        }
        Spliced { came, gone }
    }

    /// Reads what is left in the pipe, as far as it fits. Returns the number of bytes.
    pub(super) fn read(&self, bytes: &mut [u8]) -> usize {
        rustix::io::read(&self.read, bytes)
            .expect("bytes are in the pipe, and nothing interrupts a read that does not sleep")
    }
}
