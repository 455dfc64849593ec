//! The runner as a process of its own. What it measures is not judged here: the machine is busy with other
//! tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Why it cannot run here.
fn lacks() -> bool {
    let cpus = tune::affinity::allowed().expect("sched_getaffinity");
    let lacks = !(cpus.contains(0) && cpus.contains(1));
    if lacks {
        eprintln!("SKIPPED: needs CPUs 0 and 1");
    }
    lacks
}

fn bench(args: &[&str]) -> Output {
    command(args).output().expect("start peers")
}

fn command(args: &[&str]) -> Command {
    // Of the peers those that every build has: what is tested is the runner.
    let own = args.iter().any(|arg| ["--a", "--peers"].contains(arg));
    let peers = ["--peers", "epoll-edge,epoll-level"];
    let short = ["bench", "--rounds", "2", "--repeats", "1", "--duration", "30ms", "--client-sleeps"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_peers"));
    command.args(short).args(if own { &[][..] } else { &peers }).args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// # Panics
/// If an answer was wrong, or something else than the distance of the CPUs kept it from measuring. Where that
/// changes in each of the few short rounds of a test, none counts.
#[track_caller]
fn assert_right(output: &Output) {
    let only_distance = output.status.code() == Some(1)
        && stderr(output).starts_with("peers: no round counts of ")
        && stderr(output).lines().count() == 1;
    assert!(output.status.success() || only_distance, "{output:?}");
}

/// A script of its own, removed with its directory.
fn script(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("script");
    fs::write(&path, text).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path
}

#[test]
fn every_round_is_in_the_json_and_every_contender_in_the_table() {
    if lacks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("bench.json");
    let only = "echo-64x3,echo-64x3-n10,connect-reset,connect-echo,backlog-400,open-10";
    let output = bench(&["--only", only, "--json", json.to_str().unwrap()]);
    assert_right(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    for text in ["epoll-edge", "epoll-level", "server / epoll-edge", "open-10 (", "connect-echo: "] {
        assert!(table.contains(text), "no {text} in\n{table}");
    }
    let results: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(results["schema"], 1);
    let scenarios = results["scenarios"].as_array().unwrap();
    let names: Vec<_> = scenarios.iter().map(|scenario| scenario["scenario"].as_str().unwrap()).collect();
    assert_eq!(names.join(","), only);
    for scenario in scenarios {
        let rounds = scenario["rounds"].as_array().unwrap();
        assert!((2..=3).contains(&rounds.len()));
        assert!(scenario["selection"]["rounds"].as_array().unwrap().len() <= 2, "{scenario}");
        let order = |round: usize| rounds[round]["order"].as_array().unwrap().clone();
        assert_eq!(order(0).into_iter().rev().collect::<Vec<_>>(), order(1));
        for turn in rounds.iter().flat_map(|round| round["turns"].as_array().unwrap()) {
            for name in ["rate_per_s", "server_cpu_us_per_operation", "server_busy", "foreign"] {
                assert!(turn[name].is_f64(), "{name}: {turn}");
            }
            let (operations, name) = (turn["operations"].as_u64().unwrap(), scenario["scenario"].as_str());
            let each = match name {
                Some("backlog-400") => 400,
                Some("echo-64x3-n10") => 30,
                _ => 1,
            };
            assert!(operations > 0 && operations.is_multiple_of(each), "{name:?} {turn}");
            assert!(turn["operations_not_started"].is_u64() && turn["failure"].is_null(), "{name:?} {turn}");
            assert!(turn["distance_ns"].as_array().unwrap().iter().all(serde_json::Value::is_f64), "{turn}");
        }
    }
}

/// All that this executable contains and this machine has, each in what it serves.
#[test]
fn every_peer_takes_part_and_the_floor_and_the_plot_are_there() {
    if lacks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [svg, summary] = ["bench.svg", "summary.json"].map(|name| directory.path().join(name));
    let only = "echo-64x1,connect-reset,connect-echo";
    let mut command = Command::new(env!("CARGO_BIN_EXE_peers"));
    command.args(["bench", "--rounds", "1", "--repeats", "0", "--duration", "20ms", "--client-sleeps"]);
    command.args(["--only", only, "--floor", "--svg"]).arg(&svg).arg("--summary").arg(&summary);
    let output = command.output().unwrap();
    assert_right(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["  CPU us/op ", "floor on CPU 0", "server / blocking-shared", "server / best other"] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    assert!(fs::read_to_string(svg).unwrap().contains("connect-reset"), "{text}");
    let summary: serde_json::Value = serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
    let echo = &summary["scenarios"][0];
    assert_eq!((&summary["schema"], &echo["scenario"]), (&1.into(), &"echo-64x1".into()), "{summary}");
    assert!(echo.get("rounds").is_none() && echo["contenders"].is_array(), "{summary}");
    // The line above the tables.
    let machine = &summary["machine"];
    let [date, kernel] = ["date", "kernel"].map(|name| machine[name].as_str().unwrap());
    assert!(text.starts_with(&format!("{}, Linux {kernel}, {} CPUs (", &date[..10], machine["cpu_count"])));
}

#[test]
fn two_commands_are_measured_against_each_other() {
    if lacks() {
        return;
    }
    let peers = env!("CARGO_BIN_EXE_peers");
    let b = format!("outside={peers} epoll --listen 127.0.0.1:{{port}} --cores {{cores}}");
    let output =
        bench(&["--a", "inside=server --buffers 64", "--b", &b, "--only", "echo-64x2", "--markdown"]);
    assert_right(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    let rounds = table.lines().skip_while(|line| !line.starts_with("| scenario"));
    let names: Vec<_> = rounds.skip(2).filter_map(|line| line.split(" | ").nth(1)).collect();
    assert_eq!(names, ["inside", "outside", "inside / outside"], "{table}");
}

/// All models under both workloads; what each core has accepted adds up.
#[test]
fn the_articles_table_counts_every_accept() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("article.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_peers"));
    command.args(["article", "--rounds", "1", "--duration", "20ms", "--clients", "7", "--markdown"]);
    let output = command.arg("--json").arg(&json).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains(": per core, by CPU | ")).count(), 4, "{text}");
    let results: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    for (workload, exact) in results["workloads"].as_array().unwrap().iter().zip([false, true]) {
        for model in workload["models"].as_array().unwrap() {
            let turn = &model["turns"][0];
            let cores = turn["accepts"]["cores"].as_array().unwrap();
            let accepted: u64 = cores.iter().map(|core| core["accepted"].as_u64().unwrap()).sum();
            // The runner's own connection is one of them.
            assert!(accepted == 8 || !exact && accepted > 1, "{model}");
            assert_eq!(cores.len(), tune::affinity::allowed().unwrap().len(), "{model}");
        }
    }
}

/// A contender that changes one byte must not win.
#[test]
fn a_wrong_byte_fails_the_run() {
    if lacks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let wrong = script(
        &directory,
        r#"#!/usr/bin/env python3
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(bytes([data[0] ^ 1]) + data[1:])
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"#,
    );
    let a = format!("wrong={} {{port}}", wrong.display());
    let output = bench(&["--a", &a, "--b", "epoll=epoll", "--only", "echo-64x1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("echo-64x1: wrong: ") && text.contains("wrong bytes"), "{text}");
}

#[test]
fn a_server_that_does_not_start_or_ends_says_why() {
    if lacks() {
        return;
    }
    let output = bench(&["--server-args", "--buffers 7", "--only", "echo-64x1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("peers: echo-64x1: server: server failed (exit status: "),
        "{}",
        stderr(&output)
    );
    let directory = tempfile::tempdir().unwrap();
    let ends = script(
        &directory,
        r#"#!/usr/bin/env python3
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.accept()
listener.accept()[0].recv(1)
sys.exit("it had enough")
"#,
    );
    let a = format!("ends={} {{port}}", ends.display());
    let output = bench(&["--a", &a, "--b", "epoll=epoll", "--only", "echo-64x1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it had enough"), "{}", stderr(&output));
}

/// A peer that fails is left out, and the others are measured.
#[test]
fn a_scenario_goes_on_without_the_peer_that_fails() {
    if lacks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let haproxy = script(&directory, "#!/bin/sh\necho it had enough >&2\nexit 3\n");
    fs::rename(haproxy, directory.path().join("haproxy")).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let mut command = command(&["--peers", "epoll-edge,haproxy", "--only", "connect-reset"]);
    let output = command.env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = "peers: connect-reset: haproxy: left out: haproxy failed (exit status: ";
    assert!(stderr(&output).contains(line) && stderr(&output).contains("it had enough"), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("server / epoll-edge") && !text.contains("server / haproxy"), "{text}");
}

/// What was measured before one of two fails is written.
#[test]
fn what_was_measured_before_a_failure_is_not_lost() {
    if lacks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let once = script(
        &directory,
        r#"#!/bin/sh
mkdir "$0.used" || { echo it had enough >&2; exit 3; }
exec "$1" epoll --listen "127.0.0.1:$2" --cores 0
"#,
    );
    let a = format!("once={} {} {{port}}", once.display(), env!("CARGO_BIN_EXE_peers"));
    let json = directory.path().join("bench.json");
    let only = "echo-64x1,echo-64x2";
    let output = bench(&["--a", &a, "--b", "epoll=epoll", "--only", only, "--json", json.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("peers: echo-64x2: once: once failed"), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("once / epoll") && text.contains("echo-64x1"), "{text}");
    let results: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(results["scenarios"].as_array().unwrap().len(), 1);
}

/// Who fails at idle memory has failed, and the others are measured.
#[test]
fn idle_memory_goes_on_without_who_fails() {
    if lacks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ends = script(&directory, "#!/bin/sh\necho it had enough >&2\nexit 3\n");
    let a = format!("ends={} {{port}}", ends.display());
    let output = bench(&["--a", &a, "--b", "epoll=epoll", "--only", "idle-memory"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).contains("idle-memory: ends: ends failed (exit status: 3): it had enough"),
        "{output:?}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let figures = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).expect("its row");
        line.split_whitespace().filter(|cell| cell.parse::<u64>().is_ok()).count()
    };
    assert_eq!((figures("ends"), figures("epoll ")), (0, 10), "{text}");
}

#[test]
fn one_cpu_for_both_is_refused() {
    let output = bench(&["--server-cores", "0", "--client-cores", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let line = "peers: CPU 0 is in --server-cores and in --client-cores: give each its own\n";
    assert_eq!(stderr(&output), line);
}
