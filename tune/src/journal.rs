//! The journal: what every changed file held before `tune` touched it, on disk before the first write.
//!
//! `journal.<netns>.json` lies in the state directory, one for each network namespace, since interface names and
//! most network sysctls are per namespace. It is written to a temporary file, synced, renamed, and the directory
//! synced, so that after a crash or `kill -9` at any point it is either the old one or the new one. A lock file
//! beside it keeps two runs apart. A journal ends with the boot it was written in: a reboot resets what it holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::errno::describe;
use crate::kernel_files::{KernelFileError, KernelFiles};
use crate::netns;

const SCHEMA: u32 = 1;

/// The values of one network namespace before the first `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    schema: u32,
    /// The version that wrote it.
    pub tool: String,
    /// `/proc/sys/kernel/random/boot_id`; `None` in a captured tree without it.
    pub boot_id: Option<String>,
    /// Cookie of the network namespace ([`netns::cookie`]); 0 in a captured tree.
    pub netns: u64,
    /// In the order of writing, each path once.
    pub entries: Vec<Entry>,
}

/// What one file held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel path, without the root.
    pub path: String,
    /// Its text as it was read, without the last newline.
    pub before: String,
    /// For an interrupt's affinity, the name of its handler: after a driver was reloaded the same number may
    /// belong to another device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<String>,
}

/// What `load` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// No journal.
    Nothing,
    /// One that counts.
    Journal(Journal),
    /// One of another boot, whose values are gone with that boot.
    OtherBoot,
}

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
    #[error("another tune holds {0}; wait until it has ended")]
    Locked(PathBuf),
    /// The journal is not one of ours.
    #[error("journal {path} cannot be used: {reason}; look into it, then move it away")]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The network namespace cannot be told from others.
    #[error("read SO_NETNS_COOKIE: {0}; needs Linux 5.14 or later")]
    Namespace(String),
    /// The identity of the boot cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
}

fn file_error(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |error| {
        let next = match error.kind() {
            io::ErrorKind::PermissionDenied => "; run as root, or choose another directory with --state-dir",
            _ => "",
        };
        JournalError::File { operation, path: path.to_owned(), reason: format!("{}{next}", describe(&error)) }
    }
}

/// The locked state directory, seen from one boot and one network namespace.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    boot_id: Option<String>,
    netns: u64,
    /// The lock lasts as long as this file is open.
    _lock: File,
}

impl State {
    /// The default state directory, below the root.
    #[must_use]
    pub fn default_directory(files: &KernelFiles) -> PathBuf {
        files.root().join("run/corelocal")
    }

    /// Makes the directory where it is missing and locks it.
    ///
    /// # Errors
    /// If it cannot be made or another run holds the lock.
    pub fn open(directory: &Path, files: &KernelFiles) -> Result<Self, JournalError> {
        fs::create_dir_all(directory).map_err(file_error("create state directory", directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(file_error("open lock", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::Locked(path)),
            Err(errno) => return Err(file_error("lock", &path)(errno.into())),
        }
        Ok(Self {
            directory: directory.to_owned(),
            boot_id: files.read_optional("/proc/sys/kernel/random/boot_id")?,
            netns: netns(files)?,
            _lock: lock,
        })
    }

    /// As [`State::open`]; `None` if the directory does not exist.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_existing(directory: &Path, files: &KernelFiles) -> Result<Option<Self>, JournalError> {
        if directory.is_dir() { Self::open(directory, files).map(Some) } else { Ok(None) }
    }

    /// Where the journal of this network namespace is.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.directory.join(format!("journal.{}.json", self.netns))
    }

    /// A journal of this boot and network namespace.
    #[must_use]
    pub fn journal(&self, entries: Vec<Entry>) -> Journal {
        Journal {
            schema: SCHEMA,
            tool: format!("tune {}", env!("CARGO_PKG_VERSION")),
            boot_id: self.boot_id.clone(),
            netns: self.netns,
            entries,
        }
    }

