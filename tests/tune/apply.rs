//! `apply` and `restore` on a copy of a host tree: what is written, that a second run writes nothing, that
//! restore gives every byte back, and who may run at the same time.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::Path;

use common::{Run, assert_same_values, contents, copy_of, profile, run, tune};
use tune::journal::{Loaded, State};
use tune::kernel_files::KernelFiles;

fn apply(root: &Path, profile_file: &str) -> Run {
    run(root, ["apply", profile(profile_file).to_str().unwrap()])
}

#[test]
fn apply_makes_the_plan_true_and_restore_gives_everything_back() {
    for (host, profile_file) in
        [("i40e-48cpu", "40g.toml"), ("mlx5-48cpu", "40g.toml"), ("virtio-2cpu", "auto.toml")]
    {
        let tree = copy_of(host);
        let root = tree.path();
        let profile_path = profile(profile_file);
        let profile_path = profile_path.to_str().unwrap();
        let before = contents(root);
        let planned = run(root, ["plan", "--json", profile_path]).expect(2).json();

        apply(root, profile_file).expect(0);
        for change in planned["changes"].as_array().unwrap() {
            let path = change["path"].as_str().unwrap();
            let held = common::held(root, path);
            assert_eq!(held.trim_end(), change["after"].as_str().unwrap(), "{host} {path}");
        }
        let values = contents(root).into_iter().filter(|(path, _)| !path.starts_with("run/"));
        let changed = values.filter(|(path, text)| before[path] != *text).count();
        assert_eq!(changed, planned["changes"].as_array().unwrap().len(), "{host}: nothing else is written");
        let empty = run(root, ["plan", "--json", profile_path]).expect(0).json();
        assert_eq!(empty["changes"].as_array().unwrap().len(), 0, "{host}");

        run(root, ["restore"]).expect(0);
        assert_same_values(&contents(root), &before);
    }
}

#[test]
fn a_second_apply_says_nothing_to_do_and_writes_nothing() {
    let tree = copy_of("i40e-48cpu");
    apply(tree.path(), "40g.toml").expect(0);
    let after = contents(tree.path());
    make_read_only(tree.path());
    let second = apply(tree.path(), "40g.toml").expect(0);
    assert!(second.stdout.contains("nothing to do"), "{}{}", second.stdout, second.stderr);
    assert_eq!(contents(tree.path()), after);
}

/// A write to any of them would now be refused before it is tried.
fn make_read_only(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for path in contents(root).keys().filter(|path| !path.ends_with('/')) {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o444)).unwrap();
    }
}

#[test]
fn restore_without_a_journal_has_nothing_to_do() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let result = run(tree.path(), ["restore"]).expect(0);
    assert!(result.stdout.contains("nothing to"), "{}{}", result.stdout, result.stderr);
    assert_eq!(contents(tree.path()), before);
}

#[test]
fn restore_returns_to_the_state_before_the_first_of_several_profiles() {
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    apply(tree.path(), "40g.toml").expect(0);
    let auto = profile("auto.toml");
    run(tree.path(), ["--cpus", "0-3", "apply", auto.to_str().unwrap()]).expect(0);
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
    let again = run(tree.path(), ["restore"]).expect(0);
    assert!(again.stdout.contains("nothing to"), "the journal is used up: {}", again.stdout);
}

/// The driver names its interrupts after the interface when that is opened.
#[test]
fn restore_returns_to_the_first_state_also_when_the_handlers_were_renamed_between_two_applies() {
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    apply(tree.path(), "40g.toml").expect(0);
    let rename = |from: &str, to: &str| {
        let interrupts = tree.path().join("proc/interrupts");
        let text = fs::read_to_string(&interrupts).unwrap();
        assert!(text.contains(from));
        fs::write(interrupts, text.replace(from, to)).unwrap();
    };
    rename("i40e-eth0-TxRx-", "i40e-lan0-TxRx-");
    let auto = profile("auto.toml");
    run(tree.path(), ["--cpus", "0-3", "apply", auto.to_str().unwrap()]).expect(0);
    run(tree.path(), ["restore"]).expect(0);
    rename("i40e-lan0-TxRx-", "i40e-eth0-TxRx-");
    assert_same_values(&contents(tree.path()), &before);
}

/// As `ifdown` does.
#[test]
fn restore_gives_an_interrupt_without_a_handler_its_affinity_back() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    apply(tree.path(), "auto.toml").expect(0);
    let interrupts = tree.path().join("proc/interrupts");
    let text = fs::read_to_string(&interrupts).unwrap();
    assert!(text.contains("-edge      virtio2-input.0\n"));
    fs::write(&interrupts, text.replace("-edge      virtio2-input.0\n", "-edge    \n")).unwrap();
    let restored = run(tree.path(), ["restore"]).expect(0);
    assert!(!restored.stdout.contains("left as it is"), "{}", restored.stdout);
    fs::write(&interrupts, text).unwrap();
    assert_same_values(&contents(tree.path()), &before);
}

