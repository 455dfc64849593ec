//! The lab from end to end, and what is left of it when it is stopped.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

/// Labs one at a time: each of them needs all CPUs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a lab cannot run here.
fn lacks() -> Option<&'static str> {
    let cpus = load::affinity::allowed_cpus().expect("sched_getaffinity").len();
    match (rustix::process::geteuid().is_root(), cpus) {
        (false, _) => Some("needs root"),
        (true, 0 | 1) => Some("needs 2 CPUs"),
        _ => None,
    }
}

fn lab(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// What of the host a lab could disturb.
fn host_state() -> BTreeMap<&'static str, String> {
    let names = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        format!("{names:?}")
    };
    BTreeMap::from([
        ("mounts", fs::read_to_string("/proc/self/mountinfo").expect("mountinfo")),
        ("interfaces", names("/sys/class/net")),
        ("named namespaces", names("/run/netns")),
        ("journals", names("/run/corelocal")),
    ])
}

/// The processes that the lab with process number `lab` has started and that still run, with their command lines.
fn roles_of(lab: u32) -> Vec<(Pid, String)> {
    let marker = format!("lab\0role\0{lab}\0");
    let processes = fs::read_dir("/proc").expect("list /proc").flatten();
    let role = |entry: fs::DirEntry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        line.starts_with(&marker).then(|| (pid, line.replace('\0', " ")))
    };
    processes.filter_map(role).collect()
}

/// Waits until the lab runs a program whose command line contains `text`.
fn wait_for_role(lab: u32, text: &str) -> Pid {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some((pid, _)) = roles_of(lab).into_iter().find(|(_, line)| line.contains(text)) {
            return pid;
        }
        assert!(Instant::now() < deadline, "the lab never runs {text}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the process has ended, at most for `time`.
fn ends_within(child: &Child, time: Duration) -> bool {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd_open");
    let time = Timespec::try_from(time).expect("a short time");
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)).expect("poll") == 1
}

/// Starts a lab, sends `signal` after `delay`, and gives what is left of it.
fn stop_after(delay: Duration, signal: Signal) -> Output {
    let child = lab(&["--quick"]).spawn().expect("start the lab");
    if !ends_within(&child, delay) {
        kill_process(Pid::from_child(&child), signal).expect("kill");
    }
    assert_nothing_left(child)
}

/// Waits for the end of a lab that was told to end, and of its programs.
fn assert_nothing_left(lab: Child) -> Output {
    assert!(ends_within(&lab, Duration::from_secs(10)), "it goes on");
    let number = lab.id();
    let output = lab.wait_with_output().expect("wait");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !roles_of(number).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", roles_of(number));
        thread::sleep(Duration::from_millis(5));
    }
    output
}

/// Moments in a quick run: while the namespaces are made, while the first programs start, in each kind of step.
fn moments() -> impl Iterator<Item = Duration> {
    [1, 5, 20, 50, 120, 300, 600, 1200, 1500, 1600, 1700, 2000, 3000].into_iter().map(Duration::from_millis)
}

