//! An `apply` with nothing to do opens no file for writing and changes no directory, nor does one of a user
//! who lacks a capability: strace sees every call that names a file.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::veth::{NIC, Veth};
use common::{NOBODY, Run, copy_of, for_everybody, is_root, profile, tune};

/// Calls that change a file or a directory by their name alone.
const CHANGING: [&str; 12] = [
    "creat(", "mkdir", "rmdir", "rename", "link(", "linkat(", "symlink", "unlink", "truncate", "chmod",
    "chown", "mknod",
];

/// Runs a program under strace with these options; the calls, without the number of the process.
fn calls(program: &Command, options: &[&str], run: impl FnOnce(&mut Command)) -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let trace = place.path().join("trace");
    let mut strace = Command::new("strace");
    strace.arg("-f").args(options).arg("-o").arg(&trace).arg("--");
    strace.arg(program.get_program()).args(program.get_args());
    run(&mut strace);
    let text = fs::read_to_string(&trace).unwrap();
    assert!(text.contains("execve("), "strace saw nothing: {text}");
    // "1234 openat(AT_FDCWD, …"
    let call = |line: &str| line.split_once(' ').map_or(line, |(_, call)| call.trim_start()).to_owned();
    text.lines().map(call).collect()
}

/// Runs a program under strace; the calls that open a file for writing or change one.
fn writing_calls(program: &Command, run: impl FnOnce(&mut Command)) -> Vec<String> {
    let is_writing = |call: &String| {
        ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag))
            || CHANGING.iter().any(|name| call.starts_with(name))
    };
    let mut calls = calls(program, &["-e", "trace=%file,ftruncate,fchmod,fchown"], run);
    calls.retain(is_writing);
    calls
}

fn has_strace() -> bool {
    let works = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|run| run.status.success());
    if !works {
        println!("SKIPPED: needs strace, and to be allowed to trace");
    }
    works
}

#[test]
fn on_the_real_kernel() {
    if !has_strace() {
        return;
    }
    let Some(veth) = Veth::with_queues(3) else { return };
    let mut apply = tune();
    apply.args(["apply", "--interface", NIC]).arg(profile("lab.toml"));
    let traced = |expected: &str| {
        writing_calls(&apply, |strace| {
            let ran = veth.output(strace).expect(0);
            assert!(ran.stdout.contains(expected), "{}", ran.stdout);
        })
    };
    let first = traced("applied ");
    assert!(first.iter().any(|call| call.contains("rps_cpus") && call.contains("O_WRONLY")), "{first:?}");
    assert!(first.iter().any(|call| call.contains("journal.")), "{first:?}");
    assert_eq!(traced("nothing to do"), [] as [String; 0]);
}

#[test]
fn on_a_tree_with_and_without_a_journal() {
    if !has_strace() {
        return;
    }
    let tree = copy_of("virtio-2cpu");
    let mut apply = tune();
    apply.arg("--root").arg(tree.path()).arg("apply").arg(profile("auto.toml"));
    let traced = |expected: &str| {
        writing_calls(&apply, |strace| {
            let ran = Run::from(strace.output().unwrap()).expect(0);
            assert!(ran.stdout.contains(expected), "{}", ran.stdout);
        })
    };
    assert!(!traced("applied 4 changes").is_empty());
    assert_eq!(traced("nothing to do"), [] as [String; 0]);
    fs::remove_dir_all(tree.path().join("run")).unwrap();
    assert_eq!(traced("nothing to do"), [] as [String; 0]);
    assert!(!Path::new(&tree.path().join("run")).exists());
}

