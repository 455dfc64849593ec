//! `--root`: the running kernel, a directory, or a file that `capture` wrote.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use super::unpacked::Unpacked;
use crate::capture;
use crate::errno::describe;
use crate::kernel_files::KernelFiles;

/// An open root.
pub(super) struct Root {
    /// Its files.
    pub(super) files: KernelFiles,
    /// The capture, and where it is unpacked as long as this value lives.
    capture: Option<(PathBuf, Unpacked)>,
}

impl Root {
    /// Opens a directory, or unpacks a capture into a directory of its own.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            let place = Unpacked::make();
            let place =
                place.map_err(|error| anyhow!("make a directory to unpack in: {}", describe(&error)))?;
            capture::unpack(path, place.path()).map_err(|error| anyhow!("--root: {error}"))?;
            return Ok(Self {
                files: KernelFiles::open(place.path())?,
                capture: Some((path.to_owned(), place)),
            });
        }
        let files = KernelFiles::open(path).map_err(|error| {
            anyhow!(
                "--root: {error}; name a directory that holds proc/ and sys/, or a file of \"tune capture\""
            )
        })?;
        Ok(Self { files, capture: None })
    }

    /// The same files once more, for a reader that keeps what it reads.
    pub(super) fn reopen(&self) -> Result<KernelFiles> {
        Ok(KernelFiles::open(self.files.root())?)
    }

    /// What is written into an unpacked capture would be gone at once.
    pub(super) fn refuse_capture(&self, subcommand: &str) -> Result<()> {
        match &self.capture {
            Some((file, _)) => bail!(
                "{subcommand}: {} is a capture, which is only read; unpack it with \"tar -xf\" and name the \
                 directory",
                file.display()
            ),
            None => Ok(()),
        }
    }
}
