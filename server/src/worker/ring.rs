//! The worker's io_uring: set-up, submission, waiting, completions.
//!
//! What is asked of the kernel is in [`super::operations`]; here is how it gets there and how answers come back.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue};
use rustix::io::Errno;
use tune::errno::describe;
use tune::kernel_files::KernelFiles;

use super::features::Features;
use super::operations::VectorArena;
use super::token::{BufferId, Token};

/// Entries of the submission queue. More requests than that in one turn of the loop take another system call.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue: multishot requests complete many times per submission, an accept burst once per
/// connection of the backlog. When it is full the kernel keeps what does not fit and ends multishot requests; nothing is
/// lost, they are armed again.
pub(super) const COMPLETIONS: u32 = 16 * 1024;

/// Why a worker has no ring.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `io_uring_setup(2)` gave EPERM or ENOSYS.
    #[error(
        "io_uring_setup: {error}: io_uring is disabled here: {reason}",
        error = describe(error),
        reason = why_disabled(setting)
    )]
    Disabled {
        /// The error of the system call.
        error: io::Error,
        /// `/proc/sys/kernel/io_uring_disabled`, "absent" where the kernel has no such file (before 6.6).
        setting: String,
    },
    /// `io_uring_setup(2)` gave EINVAL for flags that Linux 6.1 knows.
    #[error(
        "io_uring_setup: {error}: Linux {release} is too old; SINGLE_ISSUER and DEFER_TASKRUN need 6.1 or later"
    )]
    TooOld {
        /// The error of the system call.
        error: io::Error,
        /// `uname -r`.
        release: String,
    },
    /// Anything else.
    #[error("{operation}: {error}{hint}", error = describe(error))]
    Failed {
        /// The system call and what it was for.
        operation: &'static str,
        /// Its error.
        error: io::Error,
        /// What to do next, with its leading punctuation; empty where it is not known.
        hint: &'static str,
    },
}

/// Makes a ring for the calling thread, which alone may use it.
///
/// # Errors
/// If io_uring is disabled, the kernel is older than 6.1, or memory is short.
pub(crate) fn create() -> Result<IoUring, SetupError> {
    create_with(SUBMISSIONS, COMPLETIONS)
}

/// A small ring of the same kind, to try things out on. Newer kernels (seen on 6.18) count rings as locked memory of the
/// user, and until they have taken them apart, a while after they were closed: a large one would be missing when the workers
/// make theirs.
///
/// # Errors
/// As [`create`].
pub(super) fn create_small() -> Result<IoUring, SetupError> {
    create_with(8, 32)
}

fn create_with(submissions: u32, completions: u32) -> Result<IoUring, SetupError> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions)
        .build(submissions)
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::NOSYS) => SetupError::Disabled { error, setting: setting() },
            Some(Errno::INVAL) => SetupError::TooOld {
                error,
                release: rustix::system::uname().release().to_string_lossy().into_owned(),
            },
            Some(Errno::NOMEM) => SetupError::Failed {
                operation: "io_uring_setup",
                error,
                hint: "; raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)",
            },
            _ => SetupError::Failed { operation: "io_uring_setup", error, hint: "" },
        })
}

/// What `/proc/sys/kernel/io_uring_disabled` says of it (`Documentation/admin-guide/sysctl/kernel.rst`).
fn why_disabled(setting: &str) -> String {
    match setting {
        "0" | "absent" => {
            "the kernel was built without it, or a seccomp profile forbids it, as those of containers do; \
                           allow io_uring_setup, io_uring_enter and io_uring_register there"
                .to_owned()
        }
        _ => format!(
            "kernel.io_uring_disabled is {setting}; allow it with `sysctl kernel.io_uring_disabled=0` (with 1, processes \
             with CAP_SYS_ADMIN and members of the group kernel.io_uring_group may use it)"
        ),
    }
}

