//! Network namespaces that nobody has to clean up.
//!
//! A [`Namespace`] is held by file descriptors and never bound to a name: when the process that holds it and
//! the processes in it are gone, for whatever reason, SIGKILL included, the kernel takes it apart, with its
//! interfaces, its sysctls and its mounts.
//!
//! The one `unsafe` is `unshare(2)`, which rustix marks so because `CLONE_FILES` would take descriptors away
//! from other threads.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tune::errno::describe;
use tune::kernel_files::KernelFileError;

/// Why a namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The caller is not root, or root without the capability.
    #[error("{operation}: {}; run it as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)", describe(error))]
    NotPermitted {
        /// The system call and its object.
        operation: String,
        /// What it said.
        error: io::Error,
    },
    /// Another failure of a system call.
    #[error("{operation}: {}", describe(error))]
    System {
        /// The system call and its object.
        operation: String,
        /// What it said.
        error: io::Error,
    },
    /// A file of the kernel in the namespace could not be written.
    #[error(transparent)]
    KernelFile(#[from] KernelFileError),
}

impl NamespaceError {
    /// Turns an error of `operation` into a [`NamespaceError`]; for `map_err`.
    pub(crate) fn of<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        |error| {
            let (operation, error) = (operation.into(), error.into());
            match error.kind() {
                io::ErrorKind::PermissionDenied => Self::NotPermitted { operation, error },
                _ => Self::System { operation, error },
            }
        }
    }
}

/// A network namespace together with a mount namespace in which `/sys` shows that network (a sysfs mount
/// belongs to the network namespace of whoever mounted it, see sysfs_init_fs_context() in fs/sysfs/mount.c)
/// and `/run` is an empty tmpfs. Everything else is the file tree of the host; no mount propagates back to
/// it.
#[derive(Debug)]
pub struct Namespace {
    network: File,
    mount: File,
}

impl Namespace {
    /// Makes both namespaces. The calling thread stays where it is.
    ///
    /// # Errors
    /// If the caller lacks CAP_SYS_ADMIN, or `/` is not a mount point (chroot).
    pub fn create() -> Result<Self, NamespaceError> {
        on_own_thread(|| {
            unshare("unshare of network and mounts", UnshareFlags::NEWNET | UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
                .map_err(NamespaceError::of("make the mounts private below /"))?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("sysfs", "/sys", "sysfs", flags, None)
                .map_err(NamespaceError::of("mount sysfs on /sys"))?;
            mount("tmpfs", "/run", "tmpfs", flags, None)
                .map_err(NamespaceError::of("mount tmpfs on /run"))?;
            Ok(Self { network: open("/proc/thread-self/ns/net")?, mount: open("/proc/thread-self/ns/mnt")? })
        })
    }

    /// Opens the namespaces that another process holds, by the result of its [`Namespace::paths`].
    ///
    /// # Errors
    /// If that process is gone, or the paths are not those of namespaces it holds.
    pub fn open(network: &str, mount: &str) -> Result<Self, NamespaceError> {
        Ok(Self { network: open(network)?, mount: open(mount)? })
    }

    /// The paths below `/proc` by which another process of the same user can [open](Namespace::open) the
    /// network and the mount namespace, as long as this one holds them.
    #[must_use]
    pub fn paths(&self) -> (String, String) {
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        (path(&self.network), path(&self.mount))
    }

    /// The network namespace, for netlink's `IFLA_NET_NS_FD`.
    #[must_use]
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// Moves the calling thread into both namespaces for good; threads that it starts are there too. Its
    /// working directory becomes `/`.
    ///
    /// # Errors
    /// If the caller lacks CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        // setns(2): a thread that shares its working directory with others cannot change its mount namespace.
        unshare("unshare of the working directory", UnshareFlags::FS)?;
        move_into_link_name_space(self.mount.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(NamespaceError::of("setns into the mount namespace"))?;
        move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(NamespaceError::of("setns into the network namespace"))
    }

    /// Runs `work` on a thread of its own inside the namespaces and gives what it gives.
    ///
    /// # Errors
    /// If the namespaces cannot be entered; what `work` returns is in the `Ok`.
    ///
    /// # Panics
    /// If `work` panics, with its message.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_own_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }
}

fn on_own_thread<T: Send>(
    work: impl FnOnce() -> Result<T, NamespaceError> + Send,
) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(NamespaceError::of("start a thread"))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Not by `KernelFiles`: nothing is read, the descriptor itself is what is wanted.
fn open(path: &str) -> Result<File, NamespaceError> {
    File::open(path).map_err(NamespaceError::of(format!("open {path}")))
}

fn unshare(operation: &str, flags: UnshareFlags) -> Result<(), NamespaceError> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    // SAFETY: the contract is only about CLONE_FILES, which the line above excludes.
    unsafe { unshare_unsafe(flags) }.map_err(NamespaceError::of(operation))
}
