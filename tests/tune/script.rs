//! `script`: the shell script does what `apply` does, on trees and on the real kernel files of a veth pair, undoes what it
//! did when something fails, and is one that shellcheck has nothing to say about.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::veth::{NIC, Veth, of_nic};
use common::{Run, assert_same_values, contents, copy_of, host, profile, run};

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

/// The script for this tree in a file of its own.
fn script_for(tree: &Path, to: &Path) -> PathBuf {
    let file = to.join("script.sh");
    fs::write(&file, run(tree, ["script", &auto()]).expect(0).stdout).unwrap();
    file
}

fn sh(script: &Path, root: &Path) -> Run {
    Command::new("sh").arg(script).env("TUNE_ROOT", root).output().unwrap().into()
}

/// The last word of its last line: the file that undoes it.
fn undo_file(run: &Run) -> PathBuf {
    let line = run.stdout.lines().last().unwrap();
    assert!(line.contains("; to undo: sh "), "{}", run.stdout);
    line.rsplit(' ').next().unwrap().into()
}

#[test]
fn it_leaves_every_tree_as_apply_does_and_its_undo_file_as_it_was() {
    for name in ["virtio-2cpu", "i40e-48cpu", "mlx5-48cpu"] {
        let (applied, scripted, place) = (copy_of(name), copy_of(name), tempfile::tempdir().unwrap());
        let before = contents(scripted.path());
        let script = script_for(scripted.path(), place.path());
        assert_eq!(contents(scripted.path()), before, "making the script writes nothing");

        let changes = run(applied.path(), ["apply", &auto()]).expect(0);
        // irqbalance runs on one of them, and has no socket in a tree.
        let told = changes.stdout.contains("irqbalance/banned_irqs: 24 -> 24 121 ");
        let text = fs::read_to_string(&script).unwrap();
        assert_eq!(text.contains("step words 'irqbalance/812' '24' '24 121 122 "), told, "{text}");
        assert_eq!(told, name == "i40e-48cpu");
        let list = "corelocal/irqbalance.json";
        fs::copy(scripted.path().join(list), applied.path().join(list)).unwrap();
        fs::remove_dir_all(applied.path().join("run")).unwrap();
        let done = sh(&script, scripted.path()).expect(0);
        let socket = "/run/irqbalance/irqbalance812.sock; it may move the interrupts again\n";
        let skipped =
            format!("tune script: skipped irqbalance/812: there is no {}{socket}", scripted.path().display());
        assert_eq!(done.stderr, if told { skipped } else { String::new() });
        let lines =
            |text: &str| text.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect();
        let (wrote, apply_wrote): (Vec<String>, Vec<String>) = (lines(&done.stdout), lines(&changes.stdout));
        assert_eq!(wrote, apply_wrote, "{name}: the same values in the same order");

        let undo = undo_file(&done);
        assert_eq!(undo.parent().unwrap(), scripted.path().join("run"));
        let again = sh(&script, scripted.path()).expect(0);
        assert_eq!(again.stdout, "nothing to do\n", "{name}");
        Run::from(Command::new("sh").arg(&undo).output().unwrap()).expect(0);
        fs::remove_dir_all(scripted.path().join("run")).unwrap();
        assert_same_values(&contents(scripted.path()), &before);
        sh(&script, scripted.path()).expect(0);
        fs::remove_dir_all(scripted.path().join("run")).unwrap();
        assert_same_values(&contents(scripted.path()), &contents(applied.path()));
    }
}

#[test]
fn what_is_not_as_it_was_is_refused_before_the_first_write() {
    let place = tempfile::tempdir().unwrap();
    for (file, text, message) in [
        ("proc/sys/net/ipv4/tcp_migrate_req", Some("7\n"), "/proc/sys/net/ipv4/tcp_migrate_req holds \"7\""),
        ("proc/sys/net/ipv4/tcp_migrate_req", None, "/proc/sys/net/ipv4/tcp_migrate_req does not exist"),
        ("proc/interrupts", Some("CPU0 CPU1\n 38: 0 0 nvme0q1\n"), "IRQ 38 is not virtio2-input.0 any more"),
    ] {
        let tree = copy_of("virtio-2cpu");
        let script = script_for(tree.path(), place.path());
        match text {
            Some(text) => fs::write(tree.path().join(file), text).unwrap(),
            None => fs::remove_file(tree.path().join(file)).unwrap(),
        }
        let before = contents(tree.path());
        let refused = sh(&script, tree.path()).expect(1);
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
        assert!(refused.stderr.contains("nothing was written"), "{}", refused.stderr);
        assert_eq!(contents(tree.path()), before);
    }
}

#[test]
fn a_write_that_fails_undoes_those_before_it() {
    let (tree, place) = (copy_of("virtio-2cpu"), tempfile::tempdir().unwrap());
    let before = contents(tree.path());
    let script = script_for(tree.path(), place.path());
    let text = fs::read_to_string(&script).unwrap();
    // The third value: one that reads back otherwise.
    let broken = text.replace("rps_cpus' '0' '3'", "rps_cpus' '0' '3; 4'");
    assert_ne!(text, broken);
    let broken = broken.replace("eval \"$(setter \"$2\" \"$4\")\"", "eval \"$(setter \"$2\" \"${4%%;*}\")\"");
    fs::write(&script, broken).unwrap();
    let failed = sh(&script, tree.path()).expect(1);
    assert!(failed.stderr.contains("it reads back \"3\""), "{}", failed.stderr);
    assert!(failed.stderr.contains("undone, every value is as before"), "{}", failed.stderr);
    assert_eq!(fs::read_dir(tree.path().join("run")).unwrap().count(), 0, "no undo file is left");
    fs::remove_dir(tree.path().join("run")).unwrap();
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn shellcheck_has_nothing_to_say() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        println!("SKIPPED: needs shellcheck");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for name in ["virtio-2cpu", "i40e-48cpu"] {
        let script = script_for(&host(name), place.path());
        let checked = Command::new("shellcheck").args(["--shell", "sh"]).arg(&script).output().unwrap();
        assert_eq!(Run::from(checked).expect(0).stdout, "");
    }
}

#[test]
fn on_the_real_kernel_it_does_what_apply_does() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    let lab = profile("lab.toml");
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("script.sh");
    let text = veth.output(&mut of_nic(&["script", lab.to_str().unwrap()])).expect(0).stdout;
    assert!(text.contains(NIC), "{text}");
    fs::write(&script, text).unwrap();

    veth.tune(&["apply", lab.to_str().unwrap()]).expect(0);
    let applied = veth.values();
    veth.tune(&["restore"]).expect(0);
    assert_eq!(veth.values(), before);

    let done = veth.output(Command::new("sh").arg(&script)).expect(0);
    assert_eq!(veth.values(), applied);
    assert_eq!(veth.tune(&["check", lab.to_str().unwrap()]).expect(0).stdout, "");
    let undo = undo_file(&done);
    veth.output(Command::new("sh").arg(&undo)).expect(0);
    assert_eq!(veth.values(), before);
}
