//! A [`Tree`] as a tar archive, plain or compressed by gzip, and back. What is unpacked may be of anybody's
//! making: no entry may lie or lead outside, and neither the number nor the size of the entries may be
//! absurd.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

use crate::errno::describe;
use crate::kernel_files::{Node, Tree};

/// Bytes of all files together: /proc/interrupts of a thousand CPUs and thousands of vectors is 40 MiB.
const MOST_BYTES: u64 = 256 << 20;
/// Entries: a host of 1152 CPUs and four interfaces with 94 queues has about 12 000.
const MOST_ENTRIES: usize = 500_000;
/// What a capture has at its top.
const TOP: [&str; 3] = ["corelocal", "proc", "sys"];

/// How an archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain tar.
    Tar,
    /// Tar through gzip.
    TarGz,
}

impl Format {
    /// By the end of the name; `None` for one that says nothing of the two.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?;
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            return Some(Self::TarGz);
        }
        name.ends_with(".tar").then_some(Self::Tar)
    }
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It could not be read, or the tree not be written.
    #[error("{operation}: {}", describe(error))]
    Io {
        /// What was tried, with the file.
        operation: String,
        /// The errno, or what is wrong with the archive.
        error: io::Error,
    },
    /// An entry that no capture has.
    #[error("{entry}: {reason}; this is no file that \"tune capture\" wrote")]
    Refused {
        /// The entry.
        entry: String,
        /// Why.
        reason: String,
    },
}

fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> ArchiveError {
    |error| ArchiveError::Io { operation: operation.into(), error }
}

/// Writes a tree; the same tree gives the same bytes.
///
/// # Errors
/// As `out` gives them.
pub fn pack(tree: &Tree, format: Format, out: impl Write) -> io::Result<()> {
    match format {
        Format::Tar => pack_plain(tree, out).and_then(|mut out| out.flush()),
        Format::TarGz => {
            let out = pack_plain(tree, GzEncoder::new(BufWriter::new(out), Compression::best()))?;
            out.finish()?.flush()
        }
    }
}

fn pack_plain<W: Write>(tree: &Tree, out: W) -> io::Result<W> {
    let mut builder = Builder::new(out);
    for (path, node) in tree {
        let path = path.trim_start_matches('/');
        let mut header = Header::new_gnu();
        header.set_size(0);
        match node {
            Node::File { mode, text } => {
                header.set_mode(*mode);
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_slice())?;
            }
            Node::Link(target) => {
                header.set_mode(0o777);
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, target)?;
            }
            Node::Directory => {
                header.set_mode(0o755);
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, path, io::empty())?;
            }
        }
    }
    builder.into_inner()
}

/// Unpacks an archive into a directory, which must be empty.
///
/// # Errors
/// If it cannot be read, or holds what no capture does: nothing is then written outside of the directory.
pub fn unpack(file: &Path, directory: &Path) -> Result<(), ArchiveError> {
    let open = |file| File::open(file).map(BufReader::new);
    let read = || format!("read capture {}", file.display());
    let mut magic = [0; 2];
    let is_gzip =
        open(file).and_then(|mut start| start.read_exact(&mut magic)).is_ok() && magic == [0x1f, 0x8b];
    let archive = open(file).map_err(failed(read()))?;
    let archive: Box<dyn Read> = if is_gzip { Box::new(GzDecoder::new(archive)) } else { Box::new(archive) };
    // A compressed file may be made to grow for ever: headers and padding count here, too.
    let mut archive = Archive::new(archive.take(2 * MOST_BYTES));
    let mut unpacking = Unpacking { directory, links: BTreeSet::new(), bytes: 0, entries: 0 };
    for entry in archive.entries().map_err(failed(read()))? {
        unpacking.add(entry.map_err(failed(read()))?)?;
    }
    if unpacking.entries == 0 {
        return Err(refused("the archive", "it is empty"));
    }
    Ok(())
}

fn refused(entry: &str, reason: &str) -> ArchiveError {
    ArchiveError::Refused { entry: entry.to_owned(), reason: reason.to_owned() }
}

struct Unpacking<'a> {
    directory: &'a Path,
    /// The links so far: nothing may lie below one.
    links: BTreeSet<PathBuf>,
    bytes: u64,
    entries: usize,
}

impl Unpacking<'_> {
    fn add(&mut self, mut entry: tar::Entry<impl Read>) -> Result<(), ArchiveError> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = inside(&name).map_err(|reason| refused(&name, reason))?;
        if path.ancestors().skip(1).any(|above| self.links.contains(above)) {
            return Err(refused(&name, "lies below a link"));
        }
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > MOST_BYTES || self.entries > MOST_ENTRIES {
            return Err(refused(&name, "the archive is too large"));
        }
        let there = self.directory.join(&path);
        let write = || format!("unpack {name}");
        let parent = there.parent().unwrap_or(self.directory);
        make_directory(parent).map_err(failed(write()))?;
        match entry.header().entry_type() {
            EntryType::Directory => make_directory(&there).map_err(failed(write()))?,
            EntryType::Regular => {
                let mode = entry.header().mode().unwrap_or(0o444) & 0o777;
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(mode | 0o400).open(&there);
                let mut file = file.map_err(failed(write()))?;
                io::copy(&mut entry, &mut file).map_err(failed(write()))?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = String::from_utf8_lossy(&target).into_owned();
                check_target(&path, &target)
                    .map_err(|reason| refused(&format!("{name} -> {target}"), reason))?;
                symlink(&target, &there).map_err(failed(write()))?;
                self.links.insert(path);
            }
            _ => return Err(refused(&name, "is neither a file, a directory nor a symbolic link")),
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if !fs::symlink_metadata(path).is_ok_and(|kind| kind.is_dir()) => Err(error),
        _ => Ok(()),
    }
}

/// The path of an entry: names only, the first one of those that a capture has.
fn inside(name: &str) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err("leads out of the capture"),
        }
    }
    let top = path.components().next().and_then(|top| top.as_os_str().to_str()).unwrap_or_default();
    if TOP.contains(&top) { Ok(path) } else { Err("is not below proc, sys or corelocal") }
}

/// A link that climbs only at its beginning, and not above the top: whatever links its rest passes do the
/// same.
fn check_target(link: &Path, target: &str) -> Result<(), &'static str> {
    let depth = link.components().count() - 1;
    let mut parts = Path::new(target).components().peekable();
    let mut climbs = 0;
    while parts.next_if(|part| matches!(part, Component::ParentDir | Component::CurDir)).is_some_and(|part| {
        climbs += usize::from(part == Component::ParentDir);
        true
    }) {}
    if climbs > depth || !parts.all(|part| matches!(part, Component::Normal(_))) {
        return Err("leads out of the capture");
    }
    Ok(())
}
