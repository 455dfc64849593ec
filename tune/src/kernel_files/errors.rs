//! Errors of kernel files: operation, path, value, errno, and what it means there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::errno;

const READ_ONLY: &str = "mounted read-only here, as in a container; mount /proc/sys, /proc/irq and /sys \
                         writable there or run on the host";
/// Before Linux 6.12 only the write tells.
const MANAGED: &str = "the kernel manages this interrupt; queues.irq = \"follow\" leaves it where it is and \
                       lays the queues out where they fire";

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Opening the root directory.
    OpenRoot,
    /// Looking a path up.
    LookUp,
    /// Reading a file.
    Read,
    /// Reading a directory.
    List,
    /// Checking that a file can be written.
    CheckWritable,
    /// Writing this value.
    Write(String),
}

/// A kernel file that could not be read or written. `Display` is one line with the errno's name and its
/// meaning.
#[derive(Debug)]
pub struct KernelFileError {
    operation: Operation,
    path: PathBuf,
    source: io::Error,
}

impl KernelFileError {
    pub(crate) fn new(operation: Operation, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self { operation, path: path.as_ref().to_owned(), source }
    }

    /// True if the file or directory does not exist (ENOENT, ENODEV or ENOTDIR).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(Errno::from_io_error(&self.source), Some(Errno::NOENT | Errno::NODEV | Errno::NOTDIR))
    }

    /// True if the errno is EOPNOTSUPP.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        Errno::from_io_error(&self.source) == Some(Errno::OPNOTSUPP)
    }

    /// True if the kernel gives no value here (EINVAL).
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        Errno::from_io_error(&self.source) == Some(Errno::INVAL)
    }

    fn is_write(&self) -> bool {
        matches!(self.operation, Operation::Write(_) | Operation::CheckWritable)
    }

    /// What the errno means for this file and what to do, where that says more than the errno's own text.
    /// Sources: kernel `kernel/irq/proc.c` `write_irq_affinity()`, `net/core/net-sysfs.c`.
    fn meaning(&self) -> Option<&'static str> {
        let errno = Errno::from_io_error(&self.source)?;
        let path = self.path.to_string_lossy();
        if errno == Errno::ACCESS {
            return Some(if self.is_write() {
                who_may_write(&path)
            } else {
                "permission denied; run as root"
            });
        }
        if errno == Errno::ROFS {
            return Some(READ_ONLY);
        }
        if !self.is_write() {
            return None;
        }
        if path.starts_with("napi_thread/") {
            return match errno {
                Errno::PERM => Some("needs CAP_SYS_NICE; run as root"),
                Errno::NOENT | Errno::SRCH => Some("this NAPI instance has no thread any more"),
                Errno::INVAL => Some("none of these CPUs is online and allowed to it"),
                _ => None,
            };
        }
        if path.starts_with("/proc/irq/") {
            return match errno {
                Errno::PERM | Errno::IO => Some(MANAGED),
                Errno::INVAL => Some("no online CPU is in it, or its interrupt controller cannot move it"),
                Errno::NOSPC => Some("no free interrupt vector is left on these CPUs"),
                Errno::OVERFLOW | Errno::RANGE => Some("a CPU in it is beyond the CPUs of this host"),
                Errno::NOENT => Some("this interrupt does not exist"),
                _ => None,
            };
        }
        match errno {
            Errno::OVERFLOW => Some("a CPU in it is beyond the CPUs of this host"),
            Errno::PERM if path.starts_with("/sys/class/net/") => {
                Some("not permitted; needs CAP_NET_ADMIN in the first user namespace")
            }
            Errno::OPNOTSUPP if path.ends_with("/threaded") => Some(
                "the interface has no NAPI instance now, as a veth without GRO; set napi.threaded = \"keep\"",
            ),
            Errno::INVAL if path.ends_with("/rps_cpus") => {
                Some("no housekeeping CPU is left in it (isolcpus, nohz_full)")
            }
            Errno::NOENT if path.ends_with("/xps_cpus") => {
                Some("the device has a single TX queue, or no such queue")
            }
            _ => None,
        }
    }
}

/// What it takes to write a file. A sysctl's permissions are its own, which CAP_DAC_OVERRIDE does not touch
/// (`proc_sys_permission()`), and those below `net` go by capability (`net_ctl_permissions()`); the files of
/// queues ask for one when they are written (`store_rps_map()`).
fn who_may_write(path: &str) -> &'static str {
    if path.starts_with("/proc/sys/net/") {
        "permission denied; needs root or CAP_NET_ADMIN"
    } else if path.starts_with("/proc/sys/") {
        "permission denied; needs root"
    } else if path.starts_with("/sys/class/net/") {
        "permission denied; needs root, or CAP_DAC_OVERRIDE and CAP_NET_ADMIN"
    } else {
        "permission denied; needs root or CAP_DAC_OVERRIDE"
    }
}

impl fmt::Display for KernelFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.operation {
            Operation::OpenRoot => write!(f, "open root {path}: ")?,
            Operation::LookUp => write!(f, "look up {path}: ")?,
            Operation::Read => write!(f, "read {path}: ")?,
            Operation::List => write!(f, "list {path}: ")?,
            Operation::CheckWritable => write!(f, "write to {path}: ")?,
            Operation::Write(value) => write!(f, "write \"{value}\" to {path}: ")?,
        }
        match (errno::name(&self.source), self.meaning()) {
            (Some(name), Some(meaning)) => write!(f, "{name}: {meaning}"),
            _ => f.write_str(&errno::describe(&self.source)),
        }
    }
}

impl std::error::Error for KernelFileError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_about_it() {
        let message = |path: &str, errno: Errno| {
            KernelFileError::new(Operation::CheckWritable, path, errno.into()).to_string()
        };
        let read_only = message("/proc/sys/net/core/somaxconn", Errno::ROFS);
        assert!(read_only.contains("EROFS: mounted read-only here"), "{read_only}");
        assert!(read_only.contains("mount /proc/sys, /proc/irq and /sys writable"), "{read_only}");
        for errno in [Errno::PERM, Errno::IO] {
            let managed = message("/proc/irq/40/smp_affinity_list", errno);
            assert!(managed.contains("queues.irq = \"follow\" leaves it where it is"), "{managed}");
        }
    }
}