/// The old values are on disk, under the journal's name, before the first of them is changed: a new file is
/// synced, renamed, its directory synced, and only then a kernel file opened for writing.
#[test]
fn a_first_apply_changes_nothing_before_the_journal_is_on_disk() {
    if !has_strace() {
        return;
    }
    let tree = copy_of("virtio-2cpu");
    let mut apply = tune();
    apply.arg("--root").arg(tree.path()).arg("apply").arg(profile("auto.toml"));
    // -y: a descriptor is printed with what it is of, "7</…/journal.0.json.new>".
    let calls = calls(&apply, &["-y", "-e", "trace=%file,fsync,fdatasync"], |strace| {
        Run::from(strace.output().unwrap()).expect(0);
    });
    let syncs = |what: &'static str| {
        move |call: &str| call.starts_with("fsync(") && call.contains(&format!("{what}>)"))
    };
    let kernel = ["proc", "sys"].map(|name| format!("{}/", tree.path().join(name).display()));
    let writes =
        |call: &String| call.contains("O_WRONLY") && kernel.iter().any(|directory| call.contains(directory));
    let first_write = calls.iter().position(writes).unwrap();
    let mut before = calls[..first_write].iter();
    let mut assert_next = |step: &str, is_step: &dyn Fn(&str) -> bool| {
        assert!(before.any(|call| is_step(call)), "{step}: not before {first_write} of {calls:#?}");
    };
    assert_next("the new journal is synced", &syncs("/journal.0.json.new"));
    let is_rename = |call: &str| call.starts_with("rename") && call.contains("\"journal.0.json\"");
    assert_next("it is renamed", &is_rename);
    assert_next("the directory is synced", &syncs("/run/corelocal"));
}

/// On a tree, where the owner of a file decides, and on the real kernel, which asks for capabilities.
#[test]
fn what_is_missing_is_said_before_anything_is_opened_for_writing() {
    if !has_strace() || !is_root() {
        return;
    }
    let tree = copy_of("virtio-2cpu");
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (shared, binary, auto) = for_everybody("auto.toml");
    let mut apply = Command::new(&binary);
    apply.arg("--root").arg(tree.path()).arg("apply").arg(auto);
    let calls = writing_calls(&apply, |strace| {
        let ran = Run::from(strace.uid(NOBODY).gid(NOBODY).output().unwrap());
        assert!(
            ran.refusal().contains("EACCES: permission denied; needs root or CAP_DAC_OVERRIDE"),
            "{}",
            ran.stderr
        );
    });
    assert_eq!(calls, [] as [String; 0]);

    let Some(veth) = Veth::with_queues(3) else { return };
    let state_directory = shared.path().join("state");
    fs::copy(profile("lab.toml"), shared.path().join("lab.toml")).unwrap();
    let mut apply = Command::new(&binary);
    apply
        .args(["apply", "--interface", NIC, "--state-dir"])
        .arg(&state_directory)
        .arg(shared.path().join("lab.toml"));
    let before = veth.values();
    let calls = writing_calls(&apply, |strace| {
        let ran = veth.output(strace.uid(NOBODY).gid(NOBODY));
        let message = ran.refusal();
        assert!(
            message.contains("EACCES: permission denied; needs root") && message.contains("CAP_NET_ADMIN"),
            "{message}"
        );
    });
    assert_eq!(calls, [] as [String; 0]);
    assert_eq!((veth.values(), state_directory.exists()), (before, false));
}

/// Root's files, which root may open, and a kernel that asks for the capability at the write.
#[test]
fn root_without_the_capability_is_told_before_anything_is_opened_for_writing() {
    if !has_strace() {
        return;
    }
    let Some(veth) = Veth::with_queues(3) else { return };
    let mut apply = Command::new("setpriv");
    if apply.arg("--version").output().is_err() {
        println!("SKIPPED: needs setpriv");
        return;
    }
    let mut apply = Command::new("setpriv");
    apply.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", env!("CARGO_BIN_EXE_tune")]);
    apply.args(["apply", "--interface", NIC]).arg(profile("lab.toml"));
    let before = veth.values();
    let calls = writing_calls(&apply, |strace| {
        let ran = veth.output(strace);
        let message = ran.refusal();
        assert!(message.contains("EPERM: not permitted; needs CAP_NET_ADMIN"), "{message}");
    });
    assert_eq!(calls, [] as [String; 0]);
    assert_eq!(veth.values(), before);
}
