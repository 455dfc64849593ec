//! Where a capture is unpacked: a directory below `TMPDIR` that goes with its value. One that a killed run
//! left goes with the next run: each is locked as long as its run lives, and the kernel lets go of the lock
//! of a process that is gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;
use tempfile::TempDir;

const PREFIX: &str = "tune-capture.";

/// A directory of this run's own, empty at first; removed with this value.
pub(super) struct Unpacked {
    directory: TempDir,
    /// Open and locked.
    _lock: File,
}

impl Unpacked {
    /// Makes it, and removes what killed runs of this user left.
    ///
    /// # Errors
    /// If it cannot be made or locked. What cannot be removed stays for the next run.
    pub(super) fn make() -> io::Result<Self> {
        Self::make_in(&std::env::temp_dir())
    }

    fn make_in(place: &Path) -> io::Result<Self> {
        sweep(place);
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            // Before it is locked, another run may take it for one that was left: before it is open, too.
            let lock = match open(directory.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            let is_there = fs::symlink_metadata(directory.path()).is_ok_and(|there| {
                lock.metadata().is_ok_and(|here| (there.dev(), there.ino()) == (here.dev(), here.ino()))
            });
            if is_there {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(directory)
}

/// Removes the directories of this user that no run holds.
fn sweep(place: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        if is_ours
            && let Ok(lock) = open(&entry.path())
            && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sweeps while the others have made a directory and not locked it yet.
    #[test]
    fn runs_that_begin_at_the_same_time_each_get_one() {
        let place = tempfile::tempdir().unwrap();
        let run = || (0..500).for_each(|_| drop(Unpacked::make_in(place.path()).unwrap()));
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_another_holds_stays() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join("tune-capture.dead");
        fs::create_dir_all(left.join("proc")).unwrap();
        fs::write(left.join("proc/interrupts"), "").unwrap();
        let others = place.path().join("something");
        fs::create_dir(&others).unwrap();
        let link = place.path().join("tune-capture.link");
        std::os::unix::fs::symlink(&others, &link).unwrap();
        let one = Unpacked::make_in(place.path()).unwrap();
        let two = Unpacked::make_in(place.path()).unwrap();
        assert!(!left.exists() && one.path().exists() && two.path().exists());
        assert!(others.exists() && link.exists());
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }

    /// Each sweeps while the others make theirs.
    #[test]
    fn many_at_once_each_get_one() {
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| drop(Unpacked::make_in(place.path()).unwrap())));
            }
        });
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
