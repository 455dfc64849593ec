//! `script` where not all goes well: nobody reads what it says, the disk is full, another run is at work, a
//! driver is busy, a queue has gone before the way back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::ethtool::{ALL, KEEP, held, hold, ice, log, run_again, run_all};
use common::script::{file_of, sh, shells, undo_file};
use common::{Run, assert_same_values, contents, copy_of, names, profile, run};
use tune::journal::State;
use tune::kernel_files::KernelFiles;

/// A tree, and the script of `auto.toml` for it.
fn virtio() -> (tempfile::TempDir, PathBuf) {
    let tree = copy_of("virtio-2cpu");
    let text = run(tree.path(), ["script", profile("auto.toml").to_str().unwrap()]).expect(0).stdout;
    let script = file_of(tree.path(), "script.sh", &text);
    (tree, script)
}

/// `sh -c COMMAND` where `$0` is the shell and `$@` its arguments up to the script's or undo file's name.
fn by(shell: &[&str], tree: &Path, file: &Path, command: &str) -> Command {
    let inner = sh(shell, &tree.join("script.sh"), file);
    let mut outer = Command::new("sh");
    outer.args(["-c", command]).arg(inner.get_program()).args(inner.get_args()).env("TUNE_ROOT", tree);
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

/// The values alone.
fn values(tree: &Path) -> std::collections::BTreeMap<String, String> {
    let ours = |path: &String| ["run", "script.sh", "tools"].iter().any(|name| path.starts_with(name));
    contents(tree).into_iter().filter(|(path, _)| !ours(path)).collect()
}

fn undo_files(tree: &Path) -> Vec<String> {
    names(&tree.join("run"), Path::is_file)
}

#[test]
fn nobody_need_read_what_it_says() {
    let (tree, script) = virtio();
    let before = values(tree.path());
    for shell in shells() {
        for lost in [">/dev/full", ">&-", ">&- 2>&-", ">/dev/full 2>/dev/full", "| :", "2>&1 | :"] {
            let command = format!("{{ \"$0\" \"$@\"; echo $? >&3; }} {lost}");
            let run = |file: &Path| {
                let code = tree.path().join("run-code");
                let command = format!("exec 3>{}; {command}", code.display());
                by(shell, tree.path(), file, &command).stdout(Stdio::null()).output().unwrap();
                let code_text = fs::read_to_string(&code).unwrap();
                fs::remove_file(code).unwrap();
                assert_eq!(code_text, "0\n", "{shell:?} {lost}");
            };
            run(&script);
            assert_ne!(values(tree.path()), before, "{shell:?} {lost}");
            let undo = undo_files(tree.path());
            assert_eq!(undo.len(), 1, "{shell:?} {lost}: {undo:?}");
            assert_eq!(
                sh(shell, &script, &script).env("TUNE_ROOT", tree.path()).output().unwrap().stdout,
                b"nothing to do\n"
            );
            run(&tree.path().join("run").join(&undo[0]));
            assert_same_values(&values(tree.path()), &before);
        }
    }
}

/// No file may be larger than a block, as where the disk is full.
#[test]
fn where_the_way_back_cannot_be_kept_nothing_is_written() {
    let (tree, script) = virtio();
    let before = values(tree.path());
    for shell in shells() {
        let command = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
        let refused = Run::from(by(shell, tree.path(), &script, command).output().unwrap()).expect(1);
        let lines: Vec<&str> = refused.stderr.lines().collect();
        assert!(lines[0].starts_with("tune script: the way back cannot be kept in "), "{}", refused.stderr);
        let reason = lines[0].rsplit(": ").next().unwrap();
        assert!(["File too large", "I/O error"].contains(&reason), "{}", refused.stderr);
        assert_eq!(lines[1..], ["tune script: nothing was written"]);
        assert_eq!(undo_files(tree.path()), [""; 0]);
        assert_same_values(&values(tree.path()), &before);
    }
}

#[test]
fn one_run_at_a_time_of_scripts_of_what_undoes_them_and_of_tune() {
    let (tree, script) = virtio();
    let run = |file: &Path| -> Run {
        sh(shells()[0], &script, file).env("TUNE_ROOT", tree.path()).output().unwrap().into()
    };
    let files = KernelFiles::open(tree.path()).unwrap();
    let tune_at_work = || State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
    let before = values(tree.path());
    let busy = "tune script: another tune, or a script of it, is at work; nothing was ";
    {
        let _lock = tune_at_work();
        assert_eq!(run(&script).expect(1).stderr, format!("{busy}written\n"));
        assert_same_values(&values(tree.path()), &before);
    }
    let undo = undo_file(&run(&script).expect(0));
    let written = values(tree.path());
    {
        let _lock = tune_at_work();
        assert_eq!(run(&undo).expect(1).stderr, format!("{busy}put back\n"));
        assert_same_values(&values(tree.path()), &written);
    }
    run(&undo).expect(0);

    // And the other way round: a script that is at work keeps tune out.
    let text = fs::read_to_string(&script).unwrap();
    let first = "    was=$text\n";
    assert!(text.contains(first));
    let tune = env!("CARGO_BIN_EXE_tune");
    let root = tree.path().display();
    let meanwhile = format!("{first}    '{tune}' --root '{root}' restore >&2 || :\n");
    fs::write(&script, text.replacen(first, &meanwhile, 1)).unwrap();
    let met = run(&script).expect(0);
    assert!(met.stderr.contains("another tune is at work in "), "{}", met.stderr);
}

#[test]
fn a_driver_that_is_busy_is_asked_again() {
    let profile = format!("{KEEP}[rings]\nrx = 2048\n");
    let tree = ice(48);
    hold(tree.path(), "busy-G", "once\n");
    let done = run_all(tree.path(), &profile).1.expect(2);
    assert_eq!(log(tree.path()), ["-G eth0 rx 2048 tx 512"; 2]);
    hold(tree.path(), "busy-G", "once\n");
    run_again(tree.path(), &undo_file(&done)).expect(0);
    assert_eq!(log(tree.path()), ["-G eth0 rx 512 tx 512"; 2]);
    assert_eq!(held(tree.path(), "rx"), "512");

    // It stays so.
    let tree = ice(47);
    hold(tree.path(), "busy-C", &"again\n".repeat(9));
    let done = run_all(tree.path(), ALL).1.expect(1);
    assert!(done.stderr.contains("netlink error: Device or resource busy\n"), "{}", done.stderr);
    assert!(done.stderr.ends_with("tune script: undone, every value is as before\n"), "{}", done.stderr);
    assert_eq!(log(tree.path())[3..6], ["-C eth0 adaptive-rx off"; 3]);
    assert_eq!(held(tree.path(), "combined"), "47");
}

/// What is gone took its value with it; the rest goes back, and nothing is left to do.
#[test]
fn what_is_gone_before_the_way_back_is_said_and_is_no_failure() {
    let (tree, script) = virtio();
    let run = |file: &Path| -> Run {
        sh(shells()[0], &script, file).env("TUNE_ROOT", tree.path()).output().unwrap().into()
    };
    let before = values(tree.path());
    let undo = undo_file(&run(&script).expect(0));
    let queue = "sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/queues/rx-0";
    fs::remove_dir_all(tree.path().join(queue)).unwrap();
    let undone = run(&undo).expect(0);
    assert!(undone.stderr.contains("No such file or directory\n"), "{}", undone.stderr);
    assert_eq!(undo_files(tree.path()), [""; 0]);
    let left: std::collections::BTreeMap<_, _> =
        before.into_iter().filter(|(path, _)| !path.starts_with(queue)).collect();
    assert_same_values(&values(tree.path()), &left);
}
