//! `script` on the real kernel: on a veth two captures say that it does what `apply` and `restore` do, by
//! every shell that it is for, killed on its way, too; and it runs nowhere but where it was made for.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::script::{file_of, has, sh, shells, undo_file};
use common::veth::{NIC, Veth, of_nic, tells_threads_of_queues};
use common::{NOBODY, Run, profile, tune};

/// The script of a profile for the interface of a pair, in a directory that every user may read.
fn script_of(veth: &Veth, place: &Path, profile: &str) -> PathBuf {
    let profile = file_of(place, "profile.toml", profile);
    let text = veth.output(&mut of_nic(&["script", profile.to_str().unwrap()])).expect(0).stdout;
    file_of(place, "script.sh", &text)
}

fn capture(veth: &Veth, place: &Path, name: &str) -> PathBuf {
    let file = place.join(name);
    veth.output(tune().arg("capture").arg(&file).arg(NIC)).expect(0);
    file
}

/// What differs between two captures.
fn difference(a: &Path, b: &Path) -> String {
    Run::from(tune().arg("diff").args([a, b]).output().unwrap()).stdout
}

/// Runs `profile` by `apply` and by the script, from the same state; both must leave the same, twice, and
/// take it back.
#[track_caller]
fn assert_same_as_apply(veth: &Veth, profile: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let script = script_of(veth, place, profile);
    let profile = place.join("profile.toml");
    let before = capture(veth, place, "before.tar");

    veth.tune(&["apply", profile.to_str().unwrap()]).expect(0);
    let applied = capture(veth, place, "applied.tar");
    veth.tune(&["restore"]).expect(0);
    assert_ne!(difference(&before, &applied), "");

    let mut output = String::new();
    for shell in shells() {
        let run = |file: &Path| veth.output(&mut sh(shell, &script, file));
        let done = run(&script).expect(0);
        assert_eq!(done.stderr, "");
        let scripted = capture(veth, place, &format!("scripted-{}.tar", shell[0]));
        assert_eq!(difference(&applied, &scripted), "");
        assert_eq!(veth.tune(&["check", profile.to_str().unwrap()]).expect(0).stdout, "");
        assert_eq!(run(&script).expect(0).stdout, "nothing to do\n");
        let undone = run(&undo_file(&done)).expect(0);
        assert_eq!((undone.stdout, undone.stderr), (String::new(), String::new()));
        let undone = capture(veth, place, &format!("undone-{}.tar", shell[0]));
        assert_eq!(difference(&before, &undone), "");
        veth.inside(|| assert!(!undo_file(&done).exists()));
        output = done.stdout;
    }
    output
}

const QUEUES: &str = "[queues]\nirq = \"keep\"\nrps = \"queue-cpu\"\nrps_flow_cnt = 128\n\
                      [sysctl]\n\"net.ipv4.tcp_migrate_req\" = 1\n";

/// A pair of 4 channels of which 2 are in use, and a profile for all.
fn half_used() -> Option<(Veth, String)> {
    let veth = Veth::with_queues(4).filter(|_| has("ethtool"))?;
    veth.output(Command::new("ethtool").args(["-L", NIC, "rx", "2", "tx", "2"])).expect(0);
    Some((veth, format!("[channels]\ncount = 4\n{QUEUES}")))
}

#[test]
fn the_shipped_profile_of_the_lab() {
    let Some(veth) = Veth::with_queues(8) else { return };
    assert_same_as_apply(&veth, &fs::read_to_string(profile("lab.toml")).unwrap());
}

#[test]
fn more_channels_and_what_is_set_of_their_queues() {
    let Some((veth, profile)) = half_used() else { return };
    let done = assert_same_as_apply(&veth, &profile);
    for line in ["ethtool/nic0/channels: rx 2 tx 2 -> rx 4 tx 4\n", "queues/rx-3/rps_flow_cnt: 0 -> 128\n"] {
        assert!(done.contains(line), "{line}{done}");
    }
}

#[test]
fn fewer_channels_and_back_with_what_their_queues_held() {
    let Some(veth) = Veth::with_queues(4).filter(|_| has("ethtool")) else { return };
    let set = |file: &str, text: &str| {
        veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/queues/{file}"), text).unwrap());
    };
    set("rx-3/rps_flow_cnt", "64");
    set("rx-2/rps_cpus", "1");
    set("tx-3/xps_cpus", "1");
    assert_same_as_apply(&veth, &format!("[channels]\ncount = 2\n{QUEUES}"));
}

#[test]
fn threads_that_poll_by_their_names() {
    let can = has("ethtool") && has("taskset") && tells_threads_of_queues();
    let Some(veth) = Veth::with_queues(3).filter(|_| can) else { return };
    veth.output(Command::new("ethtool").args(["-K", NIC, "gro", "on"])).expect(0);
    veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/threaded"), "1").unwrap());
    let done = assert_same_as_apply(&veth, QUEUES);
    assert!(done.contains("napi_thread/nic0/"), "{done}");
}

