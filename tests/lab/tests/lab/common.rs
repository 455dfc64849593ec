//! A lab as a child process, and what is left of it on the host.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, set_child_subreaper, waitpid,
};

/// How long anything may take that must happen. Long, because the machine may be busy with other work: a test
/// that meets it has hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Labs one at a time: each of them needs all CPUs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits for the other tests. From now on this process is the parent of whatever a lab that is killed leaves
/// behind.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_child_subreaper(Some(getpid())).expect("prctl PR_SET_CHILD_SUBREAPER");
    guard
}

/// Why a lab cannot run here.
pub(crate) fn lacks() -> Option<&'static str> {
    let cpus = tune::affinity::allowed().expect("sched_getaffinity").len();
    match (rustix::process::geteuid().is_root(), cpus) {
        (false, _) => Some("needs root"),
        (true, 0 | 1) => Some("needs 2 CPUs"),
        _ => None,
    }
}

pub(crate) fn lab(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The one line of a lab that failed with exit code 1.
pub(crate) fn refusal(output: &Output) -> String {
    let line = stderr(output);
    assert_eq!(
        (output.status.code(), line.lines().count(), &*output.stdout),
        (Some(1), 1, &b""[..]),
        "{line}"
    );
    line
}

/// The names in a directory, sorted; none if there is no such directory.
pub(crate) fn names(path: impl AsRef<std::path::Path>) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The lab mounts a sysfs for each of its namespaces. Other mounts are other people's.
fn sysfs_mounts() -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts.lines().filter(|line| line.contains(" - sysfs ")).collect()
}

/// What of the host a lab could disturb.
pub(crate) fn host_state() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("mounts of sysfs", sysfs_mounts()),
        ("interfaces", format!("{:?}", names("/sys/class/net"))),
        ("journals", format!("{:?}", names("/run/corelocal"))),
    ])
}

/// A process as `/proc/PID` shows it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// Empty if it has ended and nobody has waited for it.
    pub(crate) command: String,
    parent: i32,
}

fn processes() -> Vec<Process> {
    let process = |name: String| {
        let pid = Pid::from_raw(name.parse().ok()?)?;
        // A process may end between the listing and the reading.
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let command = fs::read_to_string(format!("/proc/{name}/cmdline")).ok()?.replace('\0', " ");
        // The name in parentheses may hold anything; the state and the parent follow it.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some(Process { pid, command, parent })
    };
    names("/proc").into_iter().filter_map(process).collect()
}

/// The programs that the lab with process number `lab` runs now.
pub(crate) fn roles_of(lab: u32) -> Vec<Process> {
    let marker = format!("lab role {lab} ");
    processes().into_iter().filter(|process| process.command.starts_with(&marker)).collect()
}

/// Waits until the lab runs a program whose command line contains `text`.
pub(crate) fn wait_for_role(lab: u32, text: &str) -> Pid {
    let role = || roles_of(lab).into_iter().find(|role| role.command.contains(text));
    wait_for(&format!("no {text:?}"), role).pid
}

/// Waits until `found` gives something.
///
/// # Panics
/// With `missing` if it does not within [`DEADLINE`]. Looks are counted: a machine that stood still meanwhile
/// has not looked.
pub(crate) fn wait_for<T>(missing: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..DEADLINE.as_millis() {
        if let Some(found) = found() {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{missing} within {DEADLINE:?}")
}

/// Waits until the lab handles `signal` (`SigCgt` of /proc/PID/status, proc_pid_status(5)): before that it
/// has no child, and the signal just ends it.
pub(crate) fn wait_until_handled(lab: &Child, signal: Signal) {
    wait_for("no handler of the signal", || {
        let status = fs::read_to_string(format!("/proc/{}/status", lab.id())).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught >> (signal.as_raw() - 1) & 1 == 1).then_some(())
    });
}

/// True if the process ends within `time`.
pub(crate) fn ends_within(child: &Child, time: Duration) -> bool {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd_open");
    let time = Timespec::try_from(time).expect("a short time");
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)).expect("poll") == 1
}

/// Waits for the end of a lab that was told to end, and of all that it has started, in whatever way.
pub(crate) fn assert_nothing_left(lab: Child) -> Output {
    assert!(ends_within(&lab, DEADLINE), "it goes on");
    let output = lab.wait_with_output().expect("wait");
    wait_for("no end of the lab's children", || {
        // Whoever lost its parent is a child of this process now (`alone`).
        let own = getpid().as_raw_pid();
        let left: Vec<_> = processes().into_iter().filter(|process| process.parent == own).collect();
        for orphan in &left {
            let _ = waitpid(Some(orphan.pid), WaitOptions::NOHANG);
        }
        left.is_empty().then_some(())
    });
    output
}
