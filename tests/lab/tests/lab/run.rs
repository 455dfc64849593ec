//! The lab from end to end, and what it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::common::{alone, host_state, lab, lacks, refusal, stderr};

#[test]
fn a_quick_run_measures_and_leaves_everything_as_it_was() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("x.json");
    let output = lab(&["--quick", "--json", json.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "nothing is said where standard error is not a terminal");
    let table = String::from_utf8(output.stdout).unwrap();
    println!("{table}");
    let results: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(results["schema"], 2);
    let cpus = tune::affinity::allowed().unwrap().len() as f64;
    let rounds = results["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 6);
    for (round, first) in rounds.iter().zip(["before", "after"].into_iter().cycle()) {
        assert_eq!(round["first"], first);
        let share = |side: &str, name: &str| round[side]["server"]["total"][name].as_f64().unwrap();
        // By hash each connection is local with a chance of 1 in so many CPUs: 6 standard deviations.
        let spread = (share("before", "accepted") * cpus * cpus / (cpus - 1.0)).sqrt().recip();
        assert!((share("before", "accept_local") - 1.0 / cpus).abs() < 6.0 * spread, "{round}");
        assert!(share("after", "accept_local") > 0.999, "{round}");
        assert!(share("after", "request_local") > 0.99, "{round}");
        assert!(round["after"]["exchange"]["operations"].as_u64() > Some(0), "{round}");
        assert!(!round["applied"].as_array().unwrap().is_empty());
    }
    let accept_local = &results["summary"][0];
    assert_eq!(accept_local["name"], "accept-local");
    assert_eq!(accept_local["comparison"]["verdict"]["difference"], 0.03125, "six of six");
    assert!(accept_local["comparison"]["ratio"]["min"].as_f64() > Some(1.0));
    for row in
        ["accept-local", "requests per second", "server: CPU us per request", "NET_RX softirqs per request"]
    {
        assert!(table.contains(row), "{table}");
    }
    assert_eq!(before, host_state());
}

#[test]
fn without_root_it_says_so() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root to give it up");
        return;
    }
    let _alone = alone();
    let nobody = 65_534;
    // A clone may lie below a directory that only root may enter.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("lab");
    // By cp: a child of another test's thread could still have a copy of ours open for writing (ETXTBSY).
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_lab")).arg(&program).status().unwrap().success());
    let output = Command::new(program).arg("--quick").uid(nobody).gid(nobody).output().unwrap();
    let line = refusal(&output);
    assert!(line.starts_with("lab: needs root"), "{line}");
}

#[test]
fn with_one_cpu_it_says_so() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let _alone = alone();
    let cpu = tune::affinity::allowed().unwrap().first().unwrap();
    let output = thread::spawn(move || {
        tune::affinity::pin(cpu).unwrap();
        lab(&["--quick"]).output().unwrap()
    });
    let line = refusal(&output.join().unwrap());
    assert!(line.starts_with("lab: needs at least 2 CPUs"), "{line}");
}

#[test]
fn bad_arguments_are_one_line() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    assert!(!Path::new("/no/such").exists());
    assert_eq!(
        refusal(&lab(&["--json", "/no/such/file"]).output().unwrap()),
        "lab: open /no/such/file for --json: ENOENT: no such file or directory; give a file in a directory \
         that exists\n"
    );
    assert_eq!(
        refusal(&lab(&["role"]).output().unwrap()),
        "lab: role: role is started by the lab itself; run lab without it\n"
    );
    for usage in [["--rounds", "0"], ["--connections", "0"], ["--size", "0"], ["--json", ""]] {
        assert_eq!(lab(&usage).output().unwrap().status.code(), Some(2), "{usage:?}");
    }
}

#[test]
fn more_connections_than_open_files_are_refused_before_anything_runs() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let command = "ulimit -n 100 && exec \"$0\" --connections 90";
    let output = Command::new("sh").args(["-c", command, env!("CARGO_BIN_EXE_lab")]).output().unwrap();
    let line = refusal(&output);
    let begin = "lab: 90 connections at once: the hard limit of open files is 100; give at most ";
    assert!(line.starts_with(begin) && line.contains("ulimit -n"), "{line}");
}

/// With a soft limit below and a hard limit above what they need.
#[test]
fn the_soft_limit_of_open_files_is_raised_for_the_programs() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let command = "ulimit -Sn 256 && exec \"$0\" --quick --rounds 1 --connections 2000";
    let output = Command::new("sh").args(["-c", command, env!("CARGO_BIN_EXE_lab")]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("too few rounds"), "{table}");
}