/// The undo file is there before each write, and what a run finds of an earlier one is undone with its own.
#[test]
fn what_was_killed_on_its_way_is_undone_with_the_run_after_it() {
    let Some((veth, profile)) = half_used() else { return };
    let place = tempfile::tempdir().unwrap();
    let script = script_of(&veth, place.path(), &profile);
    let before = capture(&veth, place.path(), "before.tar");
    let text = fs::read_to_string(&script).unwrap();
    let set = "set_to \"$2\" \"$4\"";
    assert!(text.contains(&format!("    if {set}")));
    let die = |number: u32| format!("{{ [ \"$written\" -ne {number} ] || kill -9 $$; }}");
    for (number, shell) in (1..).zip(shells().into_iter().cycle()).take(6) {
        let die = die(number);
        let doomed = if number % 2 == 0 {
            text.replace(&format!("    if {set}"), &format!("    {die}\n    if {set}"))
        } else {
            text.replace(&format!("    if {set}"), &format!("    if {set} && {die}"))
        };
        let doomed = file_of(place.path(), "doomed.sh", &doomed);
        let killed = veth.output(&mut sh(shell, &script, &doomed));
        assert_eq!(killed.code, None, "{}{}", killed.stdout, killed.stderr);
        assert_ne!(difference(&before, &capture(&veth, place.path(), &format!("{number}.tar"))), "");
        let done = veth.output(&mut sh(shell, &script, &script)).expect(0);
        veth.tune(&["check", place.path().join("profile.toml").to_str().unwrap()]).expect(0);
        veth.output(&mut sh(shell, &script, &undo_file(&done))).expect(0);
        let undone = capture(&veth, place.path(), &format!("undone-{number}.tar"));
        assert_eq!(difference(&before, &undone), "", "{number}");
    }
}

#[test]
fn it_runs_only_in_the_network_namespace_that_it_was_made_for() {
    let (Some(veth), Some(other)) = (Veth::with_queues(2), Veth::with_queues(2)) else { return };
    let place = tempfile::tempdir().unwrap();
    let script = script_of(&veth, place.path(), QUEUES);
    let run = |file: &Path| sh(&["sh"], &script, file);
    let (before, of_other) = (veth.values(), other.values());

    let nowhere = Run::from(run(&script).output().unwrap()).expect(1);
    assert_eq!(
        nowhere.stderr,
        "tune script: there is no nic0 here; nothing was written; run this as its head says\n"
    );
    let elsewhere = other.output(&mut run(&script)).expect(1);
    assert!(elsewhere.stderr.starts_with("tune script: the address of nic0 is not "), "{}", elsewhere.stderr);
    // As after nsenter --net, where /sys still is that of the namespace that it was made for.
    let between: Run = veth.with_network_of(other.namespace(), || run(&script).output().unwrap()).into();
    let between = between.expect(1);
    assert!(
        between.stderr.contains("nic0 is another interface in /sys; nothing was written"),
        "{}",
        between.stderr
    );

    let done = veth.output(&mut run(&script)).expect(0);
    let undo = undo_file(&done);
    let copied = file_of(place.path(), "undo.sh", &veth.inside(|| fs::read_to_string(&undo).unwrap()));
    let undone = other.output(&mut run(&copied)).expect(1);
    assert_eq!(undone.stderr, "tune script: this network namespace is another one; nothing was put back\n");
    assert_eq!(other.values(), of_other);
    veth.output(&mut run(&undo)).expect(0);
    assert_eq!(veth.values(), before);
}

/// `/run` belongs to the host, and what is left there of an interface that is gone is not taken for that of
/// the next one.
#[test]
fn what_undoes_another_interface_is_not_touched() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let place = tempfile::tempdir().unwrap();
    let script = script_of(&veth, place.path(), QUEUES);
    let undo = undo_file(&veth.output(&mut sh(&["sh"], &script, &script)).expect(0));
    let address =
        |text: &str| veth.output(Command::new("ip").args(["link", "set", NIC, "address", text])).expect(0);
    address("02:00:00:00:00:77");
    let refused = veth.output(&mut sh(&["sh"], &script, &undo)).expect(1);
    let file = format!("/sys/class/net/{NIC}/address");
    assert_eq!(refused.stderr, format!("tune script: {file} is another one; nothing was put back\n"));
    veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/queues/rx-0/rps_flow_cnt"), "0").unwrap());
    let script = script_of(&veth, place.path(), QUEUES);
    let refused = veth.output(&mut sh(&["sh"], &script, &script)).expect(1);
    let said = format!("tune script: {} is of another interface; nothing was written; ", undo.display());
    assert!(refused.stderr.starts_with(&said), "{}", refused.stderr);
}

#[test]
fn without_root_or_ethtool_nothing_is_written_and_it_says_what_is_missing() {
    let Some((veth, profile)) = half_used() else { return };
    let place = tempfile::tempdir().unwrap();
    Command::new("chmod").arg("755").arg(place.path()).status().unwrap();
    let script = script_of(&veth, place.path(), &profile);
    let before = veth.values();
    let refused = veth.output(sh(&["sh"], &script, &script).uid(NOBODY).gid(NOBODY)).expect(1);
    assert_eq!(refused.stderr, "tune script: ethtool needs root; nothing was written\n");
    let refused = {
        let mut command = sh(&["sh"], &script, &script);
        fs::remove_file(place.path().join("tools/ethtool")).unwrap();
        veth.output(&mut command).expect(1)
    };
    assert_eq!(refused.stderr, "tune script: ethtool is not installed; nothing was written\n");
    let script = script_of(&veth, place.path(), QUEUES);
    let refused = veth.output(sh(&["sh"], &script, &script).uid(NOBODY).gid(NOBODY)).expect(1);
    assert!(
        refused.stderr.ends_with(" cannot be written; nothing was written; run this as root\n"),
        "{}",
        refused.stderr
    );
    assert_eq!(veth.values(), before);
}
