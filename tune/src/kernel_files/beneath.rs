//! Opening a file below the root in one system call, which the kernel does not let lead out of it
//! (`openat2(2)`).
//!
//! On a large host ten thousand files are read, and to look each up by its links first (`realpath(3)`) is
//! most of the time that takes. Where the call does not do (before Linux 5.6, forbidden by seccomp, a link
//! that leads out of the root, a link that only the kernel can follow), the file is looked up the long way,
//! and the error is the one of that way.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::KernelFiles;

/// Enough for all files but a few: the kernel gives a sysfs file in one read of a page.
const PAGE: usize = 4096;

/// The root as a directory to look paths up from.
pub(super) fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

impl KernelFiles {
    /// The bytes of a file.
    pub(super) fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        let Some(file) = self.open_beneath(path, OFlags::RDONLY)? else {
            return fs::read(self.locate(path)?);
        };
        // read_to_end() of a File asks for its size and place first, which are two more calls for each file.
        let mut bytes = Vec::with_capacity(PAGE);
        loop {
            if bytes.len() == bytes.capacity() {
                bytes.reserve(bytes.len());
            }
            match rustix::io::read(&file, spare_capacity(&mut bytes)) {
                Ok(0) => return Ok(bytes),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The names in a directory, sorted as text.
    pub(super) fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let directory = match self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)? {
            Some(directory) => directory,
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(self.locate(path)?, flags, Mode::empty())?
            }
        };
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// True if something is there.
    pub(super) fn reaches(&self, path: &str) -> bool {
        match self.open_beneath(path, OFlags::PATH) {
            Ok(Some(_)) => true,
            Ok(None) => self.locate(path).is_ok(),
            Err(_) => false,
        }
    }

    /// `None` if the path has to be looked up the long way; ENOENT if nothing is there.
    fn open_beneath(&self, path: &str, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        let relative = path.trim_start_matches('/');
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.directory, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) if !relative.is_empty() => Err(Errno::NOENT.into()),
            Err(_) => Ok(None),
        }
    }
}
