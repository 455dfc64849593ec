//! The state directory, looked up step by step. What is opened is what was checked, whatever becomes of the
//! names meanwhile.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use super::JournalError;
use super::errors::file_error;

/// As many as the kernel follows (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// A step of a path, and whether it is of the path itself, not of a link in it.
type Step = (OsString, bool);

/// Opens the directory, and makes what is missing of its path if told to; `None` if it is missing and is not
/// to be made.
///
/// Each directory on the way must belong to root, to the caller, or to whoever `/` belongs to (who rules
/// anyway, and is nobody in a user namespace), and must not be writable for others unless it has the sticky
/// bit: else somebody could put another directory in the place of this one. A link of root's or the caller's
/// is followed on the way (`/var/run`), but is not taken for the directory itself.
pub(super) fn open(path: &Path, make: bool) -> Result<Option<OwnedFd>, JournalError> {
    let failed = file_error("open state directory", path);
    let system = |errno: Errno| failed(errno.into());
    let absolute = std::path::absolute(path).map_err(&failed)?;
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(system)?;
    let ruler = fstat(&root).map_err(system)?.st_uid;
    let unsafe_at = |shown: &Path, reason: String| JournalError::Unsafe {
        path: path.to_owned(),
        reason: if shown == absolute { reason } else { format!("{} on its way: {reason}", shown.display()) },
    };
    let (mut at, mut shown) = (root.try_clone().map_err(&failed)?, PathBuf::from("/"));
    let (mut rest, mut links) = (steps(&absolute, true), 0);
    while let Some((name, is_given)) = rest.pop() {
        let is_missing = |found: &Result<OwnedFd, Errno>| matches!(found, Err(Errno::NOENT));
        let mut found = look(&at, &name);
        if is_missing(&found) && !make {
            return Ok(None);
        }
        // A link that leads nowhere does not say that something shall be there.
        if is_missing(&found) && is_given {
            match mkdirat(&at, &name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => found = look(&at, &name),
                Err(errno) => return Err(file_error("create state directory", path)(errno.into())),
            }
        }
        let found = found.map_err(system)?;
        let stat = fstat(&found).map_err(system)?;
        let is_last = rest.is_empty();
        let reason = hand_of_others(&stat).filter(|_| is_last || stat.st_uid != ruler || is_open(&stat));
        if let Some(reason) = reason {
            return Err(unsafe_at(&shown.join(&name), reason));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (at, shown) = (found, shown.join(&name)),
            FileType::Symlink if !is_last && links < MOST_LINKS => {
                let target = readlinkat(&found, "", Vec::new()).map_err(system)?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    (at, shown) = (root.try_clone().map_err(&failed)?, PathBuf::from("/"));
                }
                rest.extend(steps(&target, false));
                links += 1;
            }
            FileType::Symlink => return Err(system(Errno::LOOP)),
            _ => return Err(system(Errno::NOTDIR)),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&at, ".", flags, Mode::empty()).map(Some).map_err(system)
}

fn look(at: &OwnedFd, name: &OsString) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The steps of a path, the last one first.
fn steps(path: &Path, is_given: bool) -> Vec<Step> {
    let is_step = |part: &Component| matches!(part, Component::Normal(_) | Component::ParentDir);
    let parts = path.components().rev().filter(is_step);
    parts.map(|part| (part.as_os_str().to_owned(), is_given)).collect()
}

/// How somebody else may have had a hand in a file or directory, if he may.
pub(super) fn hand_of_others(found: &Stat) -> Option<String> {
    let owner = found.st_uid;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Some(format!("it belongs to user {owner}"));
    }
    is_open(found).then(|| format!("others may write to it (mode {:03o})", found.st_mode & 0o777))
}

/// True if others may put something in the place of what is there. (The mode of a link means nothing.)
fn is_open(found: &Stat) -> bool {
    let kind = FileType::from_raw_mode(found.st_mode);
    let is_sticky = kind == FileType::Directory && found.st_mode & 0o1000 != 0;
    found.st_mode & 0o022 != 0 && !is_sticky && kind != FileType::Symlink
}
