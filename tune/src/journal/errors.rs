//! What can go wrong with the journal and its directory.

use std::io;
use std::path::{Path, PathBuf};

use crate::errno::describe;
use crate::kernel_files::KernelFileError;

/// Why the journal or its lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// An operation on the state directory failed.
    #[error("{operation} {path}: {reason}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The errno and what to do.
        reason: String,
    },
    /// Another run holds the lock.
    #[error("another tune is at work in {0}; wait until it has ended")]
    Locked(PathBuf),
    /// Somebody else could put a journal of his own there.
    #[error(
        "state directory {path}: {reason}: what a restore writes would be theirs to choose; choose another \
         with --state-dir"
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        reason: String,
    },
    /// The default state directory leads out of the root.
    #[error("state directory: {0}; choose another with --state-dir")]
    Outside(KernelFileError),
    /// The journal is not one of ours.
    #[error("journal {path} cannot be used: {reason}; look into it, then move it away")]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The journal has gone, and not by a restore.
    #[error(
        "journal {0} is gone, and no \"tune restore\" has put its values back: put it back, or start the \
         watch again to take the values of then for the first ones"
    )]
    Vanished(PathBuf),
    /// The network namespace cannot be told from others.
    #[error("read SO_NETNS_COOKIE: {0}; needs Linux 5.14 or later")]
    Namespace(String),
    /// The identity of the boot cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
}

pub(super) fn file_error(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |error| {
        let next = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; run as root (CAP_DAC_OVERRIDE), or choose another directory with --state-dir"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; free some, or choose another directory with --state-dir"
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
                "; choose another directory with --state-dir"
            }
            _ => "",
        };
        JournalError::File { operation, path: path.to_owned(), reason: format!("{}{next}", describe(&error)) }
    }
}
