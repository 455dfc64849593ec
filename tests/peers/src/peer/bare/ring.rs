//! What io_uring costs if a server does nothing else: one multishot accept, a multishot receive for each
//! connection, sends and closes that complete only if they fail, direct descriptors, one `io_uring_enter` for
//! a turn, and no state of a connection.
//!
//! So `server` uses the ring, too ([`server/README.md`](../../../../../server/README.md)), but for the order
//! and size of its buffers; what makes it a server is not here: this one counts nothing, has no timeouts, and
//! takes it that whoever sends reads. A socket that does not take a message whole ends it, and so does one
//! connection more than [`CONNECTIONS`].
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Entries of the submission queue.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue.
const COMPLETIONS: u32 = 16384;

/// Direct descriptors.
const CONNECTIONS: u32 = 4096;

/// Receive buffers.
const BUFFERS: u16 = 512;
const _: () = assert!(BUFFERS.is_power_of_two());

/// Bytes of each.
const BYTES: u32 = 4096;

/// The one buffer group.
const GROUP: u16 = 0;

/// What a completion answers. A connection's number is in the lower half of `user_data`, and one of these in
/// the upper.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;

/// Runs the server.
pub(super) fn serve(listener: &OwnedFd) -> anyhow::Result<()> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(COMPLETIONS);
    let mut uring = builder.build(SUBMISSIONS).context("io_uring_setup")?;
    let mut ring = Ring::new(&mut uring).context("give a ring direct descriptors and buffers")?;
    ring.push(&accept(listener))?;
    // Connections that found no buffer.
    let mut starved = Vec::new();
    loop {
        ring.enter(u32::from(starved.is_empty()))?;
        ring.offer();
        for connection in starved.drain(..) {
            ring.push(&receive(connection))?;
        }
        ring.completions.sync();
        while let Some(completion) = ring.completions.next() {
            let (operation, connection) = (completion.user_data() >> 32, low(completion.user_data()));
            let result = u32::try_from(completion.result());
            let result = result.map_err(|_| Errno::from_raw_os_error(-completion.result()));
            match (operation, result) {
                (ACCEPT, Ok(connection)) => ring.push(&receive(connection))?,
                (RECEIVE, Ok(received @ 1..)) => {
                    let buffer = cqueue::buffer_select(completion.flags()).context("a buffer with bytes")?;
                    ring.echo(connection, buffer, received)?;
                }
                (RECEIVE, Err(Errno::NOBUFS)) => {
                    starved.push(connection);
                    continue;
                }
                (RECEIVE, _) => {
                    ring.push(&close(connection))?;
                    continue;
                }
                (SEND, Ok(_) | Err(Errno::AGAIN)) => {
                    bail!("a socket did not take a message whole: bare --ring keeps none")
                }
                // What a receive learns, too, or has closed; a client that left before it was accepted.
                (SEND, Err(_)) | (ACCEPT, Err(Errno::CONNABORTED)) => {}
                (ACCEPT, Err(errno)) => return Err(errno).context("accept"),
                (CLOSE, Err(errno)) => return Err(errno).context("close a direct descriptor"),
                (operation, result) => bail!("a completion of {operation} with {result:?}"),
            }
            if !cqueue::more(completion.flags()) && operation != SEND {
                ring.push(&if operation == ACCEPT { accept(listener) } else { receive(connection) })?;
            }
        }
    }
}

/// The lower half.
fn low(user_data: u64) -> u32 {
    u32::try_from(user_data & u64::from(u32::MAX)).expect("masked")
}

fn named(entry: Entry, operation: u64, connection: u32) -> Entry {
    entry.user_data(operation << 32 | u64::from(connection))
}

fn accept(listener: &OwnedFd) -> Entry {
    let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
    named(entry.flags(libc::SOCK_NONBLOCK).build(), ACCEPT, 0)
}

fn receive(connection: u32) -> Entry {
    named(opcode::RecvMulti::new(Fixed(connection), GROUP).build(), RECEIVE, connection)
}

fn close(connection: u32) -> Entry {
    named(opcode::Close::new(Fixed(connection)).build().flags(Flags::SKIP_SUCCESS), CLOSE, connection)
}