    /// Reads the journal.
    ///
    /// # Errors
    /// If there is one that cannot be read, is damaged, of another schema, or of another network namespace.
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let path = self.journal_path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
            Err(error) => return Err(file_error("read journal", &path)(error)),
        };
        let unusable = |reason: String| JournalError::Unusable { path: path.clone(), reason };
        let journal: Journal = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        if journal.schema != SCHEMA {
            return Err(unusable(format!(
                "its schema is {} ({}), this program knows {SCHEMA}",
                journal.schema, journal.tool
            )));
        }
        if journal.netns != self.netns {
            return Err(unusable(format!("it is of network namespace {}", journal.netns)));
        }
        Ok(if journal.boot_id == self.boot_id { Loaded::Journal(journal) } else { Loaded::OtherBoot })
    }

    /// Replaces the journal, durably.
    ///
    /// # Errors
    /// If it cannot be written or synced; the old one is then still there.
    pub fn store(&self, journal: &Journal) -> Result<(), JournalError> {
        let path = self.journal_path();
        let temporary = path.with_extension("json.new");
        let error = file_error("write journal", &temporary);
        let mut text = serde_json::to_vec_pretty(journal).map_err(|e| error(e.into()))?;
        text.push(b'\n');
        let mut file = File::create(&temporary).map_err(&error)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(&error)?;
        fs::rename(&temporary, &path).map_err(file_error("replace journal", &path))?;
        self.sync_directory()
    }

    /// Removes the journal, durably; it may be gone already.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        let path = self.journal_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("remove journal", &path)(error))
            }
            _ => self.sync_directory(),
        }
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(file_error("sync state directory", &self.directory))
    }
}

impl Journal {
    /// This journal with the entries of a further `apply`: a path that is known keeps its oldest value.
    #[must_use]
    pub fn extended(mut self, entries: Vec<Entry>) -> Self {
        for entry in entries {
            if self.entries.iter().all(|known| known.path != entry.path) {
                self.entries.push(entry);
            }
        }
        self
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

    fn state() -> (tempfile::TempDir, KernelFiles, State) {
        let dir = tempfile::tempdir().unwrap();
        let random = dir.path().join("proc/sys/kernel/random");
        fs::create_dir_all(&random).unwrap();
        fs::write(random.join("boot_id"), "boot-1\n").unwrap();
        let files = KernelFiles::open(dir.path()).unwrap();
        let state = State::open(&State::default_directory(&files), &files).unwrap();
        (dir, files, state)
    }

    fn entry(path: &str, before: &str) -> Entry {
        Entry { path: path.into(), before: before.into(), interrupt: None }
    }

    #[test]
    fn what_was_stored_is_loaded_and_removed() {
        let (dir, _, state) = state();
        assert_eq!(state.load().unwrap(), Loaded::Nothing);
        let journal = state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")]);
        state.store(&journal).unwrap();
        assert_eq!(state.load().unwrap(), Loaded::Journal(journal));
        assert!(dir.path().join("run/corelocal/journal.0.json").exists());
        state.remove().unwrap();
        state.remove().unwrap();
        assert_eq!(state.load().unwrap(), Loaded::Nothing);
    }

    #[test]
    fn a_journal_of_another_boot_does_not_count() {
        let (dir, files, state) = state();
        state.store(&state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")])).unwrap();
        drop(state);
        fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), "boot-2\n").unwrap();
        let state = State::open(&State::default_directory(&files), &files).unwrap();
        assert_eq!(state.load().unwrap(), Loaded::OtherBoot);
    }

    #[test]
    fn two_runs_do_not_share_the_directory() {
        let (_dir, files, state) = state();
        let error = State::open(&State::default_directory(&files), &files).unwrap_err().to_string();
        assert!(error.contains("another tune holds"), "{error}");
        drop(state);
        assert!(State::open(&State::default_directory(&files), &files).is_ok());
    }

    #[test]
    fn a_damaged_journal_is_kept_and_named() {
        let (_dir, _, state) = state();
        for text in
            ["", "{}", "{\"schema\":2,\"tool\":\"tune 9\",\"boot_id\":null,\"netns\":0,\"entries\":[]}"]
        {
            fs::write(state.journal_path(), text).unwrap();
            let error = state.load().unwrap_err().to_string();
            assert!(error.contains("journal.0.json cannot be used"), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn the_oldest_value_of_a_path_is_kept() {
        let (_dir, _, state) = state();
        let journal = state.journal(vec![entry("/a", "1"), entry("/b", "2")]);
        let extended = journal.extended(vec![entry("/b", "20"), entry("/c", "3")]);
        assert_eq!(extended.entries, [entry("/a", "1"), entry("/b", "2"), entry("/c", "3")]);
    }
}
