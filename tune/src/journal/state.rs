//! The state directory: locked, and the journal in it loaded, stored and removed, durably.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::Deserialize;

use super::errors::file_error;
use super::{Entry, Journal, JournalError, Loaded, SCHEMA};
use crate::errno::describe;
use crate::kernel_files::KernelFiles;
use crate::netns;

/// What every schema has.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    tool: String,
}

/// The locked state directory, seen from one boot and one network namespace.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    boot_id: Option<String>,
    netns: u64,
    /// Open and locked as long as this value lives.
    handle: File,
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
    /// If it cannot be made or another run holds the lock.
    pub fn open(directory: &Path, files: &KernelFiles) -> Result<Self, JournalError> {
        // Whoever may write a journal there decides what a restore writes; whoever may open it, how long others wait.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(file_error("create state directory", directory))?;
        let handle = open_directory(directory).map_err(file_error("open state directory", directory))?;
        Self::lock(handle, directory, files)
    }

    /// As [`State::open`], but makes and writes nothing; `None` if the directory does not exist.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_existing(directory: &Path, files: &KernelFiles) -> Result<Option<Self>, JournalError> {
        match open_directory(directory) {
            Ok(handle) => Self::lock(handle, directory, files).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error("open state directory", directory)(error)),
        }
    }

    fn lock(handle: File, directory: &Path, files: &KernelFiles) -> Result<Self, JournalError> {
        check_owner(&handle, directory)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(JournalError::Locked(directory.to_owned())),
            Err(errno) => return Err(file_error("lock state directory", directory)(errno.into())),
        }
        Ok(Self {
            directory: directory.to_owned(),
            boot_id: files.read_optional("/proc/sys/kernel/random/boot_id")?,
            netns: netns(files)?,
            handle,
        })
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
            restoring: false,
            entries,
        }
    }

    /// Reads the journal.
    ///
    /// # Errors
    /// If there is one that cannot be read, is damaged, of another user, another schema, or another network namespace.
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let path = self.journal_path();
        let (text, owner) = match read_own(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
            Err(error) => return Err(file_error("read journal", &path)(error)),
        };
        let unusable = |reason: String| JournalError::Unusable { path: path.clone(), reason };
        // In a directory such as /tmp anybody could leave one, with any sysctl in it.
        if owner != rustix::process::geteuid().as_raw() && owner != 0 {
            return Err(unusable(format!("user {owner} wrote it")));
        }
        let Head { schema, tool } =
            serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        if schema != SCHEMA {
            return Err(unusable(format!("its schema is {schema} ({tool}), this program knows {SCHEMA}")));
        }
        let journal: Journal = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        if journal.netns != self.netns {
            return Err(unusable(format!("it is of network namespace {}", journal.netns)));
        }
        Ok(if journal.boot_id == self.boot_id { Loaded::Journal(journal) } else { Loaded::OtherBoot })
    }

    /// Replaces the journal, durably.
    ///
    /// # Errors
    /// If it cannot be written or synced; there is then the old one or the new one, as after a crash.
    pub fn store(&self, journal: &Journal) -> Result<(), JournalError> {
        let (path, new) = (self.journal_path(), self.new_path());
        let mut text = serde_json::to_vec_pretty(journal).expect("strings and numbers");
        text.push(b'\n');
        let stored = write_synced(&new, &text)
            .map_err(file_error("write journal", &new))
            .and_then(|()| fs::rename(&new, &path).map_err(file_error("replace journal", &path)));
        if stored.is_err() {
            // The error above says what went wrong; a file that is left is no journal, and the next run writes over it.
            let _ = fs::remove_file(&new);
        }
        stored.and_then(|()| self.sync_directory())
    }

    /// Removes the journal, durably, and what a killed run left of a new one; both may be gone already.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        for path in [self.journal_path(), self.new_path()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("remove journal", &path)(error));
                }
                _ => {}
            }
        }
        self.sync_directory()
    }

    /// The journals in the directory that are of other network namespaces.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn others(&self) -> Result<Vec<PathBuf>, JournalError> {
        let own = self.journal_path();
        let is_journal = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("journal.") && name.ends_with(".json")
        };
        let mut others = Vec::new();
        for entry in
            fs::read_dir(&self.directory).map_err(file_error("list state directory", &self.directory))?
        {
            let path = entry.map_err(file_error("list state directory", &self.directory))?.path();
            if path != own && is_journal(&path) {
                others.push(path);
            }
        }
        others.sort();
        Ok(others)
    }

    /// Where a journal is written before it takes the place of the old one.
    pub(super) fn new_path(&self) -> PathBuf {
        self.journal_path().with_extension("json.new")
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        self.handle.sync_all().map_err(file_error("sync state directory", &self.directory))
    }
}

/// Whoever may write to the directory can put another journal in the place of ours, which checking the journal's own owner
/// does not show: a file can be linked or moved there. In one with the sticky bit (`/tmp`) only its owner can.
fn check_owner(handle: &File, directory: &Path) -> Result<(), JournalError> {
    let found = handle.metadata().map_err(file_error("look at state directory", directory))?;
    let (owner, mode) = (found.uid(), found.mode());
    let reason = if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        format!("it belongs to user {owner}")
    } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        format!("others may write to it (mode {:03o})", mode & 0o777)
    } else {
        return Ok(());
    };
    Err(JournalError::Unsafe { path: directory.to_owned(), reason })
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// The text of a file that is no link, and the user it belongs to.
fn read_own(path: &Path) -> io::Result<(String, u32)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let owner = file.metadata()?.uid();
    Ok((io::read_to_string(file)?, owner))
}

/// Writes a file of ours, and never through a link that somebody else has put in its place.
fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// The cookie of the network namespace, 0 in a captured tree.
fn netns(files: &KernelFiles) -> Result<u64, JournalError> {
    if !files.is_live() {
        return Ok(0);
    }
    netns::cookie().map_err(|error| JournalError::Namespace(describe(&error)))
}