/// A ring, with receive buffers that live as long as the process.
struct Ring<'u> {
    submitter: Submitter<'u>,
    submissions: SubmissionQueue<'u>,
    completions: CompletionQueue<'u>,
    flags: EnterFlags,
    /// The buffer ring, of as many entries as there are buffers.
    offers: *mut BufRingEntry,
    memory: *mut u8,
    /// Entries written to the buffer ring.
    tail: u16,
    /// Buffers to be offered once the kernel has taken all sends: those that are sent from.
    taken: Vec<u16>,
}

impl<'u> Ring<'u> {
    fn new(uring: &'u mut IoUring) -> anyhow::Result<Self> {
        let mut flags = EnterFlags::GETEVENTS;
        flags.set(EnterFlags::NO_IOWAIT, uring.params().is_feature_no_iowait());
        let (mut submitter, submissions, completions) = uring.split();
        // It is this submitter that enters by the registered descriptor.
        submitter.register_ring_fd()?;
        submitter.register_files_sparse(CONNECTIONS)?;
        let offers = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(BUFFERS) * BYTES as usize)?;
        // SAFETY: the mapping is page-aligned, of so many entries, and never taken back.
        unsafe { submitter.register_buf_ring_with_flags(offers as u64, BUFFERS, GROUP, 0) }?;
        let taken = (0..BUFFERS).collect();
        let mut ring = Self { submitter, submissions, completions, flags, offers, memory, tail: 0, taken };
        ring.offer();
        Ok(ring)
    }

    /// Sends so many bytes of a buffer, in the call that submits it or not at all.
    fn echo(&mut self, connection: u32, buffer: u16, bytes: u32) -> anyhow::Result<()> {
        self.taken.push(buffer);
        let send = opcode::Send::new(Fixed(connection), self.buffer(buffer), bytes);
        let send = send.flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
        self.push(&named(send.flags(Flags::SKIP_SUCCESS), SEND, connection))
    }

    fn push(&mut self, entry: &Entry) -> anyhow::Result<()> {
        // SAFETY: what a send points to is mapped as long as the process lives; the other requests refer to
        // nothing but the buffer group, whose memory is, too.
        while unsafe { self.submissions.push(entry) }.is_err() {
            self.enter(0)?;
        }
        Ok(())
    }

    /// Submits what was asked for, and waits for so many completions.
    fn enter(&mut self, want: u32) -> anyhow::Result<()> {
        self.submissions.sync();
        let length = u32::try_from(self.submissions.len()).context("entries of a queue")?;
        // SAFETY: so many entries are in the queue, and there is no argument.
        let entered =
            unsafe { self.submitter.enter::<libc::sigset_t>(length, want, self.flags.bits(), None) };
        self.submissions.sync();
        match entered {
            Err(error) if !matches!(Errno::from_io_error(&error), Some(Errno::INTR | Errno::BUSY)) => {
                Err(error).context("io_uring_enter")
            }
            _ => Ok(()),
        }
    }

    /// Gives the kernel the buffers that were sent from, once it has taken all sends.
    fn offer(&mut self) {
        if self.taken.is_empty() || !self.submissions.is_empty() {
            return;
        }
        for index in 0..self.taken.len() {
            let (buffer, slot) = (self.taken[index], self.tail % BUFFERS);
            let address = self.buffer(buffer) as u64;
            // SAFETY: the mapping has so many entries.
            let entry = unsafe { self.offers.add(usize::from(slot)) };
            // SAFETY: the entry is free: there are as many as buffers, and this buffer has none. The setters
            // leave `resv` of entry 0, which is the ring's tail, alone.
            let entry = unsafe { &mut *entry };
            entry.set_addr(address);
            entry.set_len(BYTES);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
        }
        self.taken.clear();
        // SAFETY: the pointer is the first entry of the ring, as `tail` requires.
        let tail = unsafe { BufRingEntry::tail(self.offers) };
        // SAFETY: the tail is 2-byte aligned, mapped, written by this thread alone and read by the kernel,
        // for which the store releases the entries.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.store(self.tail, Ordering::Release);
    }

    fn buffer(&self, buffer: u16) -> *const u8 {
        assert!(buffer < BUFFERS, "the kernel names buffers that it was given");
        // SAFETY: the offset lies inside the mapping by the check above.
        unsafe { self.memory.add(usize::from(buffer) * BYTES as usize) }
    }
}

/// Memory that is never taken back.
fn map(length: usize) -> anyhow::Result<*mut u8> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a null hint with no MAP_FIXED replaces no existing mapping.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), length, protection, flags) };
    Ok(start.with_context(|| format!("map {length} bytes"))?.cast())
}
