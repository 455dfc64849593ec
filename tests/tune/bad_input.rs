//! What a user can get wrong: each ends in one line that says what, where and what to do, exit 1, and nothing
//! written. A profile in `bad_profiles/` holds the expected message in its first line.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{
    NOBODY, Run, contents, copy_of, for_everybody, host, is_root, names, profile, repository, run, tune,
};

/// What might never end, or fill the memory.
#[test]
fn a_profile_that_is_no_file_is_refused_at_once() {
    let tree = copy_of("virtio-2cpu");
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("long.toml");
    fs::File::create(&long).unwrap().set_len(1 << 40).unwrap();
    for (path, message) in [
        (Path::new("/dev/zero"), "not a regular file"),
        (directory.path(), "EISDIR"),
        (&long, "longer than 1048576 bytes"),
    ] {
        let result = run(tree.path(), ["plan", path.to_str().unwrap()]);
        assert!(result.refusal().contains(message), "{}", result.stderr);
    }
}

#[test]
fn every_bad_profile_is_refused_with_the_message_in_its_first_line() {
    let directory = repository().join("tests/tune/bad_profiles");
    let files = names(&directory, |path| path.extension().is_some_and(|e| e == "toml"));
    assert!(files.len() >= 15);
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let mut wrong = Vec::new();
    for file in files {
        let path = directory.join(&file);
        let text = fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# ").expect("a comment with the message");
        for subcommand in ["plan", "apply"] {
            let result = run(tree.path(), [subcommand, path.to_str().unwrap()]);
            let message = result.refusal();
            if !message.contains(expected) {
                wrong.push(format!("{subcommand} {file}\n  expected: {expected}\n  found:    {message}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(contents(tree.path()), before, "nothing is written");
}

fn refused<'a>(root: &Path, arguments: impl IntoIterator<Item = &'a str>, parts: &[&str]) {
    let result = run(root, arguments);
    let message = result.refusal();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

#[test]
fn a_profile_that_is_not_there_is_named() {
    refused(&host("virtio-2cpu"), ["plan", "/nowhere/p.toml"], &["/nowhere/p.toml", "ENOENT", "auto.toml"]);
}

#[test]
fn a_profile_that_is_not_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("binary.toml");
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    refused(
        &host("virtio-2cpu"),
        ["plan", path.to_str().unwrap()],
        &["read profile", "binary.toml", "TOML in UTF-8"],
    );
}

#[test]
fn a_root_that_is_not_there_is_named() {
    let auto = profile("auto.toml");
    refused(Path::new("/nowhere/at/all"), ["plan", auto.to_str().unwrap()], &["/nowhere/at/all"]);
    refused(Path::new("/nowhere/at/all"), ["show"], &["/nowhere/at/all", "proc/ and sys/"]);
}

#[test]
fn a_root_without_kernel_files_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let auto = profile("auto.toml");
    refused(empty.path(), ["plan", auto.to_str().unwrap()], &["/sys/devices/system/cpu/online", "--root"]);
}

#[test]
fn impossible_overrides_are_refused_with_the_reason() {
    let tree = host("virtio-2cpu");
    let auto = profile("auto.toml");
    let auto = auto.to_str().unwrap();
    for (option, value, parts) in [
        ("--cpus", "5-2", ["--cpus", "backwards"]),
        ("--cpus", "0-99999999", ["--cpus", "99999999"]),
        ("--cpus", "", ["--cpus", "no CPU"]),
        ("--cpus", "0-7", ["0-1", "--cpus"]),
        ("--interface", "eth0/..", ["--interface", "eth0/.."]),
        ("--interface", "..", ["--interface", ".."]),
        ("--interface", "", ["--interface", "\"\""]),
        ("--interface", "eth7", ["eth7", "eth0"]),
    ] {
        refused(&tree, [option, value, "plan", auto], &parts);
    }
}

#[test]
fn control_characters_of_what_was_given_do_not_reach_the_terminal() {
    let auto = profile("auto.toml");
    for cpus in ["1\n2", "\u{1b}[2J", "0\r1"] {
        let result = run(&host("virtio-2cpu"), ["--cpus", cpus, "plan", auto.to_str().unwrap()]);
        let message = result.refusal();
        assert!(
            message.contains("is not a CPU number") && !message.contains(char::is_control),
            "{message:?}"
        );
    }
}

#[test]
fn a_profile_for_more_cpus_than_the_host_has_names_the_host_s_cpus_and_the_override() {
    let forty = profile("40g.toml");
    refused(&host("virtio-2cpu"), ["plan", forty.to_str().unwrap()], &["2-47", "0-1", "--cpus"]);
}

#[test]
fn show_of_an_interface_that_is_not_there_lists_those_that_are() {
    refused(&host("virtio-2cpu"), ["show", "eth7"], &["eth7", "eth0"]);
    refused(&host("virtio-2cpu"), ["show", "../../etc"], &["../../etc", "/sys/class/net"]);
}

#[test]
fn without_permission_apply_says_so_and_writes_nothing() {
    if !is_root() {
        return;
    }
    let tree = copy_of("virtio-2cpu");
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (_shared, binary, auto) = for_everybody("auto.toml");
    let before = contents(tree.path());
    let result: Run = Command::new(&binary)
        .arg("--root")
        .args([tree.path(), Path::new("apply"), &auto])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
        .into();
    let message = result.refusal();
    assert!(message.contains("/proc/irq/38/smp_affinity_list: EACCES"), "{message}");
    assert!(message.contains("needs root or CAP_DAC_OVERRIDE"), "the next step: {message}");
    assert_eq!(contents(tree.path()), before);
}

#[test]
fn a_state_directory_that_is_none_is_named() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let (auto, file) = (profile("auto.toml"), tree.path().join("proc/interrupts"));
    let (auto, file) = (auto.to_str().unwrap(), file.to_str().unwrap());
    for command in [&["apply", auto][..], &["restore"]] {
        let arguments = [command, &["--state-dir", file]].concat();
        refused(tree.path(), arguments, &[file, "ENOTDIR", "choose another directory with --state-dir"]);
    }
    assert_eq!(contents(tree.path()), before);
}

/// A captured tree with an absolute link, and a `/run` of the machine that it must not lead to.
#[test]
fn a_link_in_the_tree_does_not_lead_the_journal_out_of_it() {
    let (tree, outside) = (copy_of("virtio-2cpu"), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.path(), tree.path().join("run")).unwrap();
    let before = contents(tree.path());
    let auto = profile("auto.toml");
    for command in [&["apply", auto.to_str().unwrap()][..], &["restore"]] {
        let parts = ["/run", "outside of", "--state-dir"];
        refused(tree.path(), command.iter().copied(), &parts);
    }
    assert_eq!(contents(tree.path()), before);
    assert_eq!(names(outside.path(), |_| true).len(), 0);
    // Neither looks for the state, so neither minds where it would be.
    run(tree.path(), ["show"]).expect(0);
    run(tree.path(), ["plan", auto.to_str().unwrap()]).expect(2);
}

#[test]
fn usage_errors_are_the_command_line_parser_s() {
    for arguments in [&["frobnicate"][..], &["plan"], &["plan", "a", "b"], &["--no-such-option", "show"], &[]]
    {
        let result: Run = tune().args(arguments).output().unwrap().into();
        assert_eq!(result.code, Some(2), "{arguments:?}");
        assert!(result.stderr.contains("Usage"), "{}", result.stderr);
    }
}
