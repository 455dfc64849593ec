//! The state directory: locked, and the journal in it loaded, stored and removed, durably.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::fs::{flock, fstat, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::directory::{self, hand_of_others};
use super::errors::file_error;
use super::{Entry, Journal, JournalError, Loaded, SCHEMA, text};
use crate::errno::describe;
use crate::kernel_files::KernelFiles;
use crate::netns;
use crate::setting::Setting;

/// The locked state directory, seen from one boot and one network namespace.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    boot_id: Option<String>,
    netns: u64,
    /// This is the first network namespace, which may set what the whole host has.
    is_first: bool,
    /// Open and locked as long as this value lives; every name is looked up in it.
    handle: OwnedFd,
}

impl State {
    /// The default state directory: `run/corelocal` below the root.
    ///
    /// # Errors
    /// If a symbolic link makes it a directory outside of the root.
    pub fn default_directory(files: &KernelFiles) -> Result<PathBuf, JournalError> {
        for part in ["/run", "/run/corelocal"] {
            match files.resolve(part) {
                Err(error) if !error.is_not_found() => return Err(JournalError::Outside(error)),
                _ => {}
            }
        }
        Ok(files.root().join("run/corelocal"))
    }

    /// Makes the directory where it is missing and locks it.
    ///
    /// # Errors
    /// If it cannot be made, others may have a hand in it, or another run holds the lock.
    pub fn open(path: &Path, files: &KernelFiles) -> Result<Self, JournalError> {
        match directory::open(path, true)? {
            Some(handle) => Self::lock(handle, path, files),
            None => Err(file_error("open state directory", path)(Errno::NOENT.into())),
        }
    }

