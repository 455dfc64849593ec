//! One thread's io_uring: connects, sends, receives, and their completions.
//!
//! Measured against edge-triggered epoll with `send` and `recv`: see tests/load/README.md.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};
use rustix::io::Errno;
use socket2::SockAddr;

use crate::Error;
use crate::buffers::{Buffers, Filled, GROUP};

/// Entries of the submission queue; when it is full it is submitted.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue: a send and a receive of each connection that is under way. When it is
/// full the kernel keeps what does not fit and ends multishot receives, which are armed again.
const COMPLETIONS: u32 = 8192;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// [`Ring::connect`]
    Connect,
    /// [`Ring::disconnect`]; reported only if it failed.
    Disconnect,
    /// [`Ring::send`]; the number is the bytes that the kernel took.
    Send,
    /// [`Ring::receive`]; the number is the bytes that came, 0 at the end of the stream.
    Receive,
}

const OPERATIONS: [Operation; 4] =
    [Operation::Connect, Operation::Disconnect, Operation::Send, Operation::Receive];

/// An answer of the kernel.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) operation: Operation,
    /// The name of the connection, from the request.
    pub(crate) slot: usize,
    pub(crate) result: Result<usize, Errno>,
    /// Where received bytes are. To be given back.
    pub(crate) buffer: Option<Filled>,
    /// The receive goes on; else it has to be asked for again.
    pub(crate) more: bool,
}

/// A ring and its receive buffers. What is sent lives for `'a`.
pub(crate) struct Ring<'a> {
    uring: IoUring,
    buffers: Buffers,
    flags: EnterFlags,
    spin: bool,
    /// Time spent asking for completions when there were none.
    idle: Duration,
    sent: PhantomData<&'a [u8]>,
}

impl<'a> Ring<'a> {
    /// A ring for the calling thread, which alone may use it, with receive buffers for messages of `message`
    /// bytes, each in one buffer if `whole`. With `spin` it never sleeps: it asks until there is something.
    pub(crate) fn new(message: usize, whole: bool, spin: bool) -> Result<Self, Error> {
        let failed = |operation| move |error| Error::Ring { operation, error };
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(failed("io_uring_setup"))?;
        let buffers = Buffers::map(message, whole).map_err(failed("map receive buffers"))?;
        buffers.register(&uring.submitter()).map_err(failed("register receive buffers"))?;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        flags.set(EnterFlags::NO_IOWAIT, uring.params().is_feature_no_iowait());
        Ok(Self { uring, buffers, flags, spin, idle: Duration::ZERO, sent: PhantomData })
    }

    /// Connects a socket, which must be a blocking one for the ring to wait for it.
    pub(crate) fn connect(
        &mut self,
        slot: usize,
        socket: impl AsFd,
        address: &'a SockAddr,
    ) -> Result<(), Error> {
        let entry = opcode::Connect::new(fd(socket), address.as_ptr().cast(), address.len()).build();
        self.push(Operation::Connect, slot, &entry)
    }

    /// Resets the connection of a socket, which can then be connected again: connect(2) with `AF_UNSPEC`.
    pub(crate) fn disconnect(&mut self, slot: usize, socket: impl AsFd) -> Result<(), Error> {
        static NOWHERE: libc::sockaddr = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
        let length = u32::try_from(size_of::<libc::sockaddr>()).expect("16");
        let entry = opcode::Connect::new(fd(socket), &raw const NOWHERE, length).build();
        self.push(Operation::Disconnect, slot, &entry.flags(Flags::SKIP_SUCCESS))
    }

    /// Sends all of `bytes`; the kernel waits for room.
    pub(crate) fn send(&mut self, slot: usize, socket: impl AsFd, bytes: &'a [u8]) -> Result<(), Error> {
        let length = u32::try_from(bytes.len()).expect("at most a window of the pattern");
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(fd(socket), bytes.as_ptr(), length).flags(flags).build();
        self.push(Operation::Send, slot, &entry)
    }