fn setting() -> String {
    KernelFiles::open("/")
        .and_then(|files| files.read("/proc/sys/kernel/io_uring_disabled"))
        .unwrap_or_else(|_| "absent".to_owned())
}

/// An answer of the kernel.
#[derive(Debug)]
pub(crate) struct Completion {
    /// What it answers; `None` if `user_data` is none of ours.
    pub(crate) token: Option<Token>,
    /// Bytes, a descriptor index, 0, or the error.
    pub(crate) result: Result<u32, Errno>,
    /// The multishot request stays armed (`IORING_CQE_F_MORE`).
    pub(crate) more: bool,
    /// The buffer that holds the bytes (`IORING_CQE_F_BUFFER`). It is the worker's now, whatever the result is.
    pub(crate) buffer: Option<BufferId>,
}

/// Turns the kernel's `-errno` into an error; the only place that does.
pub(super) fn result_of(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

/// Submission and completion side of one ring, borrowed for the life of the worker's loop.
pub(crate) struct Ring<'r> {
    submitter: Submitter<'r>,
    submissions: SubmissionQueue<'r>,
    completions: CompletionQueue<'r>,
    /// Requests that found the submission queue full.
    overflow: VecDeque<Entry>,
    /// Requests queued since the ring was made.
    queued: u64,
    enter_flags: EnterFlags,
    /// Message headers of requests that the kernel has not read yet.
    pub(super) vectors: VectorArena,
    pub(super) features: Features,
    /// Where the kernel writes `SO_INCOMING_CPU`, by direct descriptor.
    pub(super) incoming_cpus: Box<[i32]>,
}

impl<'r> Ring<'r> {
    /// Takes a ring of [`create`] into use. Registers the ring's own descriptor, which spares each `io_uring_enter` the
    /// look-up (since 5.18), and, if they are used, a table of `slots` direct descriptors.
    ///
    /// # Errors
    /// If registering fails: EMFILE when `slots` is above RLIMIT_NOFILE.
    pub(crate) fn new(uring: &'r mut IoUring, features: Features, slots: u32) -> Result<Self, SetupError> {
        let no_iowait = uring.params().is_feature_no_iowait();
        let (mut submitter, submissions, completions) = uring.split();
        let failed = |operation| move |error| SetupError::Failed { operation, error, hint: "" };
        submitter.register_ring_fd().map_err(failed("register the ring's descriptor"))?;
        let direct = if features.direct_descriptors { slots } else { 0 };
        if direct > 0 {
            submitter.register_files_sparse(direct).map_err(|error| SetupError::Failed {
                operation: "register the direct descriptor table",
                error,
                hint: "; lower --max-connections or raise the limit of open files (ulimit -n, LimitNOFILE=)",
            })?;
        }
        let mut enter_flags = EnterFlags::GETEVENTS;
        enter_flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        Ok(Self {
            submitter,
            submissions,
            completions,
            overflow: VecDeque::new(),
            queued: 0,
            enter_flags,
            vectors: VectorArena::new(),
            features,
            incoming_cpus: vec![0; direct as usize].into_boxed_slice(),
        })
    }

