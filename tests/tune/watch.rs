//! `watch` on a veth pair in namespaces of its own: what somebody writes is named and repaired, a link that
//! goes down, comes up or is deleted is said, and SIGTERM ends it cleanly.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::veth::{NIC, Veth, of_nic};
use common::{host, link, profile, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tune::journal::{JournalError, Loaded, State};
use tune::kernel_files::KernelFiles;

/// Longer than anything here takes on the slowest machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

fn lab() -> String {
    profile("lab.toml").to_str().unwrap().to_owned()
}

/// A running `tune watch`; killed with this value.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(veth: &Veth, options: &[&str]) -> Self {
        Self::start_with(veth, options, |_| {})
    }

    fn start_with(veth: &Veth, options: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let lab = lab();
        let arguments = [&["watch", &lab][..], options].concat();
        let mut command = of_nic(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        prepare(&mut command);
        let mut child = veth.inside(|| command.spawn().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line.
    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    /// Asserts that the next line ends so, after the time.
    #[track_caller]
    fn says(&self, expected: &str) {
        let line = self.line();
        let (time, text) = line.split_once(' ').unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{line}");
        assert_eq!(text, expected);
    }

    #[track_caller]
    fn object(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Does several things of which it shall hear at once.
    fn while_it_sleeps(&self, work: impl FnOnce()) {
        let signal = |signal| kill_process(Pid::from_child(&self.child), signal).unwrap();
        signal(Signal::STOP);
        work();
        signal(Signal::CONT);
    }

    /// Ends it by SIGTERM; its exit code, and what it said meanwhile.
    fn stop(mut self) -> (Option<i32>, Vec<String>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let rest = self.lines.iter().collect();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rps(veth: &Veth, queue: u32) -> String {
    let path = format!("/sys/class/net/{NIC}/queues/rx-{queue}/rps_cpus");
    veth.inside(|| fs::read_to_string(path).unwrap()).trim().to_owned()
}

fn set_rps(veth: &Veth, queue: u32, mask: &str) {
    let path = format!("/sys/class/net/{NIC}/queues/rx-{queue}/rps_cpus");
    veth.inside(|| fs::write(path, mask).unwrap());
}

fn set_up(veth: &Veth, up: bool) {
    veth.inside(|| link::set_up(NIC, up));
}

#[test]
fn what_somebody_writes_is_named_and_repaired() {
    let Some(veth) = Veth::with_queues(4) else { return };
    veth.tune(&["apply", &lab()]).expect(0);
    let wanted = rps(&veth, 2);
    let watch = Watch::start(&veth, &["--repair", "--interval", "100ms"]);
    let started = watch.line();
    assert!(started.ends_with("settings of nic0") && started.contains(" watching "), "{started}");
    watch.says("as wanted");

    set_rps(&veth, 2, "0");
    let mask = wanted.trim_start_matches(['0', ',']);
    watch.says(&format!("/sys/class/net/{NIC}/queues/rx-2/rps_cpus: 0, wanted {mask} (somebody wrote it)"));
    watch.says("repaired: 1 written");
    assert_eq!(rps(&veth, 2), wanted);

    // It goes on: a second one, of another kind.
    veth.inside(|| fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "0").unwrap());
    watch.says("/proc/sys/net/ipv4/tcp_migrate_req: 0, wanted 1 (somebody wrote it)");
    watch.says("repaired: 1 written");
    let (code, rest) = watch.stop();
    assert_eq!(code, Some(0));
    assert!(rest.len() == 1 && rest[0].ends_with(" stopped"), "{rest:?}");
    // The journal of the first apply is still that of the values before tune.
    veth.tune(&["restore"]).expect(0);
}

/// With an hour between polls it is the link event that leads to the look.
#[test]
fn a_link_that_goes_down_and_comes_up_is_said_and_named_as_the_cause() {
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.tune(&["apply", &lab()]).expect(0);
    let watch = Watch::start(&veth, &["--interval", "1h"]);
    assert!(watch.line().contains(" watching "));
    watch.says("as wanted");
    let wanted = rps(&veth, 0);
    let mask = wanted.trim_start_matches(['0', ',']);

    watch.while_it_sleeps(|| {
        set_up(&veth, false);
        set_rps(&veth, 0, "0");
        set_up(&veth, true);
    });
    watch.says("nic0: down");
    watch.says("nic0: up");
    watch.says(&format!(
        "/sys/class/net/{NIC}/queues/rx-0/rps_cpus: 0, wanted {mask} (nic0 went down; nic0 came up)"
    ));
    assert_eq!(rps(&veth, 0), format!("{:0>1$}", "0", wanted.len()), "it only looks");

    watch.while_it_sleeps(|| {
        set_rps(&veth, 0, &wanted);
        set_up(&veth, false);
    });
    watch.says("nic0: down");
    watch.says("as wanted");
    assert_eq!(watch.stop().0, Some(0));
}

#[test]
fn an_interface_that_is_deleted_is_said_and_waited_for() {
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.tune(&["apply", &lab()]).expect(0);
    let watch = Watch::start(&veth, &["--repair", "--interval", "200ms", "--json"]);
    let head = |event: &Value| {
        assert_eq!((&event["schema"], &event["command"]), (&json!(1), &json!("watch")), "{event}");
        assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
    };
    let started = watch.object();
    head(&started);
    assert_eq!((&started["event"], &started["interfaces"]), (&json!("started"), &json!(["nic0"])));
    assert!(started["settings"].as_u64().unwrap() > 4, "{started}");
    assert_eq!(watch.object()["event"], "as-wanted");

    veth.inside(|| link::delete(NIC));
    let mut events: Vec<Value> = Vec::new();
    while events.last().is_none_or(|event: &Value| event["event"] != "unknown") {
        events.push(watch.object());
    }
    events.iter().for_each(head);
    let deleted = |event: &Value| {
        event["event"] == "link" && event["state"] == "deleted" && event["interface"] == "nic0"
    };
    assert!(events.iter().any(deleted), "{events:?}");
    let message = events.last().unwrap()["message"].as_str().unwrap();
    assert!(message.contains("interface nic0 does not exist"), "{message}");
    let (code, rest) = watch.stop();
    assert_eq!(code, Some(0));
    let rest: Vec<Value> = rest.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rest.last().unwrap()["event"], "stopped", "{rest:?}");
}

#[test]
fn what_was_not_as_wanted_at_the_start_is_said_and_a_drift_only_once() {
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.tune(&["apply", &lab()]).expect(0);
    set_rps(&veth, 1, "0");
    let watch = Watch::start(&veth, &["--interval", "100ms"]);
    assert!(watch.line().contains(" watching "));
    let first = watch.line();
    assert!(
        first.contains("rx-1/rps_cpus: 0, wanted ") && first.ends_with("(before the watch began)"),
        "{first}"
    );
    // Polls go by; what comes next is another drift, and not the same one again.
    set_rps(&veth, 0, "0");
    let second = watch.line();
    assert!(second.contains("rx-0/rps_cpus: 0, wanted "), "{second}");
    assert_eq!(watch.stop().0, Some(0));
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_alive_and_stopping() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    let watch = Watch::start_with(&veth, &["--interval", "100ms"], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert!(watch.line().contains(" watching "));
    assert_eq!(told(), "READY=1");
    assert_eq!(told(), "WATCHDOG=1");
    kill_process(Pid::from_child(&watch.child), Signal::TERM).unwrap();
    while told() != "STOPPING=1" {}
    assert_eq!(watch.stop().0, Some(0));
}

#[test]
fn a_profile_that_cannot_be_had_and_a_tree_are_refused_at_once() {
    let tree = run(&host("virtio-2cpu"), ["watch", &lab()]);
    assert!(tree.refusal().contains("is not of the running kernel"), "{}", tree.stderr);
    let Some(veth) = Veth::with_queues(2) else { return };
    let missing = veth.tune(&["watch", "--cpus", "4000", &lab()]);
    assert!(missing.refusal().contains("are not all on this host"), "{}", missing.stderr);
    let interval = veth.tune(&["watch", "--interval", "1ms", &lab()]).expect(2);
    assert!(interval.stderr.contains("must be from 100ms to 1day"), "{}", interval.stderr);
}

/// Which would be undone by the next poll, and the poll by the next restore.
#[test]
fn a_restore_ends_a_watch_that_repairs_and_stays() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let before = veth.values();
    veth.tune(&["apply", &lab()]).expect(0);
    let mut watch = Watch::start(&veth, &["--repair", "--interval", "100ms", "--json"]);
    assert_eq!(watch.object()["event"], "started");
    assert_eq!(watch.object()["event"], "as-wanted");
    // Both look at the lock for a moment; who comes second may try again.
    while veth.tune(&["restore"]).code != Some(0) {}
    let mut event = watch.object();
    while event["event"] == "drift" || event["event"] == "repair-failed" {
        event = watch.object();
    }
    assert_eq!(event["event"], "restored", "{event}");
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
    assert_eq!(veth.values(), before);
}

#[test]
fn a_restore_that_did_not_get_to_its_end_ends_it_too_and_an_apply_begins_anew() {
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.tune(&["apply", &lab()]).expect(0);
    let mut watch = Watch::start(&veth, &["--repair", "--interval", "100ms"]);
    assert!(watch.line().contains(" watching "));
    watch.says("as wanted");
    // What a restore leaves that is killed, or fails, in its middle.
    let half = || {
        let files = KernelFiles::open("/").unwrap();
        let state = loop {
            match State::open(Path::new("/run/corelocal"), &files) {
                Ok(state) => break state,
                Err(JournalError::Locked(_)) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let Loaded::Journal(journal) = state.load().unwrap() else { panic!("no journal") };
        state.store(&journal.being_restored()).unwrap();
    };
    veth.inside(half);
    set_rps(&veth, 0, "0");
    assert!(watch.line().contains("rx-0/rps_cpus: 0, wanted "));
    watch.says("restored: \"tune restore\" put back what was there, and this watch ends");
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));

    let watch = Watch::start(&veth, &["--repair", "--interval", "100ms"]);
    let lines: Vec<String> = (0..3).map(|_| watch.line()).collect();
    assert!(lines[2].ends_with("repaired: 1 written"), "who starts it wants the profile: {lines:?}");
    set_rps(&veth, 1, "0");
    assert!(watch.line().contains("rx-1/rps_cpus: 0, wanted "));
    watch.says("repaired: 1 written");
    watch.stop();
    veth.tune(&["restore"]).expect(0);
}

/// As when a CPU comes back: what is found stays, and what is wanted changes.
#[test]
fn a_drift_is_said_again_when_something_else_is_wanted() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let cpus = tune::affinity::allowed().unwrap();
    if cpus.len() < 2 {
        println!("SKIPPED: needs two CPUs");
        return;
    }
    let first = tune::cpu_set::CpuSet::from_iter(cpus.iter().next());
    veth.tune(&["apply", &lab()]).expect(0);
    let watch = Watch::start(&veth, &["--interval", "100ms"]);
    assert!(watch.line().contains(" watching "));
    watch.says("as wanted");
    let drift = format!("/sys/class/net/{NIC}/queues/rx-1/rps_cpus: 0, wanted ");
    let again = format!("{drift}{} ", first.to_mask());
    set_rps(&veth, 1, "0");
    let line = watch.line();
    assert!(line.contains(&drift) && !line.contains(&again), "{line}");
    // The workers' CPUs are "online", of which a process has those that it may use.
    tune::affinity::set_of(watch.child.id(), &first).unwrap();
    while !watch.line().contains(&again) {} // among the other queues' drifts
    watch.stop();
}

/// Which is no restore: its values were the first ones, and a repair would take those of now for them.
#[test]
fn a_journal_that_was_moved_away_is_said_and_nothing_repaired_until_it_is_back() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let before = veth.values();
    veth.tune(&["apply", &lab()]).expect(0);
    let watch = Watch::start(&veth, &["--repair", "--interval", "100ms"]);
    assert!(watch.line().contains(" watching "));
    watch.says("as wanted");
    let directory = Path::new("/run/corelocal");
    let journal = veth.inside(|| {
        let names = common::names(directory, |path| path.extension().is_some_and(|end| end == "json"));
        directory.join(&names[0])
    });
    let aside = directory.join("aside");
    veth.inside(|| fs::rename(&journal, &aside).unwrap());
    set_rps(&veth, 0, "0");
    assert!(watch.line().contains("rx-0/rps_cpus: 0, wanted "));
    let line = watch.line();
    let expected = format!("not repaired: journal {} is gone, and no \"tune restore\"", journal.display());
    assert!(line.contains(&expected), "{line}");
    veth.inside(|| fs::rename(&aside, &journal).unwrap());
    watch.says("repaired: 1 written");
    assert_eq!(watch.stop().0, Some(0));
    veth.tune(&["restore"]).expect(0);
    assert_eq!(veth.values(), before);
}

#[test]
fn another_run_at_the_start_is_waited_for_and_its_journal_seen() {
    let Some(veth) = Veth::with_queues(2) else { return };
    veth.tune(&["apply", &lab()]).expect(0);
    let lock = || State::open(Path::new("/run/corelocal"), &KernelFiles::open("/").unwrap()).unwrap();
    let state = veth.inside(lock);
    let mut watch = Watch::start(&veth, &["--repair", "--interval", "100ms"]);
    assert!(watch.line().contains(" watching "));
    watch.says("not repaired: another tune is at work in /run/corelocal; wait until it has ended");
    drop(state);
    watch.says("as wanted");
    while veth.tune(&["restore"]).code != Some(0) {}
    while !watch.line().contains(" restored: ") {}
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
}
