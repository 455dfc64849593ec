//! What the integration tests of `tune` share: where things are, running the binary, copying a host tree.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod ethtool;
pub(crate) mod link;
pub(crate) mod script;
pub(crate) mod veth;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tune::cpu_set::CpuSet;
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::{InterfaceChoice, Profile};

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap()
}

/// A host tree below `tests/hosts`.
pub(crate) fn host(name: &str) -> PathBuf {
    repository().join("tests/hosts").join(name)
}

/// A host tree that is not committed, written by `tests/hosts/generate` to a directory.
pub(crate) fn generated(name: &str, to: &Path) -> PathBuf {
    let (generator, tree) = (repository().join("tests/hosts/generate"), to.join(name));
    let made = Command::new(generator).args(["--tree", name]).arg(&tree).status();
    assert!(made.is_ok_and(|status| status.success()), "tests/hosts/generate needs python3");
    tree
}

/// A shipped profile.
pub(crate) fn profile(name: &str) -> PathBuf {
    repository().join("profiles").join(name)
}

/// A profile of this text.
pub(crate) fn profile_of(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

/// The names of the entries of a directory for which `keep` holds, sorted.
pub(crate) fn names(directory: &Path, keep: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| keep(path))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// A user that may read the host trees and write nothing.
pub(crate) const NOBODY: u32 = 65534;

/// Copies of the program and of a shipped profile that every user can reach: ours may lie below a directory
/// that only root may enter.
pub(crate) fn for_everybody(profile_file: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let (binary, copy) = (shared.path().join("tune"), shared.path().join(profile_file));
    // By cp: a child of another test's thread could still have a copy of ours open for writing (ETXTBSY).
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_tune")).arg(&binary).status().unwrap().success());
    fs::copy(profile(profile_file), &copy).unwrap();
    (shared, binary, copy)
}

/// What a run of the `tune` program left.
pub(crate) struct Run {
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Its standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// The changes in its JSON: path, before, after.
    pub(crate) fn changes(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let changes = self.json()["changes"].as_array().unwrap().clone();
        changes.iter().map(|c| (text(&c["path"]), text(&c["before"]), text(&c["after"]))).collect()
    }

    /// Asserts an error as the contract has it: exit 1, one line `tune: …` on standard error, nothing on
    /// standard output. Returns that line.
    #[track_caller]
    pub(crate) fn refusal(&self) -> &str {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with("tune: "), "{}", self.stderr);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "one line: {}", self.stderr);
        assert_eq!(self.stdout, "", "nothing on standard output");
        self.stderr.trim_end()
    }

    /// Asserts the exit code and returns the run.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The `tune` program, not yet started.
pub(crate) fn tune() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tune"))
}

/// `tune --root ROOT ARGUMENTS…`, run to its end.
pub(crate) fn run<'a>(root: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Run {
    tune().arg("--root").arg(root).args(arguments).output().unwrap().into()
}

/// A copy of a host tree that a test may write to; gone when dropped.
pub(crate) fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&host(name), copy.path());
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (source, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        let kind = fs::symlink_metadata(&source).unwrap();
        if kind.is_symlink() {
            symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else if kind.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// Everything below `root`, the state directory too: each regular file with its path relative to `root` and
/// its contents, each directory with a slash at the end of its path and no contents.
pub(crate) fn contents(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(root, root, &mut found);
    found
}

fn collect(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if kind.is_dir() {
            collect(root, &path, found);
            found.insert(format!("{name}/"), String::new());
        } else if kind.is_file() {
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// A value without what the kernel pads: masks and lists as the shortest form, tabs as spaces.
pub(crate) fn canonical(path: &str, value: &str) -> String {
    if path.ends_with("_cpus") {
        return CpuSet::parse_mask(value).unwrap().to_mask();
    }
    if path.ends_with("_list") {
        return CpuSet::parse_list(value).unwrap().to_string();
    }
    if path.ends_with(".json") {
        return serde_json::from_str::<Value>(value).unwrap().to_string();
    }
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Values, not bytes: the kernel pads masks and separates numbers by tabs when it is read, and takes neither
/// as a difference; a tree on a disk holds what was written. Of what is in the state directory nothing may be
/// left but the journal that was followed; the directory itself may.
#[track_caller]
pub(crate) fn assert_same_values(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let files = |of: &BTreeMap<String, String>| -> Vec<String> {
        let is_left = |path: &&String| !path.ends_with('/') && !path.ends_with(".restored");
        of.keys().filter(is_left).cloned().collect()
    };
    assert_eq!(files(found), files(expected));
    for path in files(found) {
        let (path, text) = (&path, &found[&path]);
        assert_eq!(canonical(path, text), canonical(path, &expected[path]), "{path}");
    }
}

/// What a tree holds under a path of a plan: the file's text, or of what is no file its part of `corelocal/`.
pub(crate) fn held(root: &Path, path: &str) -> String {
    if path == "irqbalance/banned_irqs" {
        let text = fs::read_to_string(root.join("corelocal/irqbalance.json")).unwrap();
        let tree: Value = serde_json::from_str(&text).unwrap();
        let irqs = tree["daemons"][0]["banned_irqs"].as_array().unwrap();
        return irqs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    }
    fs::read_to_string(root.join(&path[1..])).unwrap()
}

/// True when the test may do what only root may; otherwise says why it is skipped.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

/// An apply that ends before its n-th write to a file, counted from 0, as by `kill -9`: nothing is undone.
/// False if it came to its end.
pub(crate) fn dies(root: &str, state: &Path, profile_text: &str, interface: &str, number: usize) -> bool {
    let count = AtomicUsize::new(0);
    let writer = move |file: &Path, value: &str| {
        assert!(count.fetch_add(1, Ordering::Relaxed) != number, "killed on purpose");
        DirectWrite.write(file, value)
    };
    let mut profile = Profile::parse(profile_text, "profile").unwrap();
    profile.interface = InterfaceChoice::Named(interface.parse().unwrap());
    let files = KernelFiles::with_writer(root, writer).unwrap();
    let apply = || tune::apply_profile(&files, state, &profile).map(|_| ()).unwrap();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(apply)).is_err()
}