    /// For registering the buffer pool.
    pub(crate) fn submitter(&self) -> &Submitter<'r> {
        &self.submitter
    }

    /// Queues a request. It reaches the kernel with the next [`Ring::enter`] at the latest.
    ///
    /// # Safety
    /// What the request points to must stay valid, and for a receive unused, until the kernel is done with it: until
    /// [`Ring::consumed`] covers it for what the kernel copies at submission, until its completion for all else.
    pub(super) unsafe fn push(&mut self, entry: Entry) {
        self.queued += 1;
        if self.overflow.is_empty() {
            // SAFETY: the caller's promise is the one that `push` asks for.
            if unsafe { self.submissions.push(&entry) }.is_ok() {
                return;
            }
        }
        self.overflow.push_back(entry);
    }

    /// Requests queued so far. A request's number is the value just after it was queued.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    /// Requests that the kernel has taken, of those queued so far, in order. Right after an [`Ring::enter`].
    pub(crate) fn consumed(&self) -> u64 {
        self.queued - self.overflow.len() as u64 - self.submissions.len() as u64
    }

    /// True while completions wait in the kernel because the completion queue was full.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.submissions.cq_overflow()
    }

    /// True if, right after an [`Ring::enter`], nothing that is ready is left in the kernel: an enter that waits for one
    /// completion runs at most 20 requests that are ready (`IO_LOCAL_TW_DEFAULT_MAX` in the kernel's
    /// `io_uring/io_uring.c`, since 6.13).
    pub(crate) fn has_caught_up(&self) -> bool {
        !self.has_overflowed() && !self.has_unsubmitted() && !self.submissions.taskrun()
    }

    /// True while requests wait that the kernel has not taken: there were more than the submission queue has entries, or
    /// it wants completions to be taken first.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.consumed() < self.queued
    }

    /// Submits what is queued, as far as the submission queue has room, runs requests that are ready, and, if nothing is
    /// left to submit, sleeps until there are `want` completions or `timeout` has passed.
    ///
    /// One system call, so that what the worker decided on, such as how many connections to accept, is not outrun.
    ///
    /// # Errors
    /// Any but those that a later call mends: EINTR, ETIME, EAGAIN (out of request memory), EBUSY (completions have to be
    /// taken first).
    pub(crate) fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.refill();
        self.submissions.sync();
        let want = if self.overflow.is_empty() { want } else { 0 };
        if let Err(error) = self.enter_once(want, timeout)
            && !matches!(
                Errno::from_io_error(&error),
                Some(Errno::INTR | Errno::TIME | Errno::AGAIN | Errno::BUSY)
            )
        {
            return Err(error);
        }
        self.submissions.sync();
        if !self.has_unsubmitted() {
            self.vectors.clear();
        }
        Ok(())
    }

    /// Moves requests from the overflow list into the submission queue while it has room.
    fn refill(&mut self) {
        while let Some(entry) = self.overflow.front() {
            // SAFETY: `Ring::push` passed its caller's promise on to this entry.
            if unsafe { self.submissions.push(entry) }.is_err() {
                break;
            }
            self.overflow.pop_front();
        }
    }

    fn enter_once(&self, want: u32, timeout: Option<Duration>) -> io::Result<usize> {
        let length = u32::try_from(self.submissions.len()).expect("the queue has SUBMISSIONS entries");
        let timespec = timeout.map(|t| Timespec::new().sec(t.as_secs()).nsec(t.subsec_nanos()));
        let Some(timespec) = &timespec else {
            // SAFETY: no argument is passed; `length` entries are in the queue.
            return unsafe {
                self.submitter.enter::<libc::sigset_t>(length, want, self.enter_flags.bits(), None)
            };
        };
        let arguments = SubmitArgs::new().timespec(timespec);
        let flags = self.enter_flags | EnterFlags::EXT_ARG;
        // SAFETY: with EXT_ARG the argument is `struct io_uring_getevents_arg`, which `SubmitArgs` is, and the timespec
        // that it points to lives until the call returns.
        unsafe { self.submitter.enter(length, want, flags.bits(), Some(&arguments)) }
    }

    /// Ends a request and waits until it has ended.
    pub(crate) fn cancel_now(&self, request: Token) {
        let timeout = Timespec::new().sec(1);
        // ENOENT: it has ended.
        let request = CancelBuilder::user_data(request.encode());
        let _ = self.submitter.register_sync_cancel(Some(timeout), request);
    }

    /// Makes the completions that the kernel has posted visible to [`Ring::next`], and gives back the room of those taken.
    pub(crate) fn sync_completions(&mut self) {
        self.completions.sync();
    }

    /// The next completion, oldest first.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        let entry = self.completions.next()?;
        Some(Completion {
            token: Token::decode(entry.user_data()),
            result: result_of(entry.result()),
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
