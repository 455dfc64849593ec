//! How a ring is made, and what may keep it from being made.

use std::io;
use std::time::{Duration, Instant};

use io_uring::types::Napi;
use io_uring::{IoUring, Submitter};
use rustix::io::Errno;
use tune::errno::describe;
use tune::kernel_files::KernelFiles;

/// Entries of the submission queue. More requests than that take another turn of the loop.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue: multishot requests complete many times per submission, an accept burst
/// once per connection of the backlog. When it is full the kernel keeps what does not fit and ends multishot
/// requests; nothing is lost, they are armed again.
pub(crate) const COMPLETIONS: u32 = 16 * 1024;

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
        "io_uring_setup: {error}: Linux {release} is too old; SINGLE_ISSUER and DEFER_TASKRUN need 6.1 or \
         later"
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

impl SetupError {
    /// Any error but those of a kernel without io_uring.
    pub(crate) fn failed(operation: &'static str, error: io::Error) -> Self {
        let hint = match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) => "; raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)",
            Some(Errno::MFILE) => "; raise the limit of open files (ulimit -n, LimitNOFILE=)",
            _ => "",
        };
        Self::Failed { operation, error, hint }
    }
}

/// Makes a ring for the calling thread, which alone may use it.
///
/// # Errors
/// If io_uring is disabled, the kernel is older than 6.1, or memory is short.
pub(crate) fn create() -> Result<IoUring, SetupError> {
    create_with(SUBMISSIONS, COMPLETIONS)
}

/// A small ring of the same kind, to try things out on. Newer kernels (seen on 6.18) count rings as locked
/// memory of the user, and until they have taken them apart, a while after they were closed: a large one
/// would be missing when the workers make theirs.
///
/// # Errors
/// As [`create`].
pub(crate) fn create_small() -> Result<IoUring, SetupError> {
    create_with(8, 32)
}

fn create_with(submissions: u32, completions: u32) -> Result<IoUring, SetupError> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions);
    with_patience(|| builder.build(submissions)).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::NOSYS) => SetupError::Disabled { error, setting: setting() },
        Some(Errno::INVAL) => SetupError::TooOld {
            error,
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
        },
        _ => SetupError::failed("io_uring_setup", error),
    })
}

/// Busy-polls the device queues of this ring's sockets for up to `time` before it sleeps (6.9 and later); not
/// at all if that is zero.
///
/// # Errors
/// EINVAL before 6.9, and where the kernel has no busy polling.
pub(crate) fn busy_poll(submitter: &Submitter<'_>, time: Duration) -> Result<(), SetupError> {
    if time.is_zero() {
        return Ok(());
    }
    let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let mut napi = Napi::new().set_busy_poll_timeout(time).set_prefer_busy_poll(true);
    submitter.register_napi(&mut napi).map_err(|error| SetupError::Failed {
        operation: "register busy polling (--busy-poll)",
        error,
        hint: "; it needs Linux 6.9 or later with CONFIG_NET_RX_BUSY_POLL",
    })
}

/// How long to wait for locked memory, and how long between two attempts.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Tries again for a while if memory is short: the kernel takes the rings of a server that has just ended
/// apart in its own time, and until then counts them as locked memory of the user.
pub(crate) fn with_patience<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if Errno::from_io_error(&error) == Some(Errno::NOMEM) && start.elapsed() < PATIENCE =>
            {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
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
            "kernel.io_uring_disabled is {setting}; allow it with `sysctl kernel.io_uring_disabled=0` (with \
             1, processes with CAP_SYS_ADMIN and members of the group kernel.io_uring_group may use it)"
        ),
    }
}

fn setting() -> String {
    KernelFiles::open("/")
        .and_then(|files| files.read("/proc/sys/kernel/io_uring_disabled"))
        .unwrap_or_else(|_| "absent".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_memory_is_waited_for_and_nothing_else() {
        let mut answers = [Err(Errno::NOMEM), Err(Errno::NOMEM), Ok(7)].into_iter();
        assert_eq!(with_patience(|| Ok(answers.next().unwrap()?)).unwrap(), 7);
        let mut answers = [Err(Errno::PERM), Ok(7)].into_iter();
        assert!(with_patience(|| Ok(answers.next().unwrap()?)).is_err());
        let mut attempts = 0;
        let never = with_patience(|| {
            attempts += 1;
            Err::<(), _>(Errno::NOMEM.into())
        });
        assert!(never.is_err() && attempts > 1);
    }

    #[test]
    fn what_is_short_is_named() {
        let short = |errno: Errno| SetupError::failed("try it", errno.into()).to_string();
        assert!(short(Errno::MFILE).ends_with("; raise the limit of open files (ulimit -n, LimitNOFILE=)"));
        assert!(short(Errno::NOMEM).contains("LimitMEMLOCK="));
        assert!(!short(Errno::INVAL).contains(';'));
    }
}
