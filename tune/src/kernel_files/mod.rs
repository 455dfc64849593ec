//! `KernelFiles`: the only code that opens `/proc` or `/sys`, for reading and for writing.
//!
//! Every path is the kernel's own (`/proc/irq/38/smp_affinity_list`) and is looked up below a root directory,
//! which is `/` for the live machine and any other directory for a captured tree. Symbolic links are followed
//! as the kernel follows them (`/sys/class/net/eth0/device/..` is the parent of the device, not `eth0`), but
//! never out of the root.

mod beneath;
mod errors;
mod record;
mod write;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

pub use errors::KernelFileError;
pub(crate) use errors::Operation;
pub use record::{Node, Tree};
pub use write::{DirectWrite, KernelWrite};

/// How long a write is repeated that fails with EBUSY or EAGAIN: an interrupt that is just being moved to
/// another CPU refuses the next move until it has fired there (`apic_set_affinity()`).
const BUSY_DEADLINE: Duration = Duration::from_millis(500);
const BUSY_POLL: Duration = Duration::from_millis(10);

/// Kernel files below a root directory.
pub struct KernelFiles {
    root: PathBuf,
    directory: OwnedFd,
    live: bool,
    writer: Box<dyn KernelWrite>,
    recorder: Option<record::Recorder>,
}

impl KernelFiles {
    /// Kernel files below `root`, written by [`DirectWrite`].
    ///
    /// # Errors
    /// If `root` is not a directory that can be looked up, or its path leads through a link that only the
    /// kernel can follow (`/proc/PID/root` of a process with another root or other mounts).
    pub fn open(root: impl AsRef<Path>) -> Result<Self, KernelFileError> {
        Self::with_writer(root, DirectWrite)
    }

    /// As [`KernelFiles::open`], with another way of writing; reading is not affected.
    ///
    /// # Errors
    /// As [`KernelFiles::open`].
    pub fn with_writer(
        root: impl AsRef<Path>,
        writer: impl KernelWrite + 'static,
    ) -> Result<Self, KernelFileError> {
        let given = root.as_ref();
        let error = |source| KernelFileError::new(Operation::OpenRoot, given, source);
        let root = canonical_root(given).map_err(error)?;
        let directory = beneath::open_root(&root).map_err(error)?;
        let mut files = Self { root, directory, live: false, writer: Box::new(writer), recorder: None };
        files.live = ["/proc", "/sys"].iter().any(|path| files.is_of_kernel(path));
        Ok(files)
    }