    /// Receives what comes, as often as something comes.
    pub(crate) fn receive(&mut self, slot: usize, socket: impl AsFd) -> Result<(), Error> {
        self.push(Operation::Receive, slot, &opcode::RecvMulti::new(fd(socket), GROUP).build())
    }

    /// Receives what comes, once.
    pub(crate) fn receive_once(&mut self, slot: usize, socket: impl AsFd) -> Result<(), Error> {
        let entry = opcode::Recv::new(fd(socket), std::ptr::null_mut(), 0).buf_group(GROUP).build();
        self.push(Operation::Receive, slot, &entry.flags(Flags::BUFFER_SELECT))
    }

    fn push(&mut self, operation: Operation, slot: usize, entry: &Entry) -> Result<(), Error> {
        let entry = entry.clone().user_data(((slot as u64) << 2) | operation as u64);
        // SAFETY: what requests point to is static, or lives for 'a, and the kernel reads it only while this
        // thread is inside `enter` (DEFER_TASKRUN), which it can't be once 'a is over. A receive names a
        // buffer group of this ring.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.enter(0, Duration::ZERO)?;
        }
        Ok(())
    }

    /// Submits what was asked for, and waits until something has completed or `until`.
    pub(crate) fn wait(&mut self, until: Instant) -> Result<(), Error> {
        if !self.uring.completion().is_empty() {
            return self.enter(0, Duration::ZERO);
        }
        if !self.spin {
            return self.enter(1, until.saturating_duration_since(Instant::now()));
        }
        self.enter(0, Duration::ZERO)?;
        let mut since = None;
        while self.uring.completion().is_empty() {
            let now = Instant::now();
            since.get_or_insert(now);
            if now >= until {
                break;
            }
            self.enter(0, Duration::ZERO)?;
        }
        self.idle += since.map_or(Duration::ZERO, |since| since.elapsed());
        Ok(())
    }

    /// Submits what was asked for, and runs what is ready.
    pub(crate) fn submit(&mut self) -> Result<(), Error> {
        self.enter(0, Duration::ZERO)
    }

    fn enter(&mut self, want: u32, timeout: Duration) -> Result<(), Error> {
        self.buffers.publish();
        let length = u32::try_from(self.uring.submission().len()).expect("at most SUBMISSIONS");
        let timeout = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let arguments = SubmitArgs::new().timespec(&timeout);
        // SAFETY: `length` entries are in the queue; with EXT_ARG the argument is `struct
        // io_uring_getevents_arg`, which `SubmitArgs` is, and the timespec that it points to lives until the
        // call returns.
        let entered =
            unsafe { self.uring.submitter().enter(length, want, self.flags.bits(), Some(&arguments)) };
        match entered {
            Err(error) if !mends_itself(&error) => Err(Error::Ring { operation: "io_uring_enter", error }),
            _ => Ok(()),
        }
    }

    /// The next completion, oldest first.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        let result = match usize::try_from(entry.result()) {
            Ok(number) => Ok(number),
            Err(_) => Err(Errno::from_raw_os_error(-entry.result())),
        };
        let length = *result.as_ref().unwrap_or(&0);
        Some(Completion {
            operation: OPERATIONS[(entry.user_data() & 3) as usize],
            slot: usize::try_from(entry.user_data() >> 2).expect("it was a usize"),
            result,
            buffer: cqueue::buffer_select(entry.flags()).map(|id| self.buffers.take(id, length)),
            more: cqueue::more(entry.flags()),
        })
    }

    /// The bytes that a completion brought.
    pub(crate) fn bytes(&self, filled: &Filled) -> &[u8] {
        self.buffers.bytes(filled)
    }

    /// Gives the buffer of a completion back.
    pub(crate) fn give_back(&mut self, filled: Filled) {
        self.buffers.give_back(filled);
    }

    /// Time that a ring that spins has spent asking in vain.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }
}

fn fd(socket: impl AsFd) -> Fd {
    Fd(socket.as_fd().as_raw_fd())
}

/// Whether a later call mends it: interrupted, nothing in time, out of request memory, completions have to be
/// taken first.
fn mends_itself(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::TIME | Errno::AGAIN | Errno::BUSY))
}
