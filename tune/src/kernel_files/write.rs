//! The writing side of [`super::KernelFiles`], replaceable so that a test can make a write fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FsWord, PROC_SUPER_MAGIC};
use rustix::io::Errno;

/// `SYSFS_MAGIC` of `include/uapi/linux/magic.h`.
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// Writes one value to one existing file.
///
/// [`DirectWrite`] is the real one. A closure is one too, so that a test can fail the n-th write or a path
/// and hand the others to `DirectWrite`.
pub trait KernelWrite: Send + Sync {
    /// Writes `value` to `file`, a path of this process (the root is part of it).
    ///
    /// # Errors
    /// As the kernel gives them.
    fn write(&self, file: &Path, value: &str) -> io::Result<()>;
}

impl<F: Fn(&Path, &str) -> io::Result<()> + Send + Sync> KernelWrite for F {
    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        self(file, value)
    }
}

/// Opens the file without create or truncate and writes the value in one `write(2)`.
///
/// A file of a captured tree lies on a disk, where a shorter value would leave the end of a longer one
/// behind: on neither procfs nor sysfs the value gets the newline that the kernel would show, and newlines as
/// far as the old value reached, which are then cut off. So there, too, one write makes the file mean the new
/// value.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectWrite;

impl KernelWrite for DirectWrite {
    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(file)?;
        if is_kernel_file(&file)? {
            // A write of no bytes does not reach a sysctl (`proc_sys_call_handler()`); an empty line empties
            // it.
            let bytes = if value.is_empty() { b"\n" } else { value.as_bytes() };
            return write_once(&file, bytes);
        }
        let length = value.len() + 1;
        let old_length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let line = format!("{value}{}", "\n".repeat(old_length.max(length) - value.len()));
        write_once(&file, line.as_bytes())?;
        file.set_len(length as u64)
    }
}

/// True on procfs and sysfs.
pub(super) fn is_kernel_file(file: &File) -> io::Result<bool> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(kind == PROC_SUPER_MAGIC || kind == SYSFS_MAGIC)
}

fn write_once(file: &File, bytes: &[u8]) -> io::Result<()> {
    let written = rustix::io::write(file, bytes)?;
    if written == bytes.len() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::WriteZero,
        format!("the kernel took {written} of {} bytes", bytes.len()),
    ))
}

/// True if nobody may write it.
pub(super) fn is_read_only(file: &Path) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o222 == 0)
}

/// EPERM for a file without any write permission bit, else what `faccessat(2)` says for the effective user.
pub(super) fn check_writable(file: &Path) -> io::Result<()> {
    if is_read_only(file)? {
        return Err(Errno::PERM.into());
    }
    Ok(rustix::fs::accessat(CWD, file, Access::WRITE_OK, AtFlags::EACCESS)?)
}