    /// As [`State::open`], but makes and writes nothing; `None` if the directory does not exist.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_existing(path: &Path, files: &KernelFiles) -> Result<Option<Self>, JournalError> {
        directory::open(path, false)?.map(|handle| Self::lock(handle, path, files)).transpose()
    }

    fn lock(handle: OwnedFd, directory: &Path, files: &KernelFiles) -> Result<Self, JournalError> {
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(JournalError::Locked(directory.to_owned())),
            Err(errno) => return Err(file_error("lock state directory", directory)(errno.into())),
        }
        Ok(Self {
            directory: directory.to_owned(),
            boot_id: files.read_optional("/proc/sys/kernel/random/boot_id")?,
            netns: netns(files)?,
            is_first: netns::is_first(files),
            handle,
        })
    }

    /// Where the journal of this network namespace is.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.directory.join(self.name("json"))
    }

    fn name(&self, end: &str) -> String {
        format!("journal.{}.{end}", self.netns)
    }

    /// A journal of this boot and network namespace.
    #[must_use]
    pub fn journal(&self, entries: Vec<Entry>) -> Journal {
        Journal {
            schema: SCHEMA,
            tool: format!("tune {}", env!("CARGO_PKG_VERSION")),
            boot_id: self.boot_id.clone(),
            netns: self.netns,
            restoring: false,
            entries,
        }
    }

    /// Reads the journal.
    ///
    /// # Errors
    /// If there is one that cannot be read, is damaged, of another user, another schema, or another network
    /// namespace.
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let path = self.journal_path();
        let failed = file_error("read journal", &path);
        // No link is followed, and no writer of a pipe waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.handle, self.name("json"), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Loaded::Nothing),
            Err(errno) => return Err(failed(errno.into())),
        };
        let unusable = |reason: String| JournalError::Unusable { path: path.clone(), reason };
        let found = fstat(&file).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(unusable("it is no file".to_owned()));
        }
        // In a directory such as /tmp anybody could leave one, with any sysctl in it.
        if let Some(reason) = hand_of_others(&found) {
            return Err(unusable(reason));
        }
        let text = io::read_to_string(File::from(file)).map_err(&failed)?;
        let journal = text::read(&text).map_err(unusable)?;
        if journal.netns != self.netns {
            return Err(unusable(format!("it is of network namespace {}", journal.netns)));
        }
        if let Some(reason) = journal.entries.iter().find_map(|entry| self.of_no_apply(entry)) {
            return Err(unusable(reason));
        }
        Ok(if journal.boot_id == self.boot_id { Loaded::Journal(journal) } else { Loaded::OtherBoot })
    }

    /// What no `apply` journals here, if the entry holds such: a journal is believed as a whole or not at
    /// all.
    fn of_no_apply(&self, entry: &Entry) -> Option<String> {
        let path = entry.path.escape_debug();
        match Setting::from_path(&entry.path) {
            None => Some(format!("\"{path}\" in it is no file that tune sets")),
            // What each irqbalance left alone; its form is its own, and a message to it is all that comes of
            // it.
            Some(Setting::IrqbalanceBan) => None,
            Some(setting) if setting.is_host_wide() && !self.is_first => {
                Some(format!("{path} in it belongs to the whole host, and no apply sets that from here"))
            }
            Some(setting) if setting.parse(&entry.before).is_err() => {
                Some(format!("\"{}\" in it is no value of {path}", entry.before.escape_debug()))
            }
            Some(_) => None,
        }
    }

    /// Replaces the journal, durably.
    ///
    /// # Errors
    /// If it cannot be written or synced; there is then the old one or the new one, as after a crash.
    pub fn store(&self, journal: &Journal) -> Result<(), JournalError> {
        let (path, new) = (self.journal_path(), self.new_path());
        let replace = || {
            self.unlink("restored")?;
            renameat(&self.handle, self.name("json.new"), &self.handle, self.name("json"))
        };
        let stored = self
            .write_synced("json.new", text::write(journal).as_bytes())
            .map_err(file_error("write journal", &new))
            .and_then(|()| replace().map_err(|errno| file_error("replace journal", &path)(errno.into())));
        if stored.is_err() {
            // The error above says what went wrong; a file that is left is no journal, and the next run
            // replaces it.
            let _ = self.unlink("json.new");
        }
        stored.and_then(|()| self.sync_directory())
    }

    /// Writes a new file in the place of what a killed run, or somebody else, left there.
    fn write_synced(&self, end: &str, text: &[u8]) -> io::Result<()> {
        self.unlink(end)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.handle, self.name(end), flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(text)?;
        file.sync_all()
    }

    /// Removes what has this end, if it is there.
    fn unlink(&self, end: &str) -> Result<(), Errno> {
        // On a read-only file system unlink says EROFS also of what is not there.
        if !self.has(end) {
            return Ok(());
        }
        unlinkat(&self.handle, self.name(end), AtFlags::empty())
    }

    fn has(&self, end: &str) -> bool {
        statat(&self.handle, self.name(end), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes the journal, durably, and what a killed run left of a new one; both may be gone already.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        for end in ["json", "json.new"] {
            self.unlink(end).map_err(|errno| {
                file_error("remove journal", &self.directory.join(self.name(end)))(errno.into())
            })?;
        }
        self.sync_directory()
    }

    /// Takes the journal away, durably, after its values were put back. What it held stays as
    /// `journal.COOKIE.restored` until the next apply: that is how a `watch --repair` tells a restore from a
    /// journal that somebody has moved away.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn finish(&self) -> Result<(), JournalError> {
        renameat(&self.handle, self.name("json"), &self.handle, self.name("restored"))
            .map_err(|errno| file_error("remove journal", &self.journal_path())(errno.into()))?;
        self.remove()
    }

    /// True if the last journal of this network namespace was taken away by a restore.
    #[must_use]
    pub fn was_restored(&self) -> bool {
        self.has("restored")
    }

    /// The journals in the directory that are of other network namespaces.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn others(&self) -> Result<Vec<PathBuf>, JournalError> {
        let failed = |errno: Errno| file_error("list state directory", &self.directory)(errno.into());
        let own = self.name("json");
        let mut others = Vec::new();
        for entry in Dir::read_from(self.handle.as_fd()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if name.starts_with("journal.") && name.ends_with(".json") && name != own.as_str() {
                others.push(self.directory.join(&*name));
            }
        }
        others.sort();
        Ok(others)
    }

    /// Where a journal is written before it takes the place of the old one.
    pub(super) fn new_path(&self) -> PathBuf {
        self.directory.join(self.name("json.new"))
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        fsync(&self.handle).map_err(|errno| file_error("sync state directory", &self.directory)(errno.into()))
    }
}

impl Drop for State {
    /// Also where a child that another thread has just forked still has the descriptor.
    fn drop(&mut self) {
        // Closing it is the other way; nothing is left to be told.
        let _ = flock(&self.handle, FlockOperation::Unlock);
    }
}

/// The cookie of the network namespace, 0 in a captured tree.
fn netns(files: &KernelFiles) -> Result<u64, JournalError> {
    if !files.is_live() {
        return Ok(0);
    }
    netns::cookie().map_err(|error| JournalError::Namespace(describe(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a child has it that another thread forks and that has not begun its program yet.
    #[test]
    fn the_lock_ends_with_the_state_whoever_has_a_copy_of_its_descriptor() {
        let (root, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = KernelFiles::open(root.path()).unwrap();
        let state = State::open(place.path(), &files).unwrap();
        let copy = state.handle.try_clone().unwrap();
        assert!(matches!(State::open(place.path(), &files), Err(JournalError::Locked(_))));
        drop(state);
        assert!(State::open(place.path(), &files).is_ok());
        drop(copy);
    }
}
