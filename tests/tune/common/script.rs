//! Running what `tune script` prints: by each shell that it is for, with nothing on the PATH but what it says
//! it needs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Run;

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|place| Path::new(place).join(name));
    places.into_iter().find(|program| program.exists())
}

/// True if the program is there; otherwise says why the test is skipped.
pub(crate) fn has(name: &str) -> bool {
    let there = program(name).is_some();
    if !there {
        println!("SKIPPED: needs {name}");
    }
    there
}

pub(crate) fn file_of(place: &Path, name: &str, text: &str) -> PathBuf {
    let file = place.join(name);
    fs::write(&file, text).unwrap();
    file
}

/// The shells: that of the system, which is dash on Debian, and busybox.
pub(crate) fn shells() -> Vec<&'static [&'static str]> {
    let shells: [&[&str]; 2] = [&["sh"], &["busybox", "sh"]];
    shells.into_iter().filter(|shell| has(shell[0])).collect()
}

/// `sh FILE`, a script or what undoes it, where nothing but the [`tools_of`] the script can be called.
pub(crate) fn sh(shell: &[&str], script: &Path, file: &Path) -> Command {
    let mut command = Command::new(program(shell[0]).unwrap());
    command.args(&shell[1..]).arg(file).env("PATH", tools_of(script));
    command
}

/// A directory beside a script, with links to what its head says that it needs, as far as it is installed.
fn tools_of(script: &Path) -> PathBuf {
    let directory = script.parent().unwrap().join("tools");
    let text = fs::read_to_string(script).unwrap();
    let Some(tools) = text.lines().find_map(|line| line.strip_prefix("# It needs ")) else {
        return directory;
    };
    fs::create_dir_all(&directory).unwrap();
    for tool in tools.trim_end_matches('.').split(", ") {
        let name = tool.split(' ').next().unwrap();
        let link = directory.join(name);
        if let Some(program) = program(name).filter(|_| !link.exists()) {
            symlink(program, link).unwrap();
        }
    }
    directory
}

/// What undoes a run: the last word of its last line.
pub(crate) fn undo_file(done: &Run) -> PathBuf {
    let line = done.stdout.lines().last().unwrap();
    assert!(line.contains("; to undo: "), "{}", done.stdout);
    line.rsplit(' ').next().unwrap().into()
}
