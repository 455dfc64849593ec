//! `script`: the shell script does on trees what `apply` does, undoes what it did when something fails, and
//! is one that shellcheck has nothing to say about.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::script::{file_of, sh, undo_file};
use common::{Run, assert_same_values, contents, copy_of, host, profile, run};

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

/// The script for this tree in a file of its own.
fn script_for(tree: &Path, to: &Path) -> PathBuf {
    file_of(to, "script.sh", &run(tree, ["script", &auto()]).expect(0).stdout)
}

/// What the script, or what undoes it, does to a tree.
fn run_on(tree: &Path, script: &Path, file: &Path) -> Run {
    sh(&["sh"], script, file).env("TUNE_ROOT", tree).output().unwrap().into()
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
        let done = run_on(scripted.path(), &script, &script).expect(0);
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
        let again = run_on(scripted.path(), &script, &script).expect(0);
        assert_eq!(again.stdout, "nothing to do\n", "{name}");
        run_on(scripted.path(), &script, &undo).expect(0);
        assert!(!undo.exists());
        fs::remove_dir_all(scripted.path().join("run")).unwrap();
        assert_same_values(&contents(scripted.path()), &before);
        run_on(scripted.path(), &script, &script).expect(0);
        fs::remove_dir_all(scripted.path().join("run")).unwrap();
        assert_same_values(&contents(scripted.path()), &contents(applied.path()));
    }
}

/// `/proc/interrupts` where only this one is there, with these handlers.
fn of_irq_38(handlers: &str) -> String {
    format!("     CPU0   CPU1\n 38:     7      0 PCI-MSIX-0000:00:04.0   1-edge      {handlers}\n")
}

#[test]
fn what_is_not_as_it_was_is_refused_before_the_first_write() {
    let place = tempfile::tempdir().unwrap();
    for (file, text, message) in [
        ("proc/sys/net/ipv4/tcp_migrate_req", Some("7\n"), "/proc/sys/net/ipv4/tcp_migrate_req holds \"7\""),
        ("proc/sys/net/ipv4/tcp_migrate_req", None, "/proc/sys/net/ipv4/tcp_migrate_req does not exist"),
        ("proc/interrupts", Some("CPU0 CPU1\n 38: 0 0 nvme0q1\n"), "IRQ 38 is not virtio2-input.0 any more"),
        ("proc/interrupts", Some(&of_irq_38("virtio2-input.01")), "IRQ 38 is not virtio2-input.0 any more"),
        ("proc/interrupts", Some(&of_irq_38("0:virtio2-input.0")), "IRQ 38 is not virtio2-input.0 any more"),
        ("proc/interrupts", Some(&of_irq_38("virtio2-input-0")), "IRQ 38 is not virtio2-input.0 any more"),
        (
            "proc/interrupts",
            Some(&of_irq_38("eth0, virtio2-input.0")),
            "IRQ 39 is not virtio2-output.0 any more",
        ),
    ] {
        let tree = copy_of("virtio-2cpu");
        let script = script_for(tree.path(), place.path());
        match text {
            Some(text) => fs::write(tree.path().join(file), text).unwrap(),
            None => fs::remove_file(tree.path().join(file)).unwrap(),
        }
        let before = contents(tree.path());
        let refused = run_on(tree.path(), &script, &script).expect(1);
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
        assert!(refused.stderr.contains("nothing was written"), "{}", refused.stderr);
        assert_eq!(contents(tree.path()), before);
    }
}

#[test]
fn another_device_of_the_name_is_refused_and_one_whose_driver_was_loaded_again_is_not() {
    let place = tempfile::tempdir().unwrap();
    for (device, is_it) in [("virtio3", true), ("../0000:00:05.0", false)] {
        let tree = copy_of("virtio-2cpu");
        let script = script_for(tree.path(), place.path());
        let link = fs::canonicalize(tree.path().join("sys/class/net/eth0")).unwrap().join("device");
        let function = fs::canonicalize(&link).unwrap().parent().unwrap().to_owned();
        let pci = function.strip_prefix(fs::canonicalize(tree.path()).unwrap()).unwrap();
        fs::create_dir_all(function.join(device)).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(function.join(device), &link).unwrap();
        let before = contents(tree.path());
        let run = run_on(tree.path(), &script, &script).expect(if is_it { 0 } else { 1 });
        let said = format!("the device of eth0 is not /{}; nothing was written", pci.display());
        assert_eq!(run.stderr.contains(&said), !is_it, "{said}{}", run.stderr);
        assert_eq!(contents(tree.path()) == before, !is_it);
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
    let (set, set_less) =
        ("if eval \"attempt $(setter \"$1\" \"$2\")\"", "if eval \"attempt $(setter \"$1\" \"${2%%;*}\")\"");
    assert!(broken.contains(set));
    let broken = broken.replace(set, set_less);
    fs::write(&script, broken).unwrap();
    let failed = run_on(tree.path(), &script, &script).expect(1);
    assert!(failed.stderr.contains("it reads back \"3\""), "{}", failed.stderr);
    assert!(failed.stderr.contains("undone, every value is as before"), "{}", failed.stderr);
    fs::remove_dir(tree.path().join("run/corelocal")).unwrap();
    fs::remove_dir(tree.path().join("run")).expect("no undo file is left");
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