/// A shell can run it as it is printed.
#[test]
fn apply_prints_the_command_that_restores() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().join("it's here");
    let auto = profile("auto.toml");
    let arguments = ["apply", auto.to_str().unwrap(), "--state-dir", state_dir.to_str().unwrap()];
    let applied = run(tree.path(), arguments).expect(0).stdout;
    let command = applied.lines().last().unwrap().split('"').nth(1).unwrap();
    let command = command.replacen("tune ", concat!(env!("CARGO_BIN_EXE_tune"), " "), 1);
    let shell: Run = std::process::Command::new("sh").args(["-c", &command]).output().unwrap().into();
    shell.expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn a_managed_interrupt_is_left_and_everything_else_is_set() {
    use std::os::unix::fs::PermissionsExt;
    let tree = copy_of("i40e-48cpu");
    // Since 6.12 the kernel shows an interrupt that it manages with a read-only file.
    let path = "/proc/irq/140/smp_affinity_list";
    fs::set_permissions(tree.path().join(&path[1..]), fs::Permissions::from_mode(0o444)).unwrap();
    let before = contents(tree.path());
    let required = common::profile_of("cpus = \"0-47\"\n[queues]\nrequire = true\n");
    let refused = run(tree.path(), ["apply", required.path().to_str().unwrap()]);
    assert!(refused.refusal().contains("the kernel manages IRQ 140 "), "{}", refused.stderr);
    assert_eq!(contents(tree.path()), before);

    let applied = apply(tree.path(), "40g.toml").expect(0);
    assert!(applied.stderr.contains("the kernel manages IRQ 140 "), "{}", applied.stderr);
    assert_eq!(contents(tree.path())[&path[1..]], before[&path[1..]]);
    run(tree.path(), ["check", profile("40g.toml").to_str().unwrap()]).expect(0);
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn the_state_directory_can_be_named() {
    let tree = copy_of("virtio-2cpu");
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().join("below/it");
    let state_dir = state_dir.to_str().unwrap();
    let auto = profile("auto.toml");
    let before = contents(tree.path());
    run(tree.path(), ["--state-dir", state_dir, "apply", auto.to_str().unwrap()]).expect(0);
    assert!(fs::read_dir(state_dir).unwrap().count() > 0);
    assert!(!tree.path().join("run").exists());
    run(tree.path(), ["restore", "--state-dir", state_dir]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn a_journal_that_names_other_files_is_refused() {
    let tree = copy_of("virtio-2cpu");
    apply(tree.path(), "auto.toml").expect(0);
    let victim = tree.path().join("etc/passwd");
    fs::create_dir(tree.path().join("etc")).unwrap();
    fs::write(&victim, "root\n").unwrap();
    // With the checksum of what it says now.
    let files = KernelFiles::open(tree.path()).unwrap();
    let state = State::open(&tree.path().join("run/corelocal"), &files).unwrap();
    let Loaded::Journal(mut journal) = state.load().unwrap() else { panic!("no journal") };
    "/etc/passwd".clone_into(&mut journal.entries[0].path);
    state.store(&journal).unwrap();
    drop(state);
    let before = contents(tree.path());
    for arguments in [&["restore"][..], &["apply", profile("lab.toml").to_str().unwrap()]] {
        let result = run(tree.path(), arguments.iter().copied());
        let message = result.refusal();
        assert!(message.contains("\"/etc/passwd\" in it is no file that tune sets"), "{message}");
    }
    assert_eq!(contents(tree.path()), before, "nothing of it is followed");
}

#[test]
fn a_journal_that_cannot_be_read_is_refused_and_named() {
    let tree = copy_of("virtio-2cpu");
    apply(tree.path(), "auto.toml").expect(0);
    let journal = journal_of(tree.path());
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, &text[..text.len() / 2]).unwrap();
    let before = contents(tree.path());
    for arguments in [&["restore"][..], &["apply", profile("lab.toml").to_str().unwrap()]] {
        let result = run(tree.path(), arguments.iter().copied());
        let message = result.refusal();
        assert!(message.contains(journal.file_name().unwrap().to_str().unwrap()), "{message}");
    }
    assert_eq!(contents(tree.path()), before);
}

fn journal_of(root: &Path) -> std::path::PathBuf {
    let directory = root.join("run/corelocal");
    let journals = common::names(&directory, |path| path.extension().is_some_and(|e| e == "json"));
    let [journal] = &journals[..] else { panic!("one journal: {journals:?}") };
    directory.join(journal)
}

/// Applies of two profiles and restores at the same moment: each run ends well or says that another holds the
/// lock, and the last restore finds the way back.
#[test]
fn applies_at_the_same_moment_do_not_mix() {
    let tree = copy_of("i40e-48cpu");
    let root = tree.path();
    let before = contents(root);
    let forty = profile("40g.toml");
    let auto = profile("auto.toml");
    for _ in 0..5 {
        let start = |cpus: &str, profile: &Path| {
            tune()
                .arg("--root")
                .args([root, Path::new("apply"), profile])
                .args(["--cpus", cpus])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let running =
            [start("0-47", &forty), start("0-11", &auto), start("12-23", &auto), start("4-7", &auto)];
        let ended = running.map(|child| Run::from(child.wait_with_output().unwrap()));
        assert!(ended.iter().any(|run| run.code == Some(0)), "at least one gets through");
        for run in ended {
            if run.code != Some(0) {
                let message = run.refusal();
                assert!(message.contains("another"), "{message}");
            }
        }
        assert_one_profile_holds(root);
    }
    run(root, ["restore"]).expect(0);
    assert_same_values(&contents(root), &before);
}

/// The affinities are those of one of the applies above: as many CPUs as one of them names.
fn assert_one_profile_holds(root: &Path) {
    let affinity =
        |irq: u32| fs::read_to_string(root.join(format!("proc/irq/{irq}/smp_affinity_list"))).unwrap();
    let cpus: std::collections::BTreeSet<String> = (121..169).map(affinity).collect();
    let count = cpus.len();
    assert!([4, 12, 48].contains(&count), "{count} CPUs: a mixture of two profiles: {cpus:?}");
}