    /// The root directory, with its own symbolic links resolved.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True if `/proc` or `/sys` below the root is the running kernel's own, also in a chroot or by a bind
    /// mount; false for a captured tree.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    fn is_of_kernel(&self, path: &str) -> bool {
        let file = self.locate(path).and_then(fs::File::open);
        file.is_ok_and(|file| write::is_kernel_file(&file).unwrap_or(false))
    }

    /// The text of a file without its last newline. What is not UTF-8 in it (a driver may name its interrupt
    /// in any bytes) is replaced by U+FFFD.
    ///
    /// # Errors
    /// If the file cannot be found below the root or read.
    pub fn read(&self, path: &str) -> Result<String, KernelFileError> {
        let bytes = self.bytes(path).map_err(|source| KernelFileError::new(Operation::Read, path, source))?;
        self.note_file(path, &bytes);
        let mut text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }

    /// As [`KernelFiles::read`]; `None` if the file does not exist, or says so itself as `xps_cpus` of a
    /// device with one TX queue does.
    ///
    /// # Errors
    /// As [`KernelFiles::read`], ENOENT excepted.
    pub fn read_optional(&self, path: &str) -> Result<Option<String>, KernelFileError> {
        absent_as_none(self.read(path))
    }

    /// The names in a directory, as text and sorted as text.
    ///
    /// # Errors
    /// If the directory cannot be found below the root or read.
    pub fn list(&self, path: &str) -> Result<Vec<String>, KernelFileError> {
        let names = self.names(path).map_err(|source| KernelFileError::new(Operation::List, path, source))?;
        self.note_list(path, &names);
        Ok(names)
    }

    /// As [`KernelFiles::list`]; `None` if there is no such directory.
    ///
    /// # Errors
    /// As [`KernelFiles::list`], ENOENT excepted.
    pub fn list_optional(&self, path: &str) -> Result<Option<Vec<String>>, KernelFileError> {
        absent_as_none(self.list(path))
    }

    /// True if the file or directory exists below the root.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        let exists = self.reaches(path);
        if exists {
            self.note_existence(path);
        }
        exists
    }

    /// The kernel path of a file or directory with every symbolic link and `..` resolved.
    ///
    /// # Errors
    /// If it does not exist below the root.
    pub fn resolve(&self, path: &str) -> Result<String, KernelFileError> {
        let file =
            self.locate(path).map_err(|source| KernelFileError::new(Operation::LookUp, path, source))?;
        self.note_existence(path);
        let below = file.strip_prefix(&self.root).unwrap_or(&file);
        Ok(format!("/{}", below.display()))
    }

    /// The text of a symbolic link, for example `net:[4026531840]`; `None` if there is no link of this name.
    #[must_use]
    pub fn link_text(&self, path: &str) -> Option<String> {
        let (directory, name) = path.rsplit_once('/')?;
        let target = fs::read_link(self.locate(directory).ok()?.join(name)).ok()?;
        self.note_link(path);
        Some(target.to_string_lossy().into_owned())
    }

    /// The last component of a symbolic link's text, for example the driver's name; the target need not
    /// exist.
    #[must_use]
    pub fn link_name(&self, path: &str) -> Option<String> {
        let text = self.link_text(path)?;
        Path::new(&text).file_name().and_then(OsStr::to_str).map(str::to_owned)
    }

    /// True if the file exists and has no write permission, for anybody.
    #[must_use]
    pub fn is_read_only(&self, path: &str) -> bool {
        self.locate(path).and_then(|file| write::is_read_only(&file)).unwrap_or(false)
    }

    /// Checks that a file exists and that this process may write it, without writing.
    ///
    /// A file without any write permission is refused even to root: since Linux 6.12 that is how
    /// `/proc/irq/N/smp_affinity_list` of a managed interrupt looks. The files of an interface ask for a
    /// capability only when they are written (`netdev_store()`, `store_rps_map()`).
    ///
    /// # Errors
    /// With the errno that a write would give.
    pub fn check_writable(&self, path: &str) -> Result<(), KernelFileError> {
        let check = || match write::check_writable(&self.locate(path)?) {
            Ok(()) if self.live && path.starts_with("/sys/class/net/") && !has_net_admin() => {
                Err(Errno::PERM.into())
            }
            result => result,
        };
        check().map_err(|source| KernelFileError::new(Operation::CheckWritable, path, source))
    }

    /// Writes a value to a file that exists, in one `write(2)`, without creating or truncating it.
    ///
    /// EBUSY and EAGAIN are retried for half a second. The caller reads the file back.
    ///
    /// # Errors
    /// If the file does not exist below the root or the kernel refuses the value.
    pub fn write_existing(&self, path: &str, value: &str) -> Result<(), KernelFileError> {
        let error = |source| KernelFileError::new(Operation::Write(value.to_owned()), path, source);
        let file = self.locate(path).map_err(error)?;
        let deadline = Instant::now() + BUSY_DEADLINE;
        loop {
            match self.writer.write(&file, value) {
                Err(source) if is_transient(&source) && Instant::now() < deadline => {
                    std::thread::sleep(BUSY_POLL);
                }
                result => return result.map_err(error),
            }
        }
    }

    /// Where a kernel path lies in the file system of this process; an error if it leads out of the root.
    fn locate(&self, path: &str) -> io::Result<PathBuf> {
        let file = fs::canonicalize(self.root.join(path.trim_start_matches('/')))?;
        if file.starts_with(&self.root) {
            return Ok(file);
        }
        Err(io::Error::other(format!("leads to {}, outside of {}", file.display(), self.root.display())))
    }
}

/// True if this process has CAP_NET_ADMIN.
pub(crate) fn has_net_admin() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::NET_ADMIN))
}

/// The path of a directory without links. A link below `/proc/PID` leads where its text does not:
/// `/proc/PID/root` says `/`, and in a container that is another directory than `/` here, or the same one
/// below other mounts.
fn canonical_root(given: &Path) -> io::Result<PathBuf> {
    let there = directory_identity(given)?;
    let root = fs::canonicalize(given)?;
    if directory_identity(&root)? == there {
        return Ok(root);
    }
    let message = format!(
        "it is another directory than {}, which its links name; run tune in that container instead (nsenter)",
        root.display()
    );
    Err(io::Error::other(message))
}

/// Device, inode and mount of a directory; the mount is 0 before Linux 5.8.
fn directory_identity(path: &Path) -> io::Result<(u32, u32, u64, u64)> {
    let directory =
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let what = StatxFlags::INO | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(&directory, c"", AtFlags::EMPTY_PATH, what)?;
    let mount = if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 { 0 } else { found.stx_mnt_id };
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, mount))
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn absent_as_none<T>(result: Result<T, KernelFileError>) -> Result<Option<T>, KernelFileError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
