//! The file of `--json`: found wrong before anything runs, and written whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use tune::errno::describe;

/// A place to which one text can be written.
#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    option: &'static str,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// A file is renamed to the path when it is complete.
    Replace(Permissions),
    /// What is no regular file (a pipe, a terminal, /dev/null) is there to be written to, not to be replaced.
    WriteTo(File),
}

/// Why the results cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {} for {option}: {}; give a file in a directory that \
         exists", path.display(), describe(error))]
pub struct JsonFileError {
    operation: &'static str,
    path: PathBuf,
    option: &'static str,
    error: io::Error,
}

impl JsonFile {
    /// Makes sure that the file can be written. What it holds stays until [`JsonFile::write`]; where there is
    /// none, none is left. `option` is the one that asked for it.
    ///
    /// # Errors
    /// If the path is a directory, or no file can be made or changed there.
    pub fn open(path: &Path, option: &'static str) -> Result<Self, JsonFileError> {
        let open = || match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::create_new(path)?;
                fs::remove_file(path)?;
                Ok((path.to_owned(), Target::Replace(Permissions::from_mode(0o666))))
            }
            Err(error) => Err(error),
            Ok(found) => {
                let file = OpenOptions::new().write(true).open(path)?;
                if found.is_file() {
                    // A link stays; the file to which it leads is replaced.
                    Ok((fs::canonicalize(path)?, Target::Replace(found.permissions())))
                } else {
                    Ok((path.to_owned(), Target::WriteTo(file)))
                }
            }
        };
        match open() {
            Ok((path, target)) => Ok(Self { path, option, target }),
            Err(error) => Err(JsonFileError { operation: "open", path: path.to_owned(), option, error }),
        }
    }

    /// Writes results as JSON, replacing what there was.
    ///
    /// # Errors
    /// As [`JsonFile::write`].
    pub fn write_as_json(self, results: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(results).context("results as JSON")?;
        text.push(b'\n');
        Ok(self.write(&text)?)
    }

    /// Writes the text, replacing what there was.
    ///
    /// # Errors
    /// If that fails; a regular file is then what it was.
    pub fn write(self, text: &[u8]) -> Result<(), JsonFileError> {
        let Self { path, option, target } = self;
        let result = match target {
            Target::Replace(permissions) => replace(&path, permissions, text),
            Target::WriteTo(mut file) => file.write_all(text),
        };
        result.map_err(|error| JsonFileError { operation: "write", path, option, error })
    }
}

fn replace(path: &Path, permissions: Permissions, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| *parent != OsStr::new("")).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(directory)?;
    file.write_all(text)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn until_it_is_written_nothing_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.json");
        let file = JsonFile::open(&path, "--json").unwrap();
        assert!(names(directory.path()).is_empty());
        file.write(b"one").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let file = JsonFile::open(&path, "--json").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        file.write(b"2").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names(directory.path())),
            (b"2".to_vec(), vec!["x.json".to_owned()])
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn links_and_devices_stay_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let [null, link, real] = ["null", "link", "real"].map(|name| directory.path().join(name));
        symlink("/dev/null", &null).unwrap();
        JsonFile::open(&null, "--json").unwrap().write(b"gone").unwrap();
        assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        fs::write(&real, "old").unwrap();
        symlink(&real, &link).unwrap();
        JsonFile::open(&link, "--json").unwrap().write(b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
    }

    #[test]
    fn a_path_that_cannot_be_is_refused_when_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let below = |name: &str| directory.path().join(name);
        let long = "x".repeat(300);
        for (path, errno) in [
            (below("no/such"), "ENOENT"),
            (directory.path().to_owned(), "EISDIR"),
            (below("x/"), "EISDIR"),
            (below(&long), "ENAMETOOLONG"),
            (PathBuf::new(), "ENOENT"),
            (PathBuf::from("/proc/x"), "ENOENT"),
        ] {
            let error = JsonFile::open(&path, "--json").unwrap_err().to_string();
            assert!(error.starts_with(&format!("open {} for --json: {errno}: ", path.display())), "{error}");
        }
        assert!(names(directory.path()).is_empty());
    }
}
