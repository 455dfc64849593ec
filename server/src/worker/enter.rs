//! `io_uring_enter(2)`: the one system call of a turn of the loop, beside splices, for connections and for
//! datagrams.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, SubmissionQueue, Submitter};
use rustix::io::Errno;

/// Submits what is queued, runs requests that are ready, and sleeps until there are `want` completions or
/// `timeout` has passed. `flags` has `IORING_ENTER_GETEVENTS`.
///
/// # Errors
/// Any but those that a later call mends: EINTR, ETIME, EAGAIN (out of request memory), EBUSY (completions
/// have to be taken first).
pub(crate) fn enter(
    submitter: &Submitter<'_>,
    submissions: &mut SubmissionQueue<'_>,
    flags: EnterFlags,
    want: u32,
    timeout: Option<Duration>,
) -> io::Result<()> {
    submissions.sync();
    let length = u32::try_from(submissions.len()).expect("a queue has at most 32768 entries");
    let entered = enter_once(submitter, length, flags, want, timeout);
    submissions.sync();
    match entered {
        Err(error) if !mends_itself(&error) => Err(error),
        _ => Ok(()),
    }
}

fn mends_itself(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::TIME | Errno::AGAIN | Errno::BUSY))
}

fn enter_once(
    submitter: &Submitter<'_>,
    length: u32,
    flags: EnterFlags,
    want: u32,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let timespec = timeout.map(|t| Timespec::new().sec(t.as_secs()).nsec(t.subsec_nanos()));
    let Some(timespec) = &timespec else {
        // SAFETY: no argument is passed; `length` entries are in the queue.
        return unsafe { submitter.enter::<libc::sigset_t>(length, want, flags.bits(), None) };
    };
    let arguments = SubmitArgs::new().timespec(timespec);
    let flags = flags | EnterFlags::EXT_ARG;
    // SAFETY: with EXT_ARG the argument is `struct io_uring_getevents_arg`, which `SubmitArgs` is, and the
    // timespec that it points to lives until the call returns.
    unsafe { submitter.enter(length, want, flags.bits(), Some(&arguments)) }
}
