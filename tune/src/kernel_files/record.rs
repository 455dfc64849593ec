//! What was read, listed and looked up through [`KernelFiles`], kept for `capture`.
//!
//! Below `/sys` the links that were followed are kept as links, so that a copy is walked as the original is.
//! `/proc` has links too (`/proc/net` is `self/net`), but they lead to this process: there each file is kept
//! under the path that was asked for.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use super::KernelFiles;

/// Kernel paths and what is there.
pub type Tree = BTreeMap<String, Node>;

/// One file, link or directory of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// Its permission bits: 0444 says that nobody may write it.
        mode: u32,
        /// What it held.
        text: Vec<u8>,
    },
    /// A symbolic link, with its text.
    Link(String),
    /// A directory.
    Directory,
}

/// Collects while files are read.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Tree>);

/// As many links as the kernel follows in one path (`MAXSYMLINKS` in `include/linux/namei.h`).
const MOST_LINKS: usize = 40;

impl KernelFiles {
    /// These files, and from now on all that is read, listed or looked up is kept, see
    /// [`KernelFiles::recorded`].
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.recorder = Some(Recorder::default());
        self
    }

    /// What was kept since [`KernelFiles::recording`]; empty without it.
    #[must_use]
    pub fn recorded(&self) -> Tree {
        let Some(Recorder(tree)) = &self.recorder else { return Tree::new() };
        tree.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps a file that was read. What vanished since is kept as far as it is known: the reader has it, too.
    pub(super) fn note_file(&self, path: &str, text: &[u8]) {
        self.note(|tree| {
            let real = self.walk(path, tree)?;
            let mode = fs::metadata(self.below_root(&real))?.permissions().mode() & 0o777;
            tree.insert(real, Node::File { mode, text: text.to_vec() });
            Ok(())
        });
    }

    /// Keeps a directory that was listed with its directories, links, and files of which the name is a number
    /// (what `msi_irqs` says is in the names).
    pub(super) fn note_list(&self, path: &str, names: &[String]) {
        self.note(|tree| {
            let real = self.walk(path, tree)?;
            if real == "/proc" {
                return Ok(());
            }
            tree.insert(real.clone(), Node::Directory);
            for name in names {
                let entry = format!("{real}/{name}");
                let kind = fs::symlink_metadata(self.below_root(&entry))?;
                if kind.is_symlink() || kind.is_dir() || name.bytes().all(|byte| byte.is_ascii_digit()) {
                    self.note_entry(&entry, &kind, tree)?;
                }
            }
            Ok(())
        });
    }

    /// Keeps that something is there.
    pub(super) fn note_existence(&self, path: &str) {
        self.note(|tree| {
            let real = self.walk(path, tree)?;
            let kind = fs::metadata(self.below_root(&real))?;
            self.note_entry(&real, &kind, tree)
        });
    }

    /// Keeps a link and the way to it; it may lead nowhere.
    pub(super) fn note_link(&self, path: &str) {
        let Some((directory, name)) = path.rsplit_once('/') else { return };
        self.note(|tree| {
            let link = format!("{}/{name}", self.walk(directory, tree)?);
            let kind = fs::symlink_metadata(self.below_root(&link))?;
            self.note_entry(&link, &kind, tree)
        });
    }

    fn note(&self, note: impl FnOnce(&mut Tree) -> io::Result<()>) {
        if let Some(Recorder(tree)) = &self.recorder {
            // What cannot be looked at any more has vanished since it was read.
            let _ = note(&mut tree.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn note_entry(&self, real: &str, kind: &Metadata, tree: &mut Tree) -> io::Result<()> {
        let there = self.below_root(real);
        let node = if kind.is_symlink() {
            Node::Link(fs::read_link(there)?.to_string_lossy().into_owned())
        } else if kind.is_dir() {
            Node::Directory
        } else {
            Node::File { mode: kind.permissions().mode() & 0o777, text: fs::read(there)? }
        };
        // A file that was read meanwhile keeps the text that its reader saw.
        tree.entry(real.to_owned()).or_insert(node);
        Ok(())
    }

    fn below_root(&self, path: &str) -> std::path::PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The path without links, below `/sys`; the links on the way are kept.
    fn walk(&self, path: &str, tree: &mut Tree) -> io::Result<String> {
        if path == "/proc" || path.starts_with("/proc/") {
            return Ok(path.to_owned());
        }
        let parts = |text: &str| text.split('/').rev().map(str::to_owned).collect::<Vec<_>>();
        let mut todo = parts(path);
        let mut real: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(part),
            }
            let here = format!("/{}", real.join("/"));
            if !fs::symlink_metadata(self.below_root(&here))?.is_symlink() {
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            let target = fs::read_link(self.below_root(&here))?.to_string_lossy().into_owned();
            if target.starts_with('/') {
                real.clear();
            } else {
                real.pop();
            }
            todo.extend(parts(&target));
            tree.insert(here, Node::Link(target));
        }
        Ok(format!("/{}", real.join("/")))
    }
}