#[test]
fn a_quick_run_measures_and_leaves_everything_as_it_was() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    let json = std::env::temp_dir().join(format!("lab-test-{}.json", std::process::id()));
    let start = Instant::now();
    let output = lab(&["--quick", "--json", json.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert_eq!(stderr(&output), "", "nothing is said where standard error is not a terminal");
    let table = String::from_utf8(output.stdout).unwrap();
    println!("{table}");
    let results: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    fs::remove_file(&json).unwrap();
    assert_eq!(results["schema"], 1);
    let cpus = load::affinity::allowed_cpus().unwrap().len() as f64;
    let rounds = results["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 3);
    for round in rounds {
        let share = |side: &str, name: &str| round[side]["server"]["total"][name].as_f64().unwrap();
        assert!((share("before", "accept_local") - 1.0 / cpus).abs() < 0.15, "{round}");
        assert!(share("after", "accept_local") > 0.999, "{round}");
        assert!(share("after", "request_local") > 0.99, "{round}");
        assert!(round["after"]["exchange"]["operations"].as_u64() > Some(0), "{round}");
        assert!(!round["applied"].as_array().unwrap().is_empty());
    }
    for row in
        ["accept-local", "requests per second", "server: CPU us per request", "NET_RX softirqs per request"]
    {
        assert!(table.contains(row), "{table}");
    }
    assert_eq!(before, host_state());
}

#[test]
fn a_signal_ends_it_with_one_line_and_nothing_left() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    for (delay, signal) in moments().zip([Signal::INT, Signal::TERM, Signal::HUP].into_iter().cycle()) {
        let output = stop_after(delay, signal);
        let number = signal.as_raw();
        // In its first milliseconds the lab has no child and no handler yet, and the signal just ends it.
        if output.status.signal() == Some(number) && delay < Duration::from_millis(50) {
            continue;
        }
        assert_eq!(output.status.code(), Some(128 + number), "{delay:?}: {output:?}");
        assert_eq!(stderr(&output), format!("lab: stopped by signal {number}; nothing is left behind\n"));
        assert_eq!(output.stdout, b"", "no table of half a run");
    }
    assert_eq!(before, host_state());
}

#[test]
fn even_a_kill_leaves_nothing() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    for program in [" server ", " load connect ", " load echo ", " tune "] {
        let lab = lab(&["--quick"]).spawn().unwrap();
        wait_for_role(lab.id(), program);
        kill_process(Pid::from_child(&lab), Signal::KILL).unwrap();
        assert_nothing_left(lab);
    }
    for delay in moments() {
        assert_eq!(stop_after(delay, Signal::KILL).status.signal(), Some(Signal::KILL.as_raw()));
    }
    assert_eq!(before, host_state());
}

#[test]
fn a_program_that_dies_ends_it_with_one_line_and_nothing_left() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    for (program, message) in [
        (" server ", "lab: before: server failed (signal: 9 (SIGKILL))"),
        (" load connect ", "lab: before: load failed (signal: 9 (SIGKILL))"),
        (" load echo ", "lab: before: load failed (signal: 9 (SIGKILL))"),
    ] {
        let lab = lab(&["--quick"]).spawn().unwrap();
        let victim = wait_for_role(lab.id(), program);
        kill_process(victim, Signal::KILL).unwrap();
        let output = assert_nothing_left(lab);
        assert_eq!(output.status.code(), Some(1));
        let line = stderr(&output);
        assert!(line.starts_with(message) && line.lines().count() == 1, "{program}: {line}");
    }
    assert_eq!(before, host_state());
}

#[test]
fn without_root_it_says_so() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root to give it up");
        return;
    }
    let nobody = 65_534;
    match lab(&["--quick"]).uid(nobody).gid(nobody).output() {
        Ok(output) => {
            assert_eq!(output.status.code(), Some(1));
            let line = stderr(&output);
            assert!(line.starts_with("lab: needs root") && line.lines().count() == 1, "{line}");
        }
        Err(error) => println!("SKIPPED: another user cannot run the program here: {error}"),
    }
}

#[test]
fn with_one_cpu_it_says_so() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let cpu = load::affinity::allowed_cpus().unwrap()[0];
    let output = thread::spawn(move || {
        load::affinity::pin(cpu).unwrap();
        lab(&["--quick"]).output().unwrap()
    });
    let output = output.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert!(line.starts_with("lab: needs at least 2 CPUs") && line.lines().count() == 1, "{line}");
}

#[test]
fn bad_arguments_are_one_line() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    assert!(!Path::new("/no/such").exists());
    let output = lab(&["--quick", "--json", "/no/such/file"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "lab: --json /no/such/file: No such file or directory (os error 2)\n");
    assert_eq!(lab(&["--rounds", "0"]).output().unwrap().status.code(), Some(2));
    let output = lab(&["role"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "lab: role: role is started by the lab itself; run lab without it\n");
    let output = lab(&["--quick", "--size", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert!(line.contains("--size 0: give 1 to 1048576 bytes") && line.lines().count() == 1, "{line}");
}
