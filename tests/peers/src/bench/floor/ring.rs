//! What the floor needs of io_uring: batches of operations that are complete when the call comes back.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, ensure};
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

/// Connections in a batch: each has a send and a receive in the ring.
const BATCH: u16 = 256;

/// A ring set up as that of `server`'s workers.
pub(crate) struct Ring(IoUring);

impl Ring {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun();
        builder.build(2 * u32::from(BATCH)).map(Self).context("io_uring_setup; the floor needs Linux 6.1")
    }

    /// Nothing, `count` times.
    pub(crate) fn nops(&mut self, count: u16) -> anyhow::Result<()> {
        ensure!(count <= BATCH, "{count} NOPs: at most {BATCH} at once");
        for _ in 0..count {
            // SAFETY: a NOP refers to nothing.
            unsafe { self.push(&opcode::Nop::new().build()) }?;
        }
        self.complete(count.into(), 0)
    }

    /// The message in `buffer` over each connection, and back into it.
    pub(crate) fn exchange(
        &mut self,
        from: &[OwnedFd],
        to: &[OwnedFd],
        buffer: &mut [u8],
    ) -> anyhow::Result<()> {
        // Both before anything is queued that refers to the buffer.
        let length = u32::try_from(buffer.len()).context("the length of a message")?;
        let expected = i32::try_from(length).context("the length of a message")?;
        let pointer = buffer.as_mut_ptr();
        let batch = usize::from(BATCH);
        for (from, to) in from.chunks(batch).zip(to.chunks(batch)) {
            for socket in from {
                let send = opcode::Send::new(Fd(socket.as_raw_fd()), pointer.cast_const(), length);
                // SAFETY: `complete` below waits for it, and until then `buffer` is borrowed and the socket
                // open.
                unsafe { self.push(&send.build()) }?;
            }
            for socket in to {
                let receive = opcode::Recv::new(Fd(socket.as_raw_fd()), pointer, length);
                // SAFETY: as above; that all write to one buffer is a race of bytes that nobody looks at.
                unsafe { self.push(&receive.flags(libc::MSG_WAITALL).build()) }?;
            }
            self.complete(from.len() + to.len(), expected)?;
        }
        Ok(())
    }

    /// # Safety
    /// What the entry refers to must live until it is complete.
    unsafe fn push(&mut self, entry: &Entry) -> anyhow::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.0.submission().push(entry) }.context("the submission queue is full")
    }

    /// Waits for all operations, each of which must have given `result`. All are waited for before one that
    /// has failed is told of; should the wait itself fail, the process ends rather than let the kernel write
    /// to memory that is not its own.
    fn complete(&mut self, count: usize, result: i32) -> anyhow::Result<()> {
        let mut results = Vec::with_capacity(count);
        while results.len() < count {
            if let Err(error) = self.0.submit_and_wait(count - results.len())
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                eprintln!("peers: io_uring_enter of the floor: {error}");
                std::process::abort();
            }
            results.extend(self.0.completion().map(|entry| entry.result()));
        }
        let wrong = results.into_iter().find(|&found| found != result);
        ensure!(wrong.is_none(), "an io_uring operation gave {wrong:?} instead of {result}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::echo::Pairs;
    use super::*;

    #[test]
    fn a_batch_is_complete_when_it_comes_back() {
        let mut ring = match Ring::new() {
            Ok(ring) => ring,
            Err(error) => return eprintln!("SKIPPED: {error:#}"),
        };
        ring.nops(BATCH).unwrap();
        assert!(ring.nops(BATCH + 1).is_err());
        let mut pairs = Pairs::tcp(300, 64).unwrap();
        for _ in 0..3 {
            pairs.turn();
            ring.exchange(&pairs.from, &pairs.to, &mut pairs.buffer).unwrap();
        }
    }
}
