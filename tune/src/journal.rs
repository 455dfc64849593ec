//! The journal: what every changed file held before `tune` touched it, on disk before the first write.
//!
//! `journal.<netns>.json` lies in the state directory, one for each network namespace, since interface names and
//! most network sysctls are per namespace. It is written to a temporary file, synced, renamed, and the directory
//! synced, so that after a crash or `kill -9` at any point it is either the old one or the new one. A lock on the
//! directory keeps two runs apart, and is no file that a run would have to make. A journal ends with the boot it was written in: a reboot resets what it holds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
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
    #[error("another tune is at work in {0}; wait until it has ended")]
    Locked(PathBuf),
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
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
                "; choose another directory with --state-dir"
            }
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

    /// Where a journal is written before it takes the place of the old one.
    fn new_path(&self) -> PathBuf {
        self.journal_path().with_extension("json.new")
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        self.handle.sync_all().map_err(file_error("sync state directory", &self.directory))
    }
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

impl Journal {
    /// This journal with the entries of a further `apply`: a path that is known keeps its oldest value, unless that
    /// was the value of another device's interrupt, whose number has been given to a new one since.
    #[must_use]
    pub fn extended(mut self, entries: Vec<Entry>) -> Self {
        for entry in entries {
            match self.entries.iter_mut().find(|known| known.path == entry.path) {
                Some(known) if known.interrupt == entry.interrupt => {}
                Some(known) => *known = entry,
                None => self.entries.push(entry),
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
        let state = State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
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
        let state = State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
        assert_eq!(state.load().unwrap(), Loaded::OtherBoot);
    }

    #[test]
    fn two_runs_do_not_share_the_directory() {
        let (_dir, files, state) = state();
        let error = State::open(&State::default_directory(&files).unwrap(), &files).unwrap_err().to_string();
        assert!(error.contains("another tune is at work"), "{error}");
        drop(state);
        assert!(State::open(&State::default_directory(&files).unwrap(), &files).is_ok());
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
    fn a_journal_that_another_user_left_is_not_followed() {
        let (_dir, _, state) = state();
        state.store(&state.journal(vec![entry("/proc/sys/kernel/core_pattern", "|/tmp/x")])).unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        std::os::unix::fs::chown(state.journal_path(), Some(65534), None).unwrap();
        let error = state.load().unwrap_err().to_string();
        assert!(error.contains("cannot be used: user 65534 wrote it"), "{error}");
    }

    #[test]
    fn the_oldest_value_of_a_path_is_kept() {
        let (_dir, _, state) = state();
        let journal = state.journal(vec![entry("/a", "1"), entry("/b", "2")]);
        let extended = journal.extended(vec![entry("/b", "20"), entry("/c", "3")]);
        assert_eq!(extended.entries, [entry("/a", "1"), entry("/b", "2"), entry("/c", "3")]);
    }

    #[test]
    fn the_value_of_another_device_s_interrupt_gives_way() {
        let (_dir, _, state) = state();
        let of = |irq: u32, before: &str, name: &str| Entry {
            interrupt: Some(name.into()),
            ..entry(&format!("/proc/irq/{irq}/smp_affinity_list"), before)
        };
        let journal = state.journal(vec![of(40, "0-1", "eth0-TxRx-0"), of(41, "0-1", "nvme0q1")]);
        let extended = journal.extended(vec![of(40, "0", "eth0-TxRx-0"), of(41, "0", "eth0-TxRx-1")]);
        assert_eq!(extended.entries, [of(40, "0-1", "eth0-TxRx-0"), of(41, "0", "eth0-TxRx-1")]);
    }

    /// A tree's own link must not make its journal that of the running machine.
    #[test]
    fn a_link_leads_neither_the_directory_nor_the_journal_out_of_the_root() {
        use std::os::unix::fs::symlink;
        for link in ["run", "run/corelocal"] {
            let (dir, files, state) = state();
            drop(state);
            let outside = tempfile::tempdir().unwrap();
            fs::remove_dir_all(dir.path().join(link)).unwrap();
            symlink(outside.path(), dir.path().join(link)).unwrap();
            let error = State::default_directory(&files).unwrap_err().to_string();
            assert!(error.contains("outside of") && error.contains("--state-dir"), "{error}");
            // One that leads nowhere is not followed to make something there.
            fs::remove_dir(outside.path()).unwrap();
            let directory = State::default_directory(&files).unwrap();
            assert!(State::open(&directory, &files).is_err());
            assert!(!outside.path().exists());
        }
        let (dir, _, state) = state();
        let victim = dir.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, state.new_path()).unwrap();
        assert!(state.store(&state.journal(Vec::new())).unwrap_err().to_string().contains("ELOOP"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        state.store(&state.journal(Vec::new())).expect("the link is gone");
    }

    #[test]
    fn only_its_owner_may_read_or_lock_the_state() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _, state) = state();
        state.store(&state.journal(Vec::new())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.path().join("run/corelocal")), mode(&state.journal_path())), (0o700, 0o600));
    }
}
