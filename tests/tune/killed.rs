//! `kill -9` in the middle of an apply, at every write and at any moment: what was there before comes back
//! with `tune restore`, or with another apply and a restore.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::veth::{NIC, Veth};
use common::{assert_same_values, contents, copy_of, profile, run, tune};
use rustix::process::{Pid, Signal, getpid, kill_process};
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::Profile;

/// Where a [`Doomed`] run ends: before its n-th write, counted from 0, or right after it.
#[derive(Clone, Copy)]
enum Moment {
    Before(usize),
    After(usize),
}

/// An apply in a process of its own that kills itself with SIGKILL.
struct Doomed<'a> {
    root: &'a Path,
    state_dir: PathBuf,
    profile: &'a str,
    interface: &'a str,
}

impl Doomed<'_> {
    /// This test binary, told by its environment to apply and to die.
    fn command(&self, moment: Moment) -> Command {
        let (when, number) = match moment {
            Moment::Before(number) => ("before", number),
            Moment::After(number) => ("after", number),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "the_process_that_dies", "--nocapture"])
            .env("DIE", format!("{when} {number}"))
            .env("ROOT", self.root)
            .env("STATE_DIR", &self.state_dir)
            .env("PROFILE", profile(self.profile))
            .env("INTERFACE", self.interface);
        command
    }
}

/// Not a test of its own: what [`Doomed::command`] runs.
#[test]
fn the_process_that_dies() {
    let Ok(die) = std::env::var("DIE") else { return };
    let (when, number) = die.split_once(' ').unwrap();
    let (before, number) = (when == "before", number.parse::<usize>().unwrap());
    let count = AtomicUsize::new(0);
    let writer = move |file: &Path, value: &str| {
        let now = count.fetch_add(1, Ordering::Relaxed) == number;
        if now && before {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        let result = DirectWrite.write(file, value);
        if now {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        result
    };
    let variable = |name| std::env::var(name).unwrap();
    let text = fs::read_to_string(variable("PROFILE")).unwrap();
    let mut profile = Profile::parse(&text, "profile").unwrap();
    profile.interface = tune::profile::InterfaceChoice::Named(variable("INTERFACE").parse().unwrap());
    let files = KernelFiles::with_writer(variable("ROOT"), writer).unwrap();
    let state_dir = variable("STATE_DIR");
    if std::env::var("RESTORE").is_ok() {
        tune::restore(&files, Path::new(&state_dir)).unwrap();
    } else {
        tune::apply_profile(&files, Path::new(&state_dir), &profile).unwrap();
    }
}

fn was_killed(status: ExitStatus) -> bool {
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

fn has_journal(root: &Path) -> bool {
    root.join("run/corelocal/journal.0.json").exists()
}

/// How many kernel files hold another value than before.
fn changed(root: &Path, before: &BTreeMap<String, String>) -> usize {
    let differs = |(path, text): &(String, String)| before.get(path).is_some_and(|before| before != text);
    contents(root).into_iter().filter(differs).count()
}

/// Kills at every `step`-th write, before it and after it, and lets `recover` bring the tree back.
fn die_at_every_write(host: &str, profile_file: &str, step: usize, recover: impl Fn(&Path)) {
    let tree = copy_of(host);
    let before = contents(tree.path());
    let mut moments = 0;
    for number in (0..).step_by(step) {
        for moment in [Moment::Before(number), Moment::After(number)] {
            let state_dir = tree.path().join("run/corelocal");
            let doomed = Doomed { root: tree.path(), state_dir, profile: profile_file, interface: "eth0" };
            let output = doomed.command(moment).output().unwrap();
            if !was_killed(output.status) {
                assert!(moments > 2, "{}", String::from_utf8_lossy(&output.stderr));
                return;
            }
            assert!(has_journal(tree.path()), "the journal was there before the first write");
            let written = number + usize::from(matches!(moment, Moment::After(_)));
            assert_eq!(changed(tree.path(), &before), written, "killed in the middle");
            recover(tree.path());
            assert_same_values(&contents(tree.path()), &before);
            moments += 1;
        }
    }
}

#[test]
fn killed_at_any_write_restore_brings_every_value_back() {
    die_at_every_write("virtio-2cpu", "auto.toml", 1, |root| {
        run(root, ["restore"]).expect(0);
    });
    die_at_every_write("i40e-48cpu", "40g.toml", 13, |root| {
        run(root, ["restore"]).expect(0);
    });
}

#[test]
fn killed_at_any_write_a_second_apply_completes_and_restore_still_finds_the_first_values() {
    die_at_every_write("virtio-2cpu", "auto.toml", 1, |root| {
        let auto = profile("auto.toml");
        run(root, ["apply", auto.to_str().unwrap()]).expect(0);
        run(root, ["plan", auto.to_str().unwrap()]).expect(0);
        run(root, ["restore"]).expect(0);
    });
}

/// The way back is cut off, too, at every write: the next restore goes on where that one ended.
#[test]
fn a_restore_that_is_killed_at_any_write_is_finished_by_the_next() {
    let tree = copy_of("virtio-2cpu");
    // One that runs is told, too.
    fs::write(
        tree.path().join("corelocal/irqbalance.json"),
        "{\"daemons\":[{\"pid\":9,\"banned_irqs\":[24]}]}\n",
    )
    .unwrap();
    let before = contents(tree.path());
    let auto = profile("auto.toml");
    let mut moments = 0;
    for number in 0.. {
        for moment in [Moment::Before(number), Moment::After(number)] {
            run(tree.path(), ["apply", auto.to_str().unwrap()]).expect(0);
            let all = changed(tree.path(), &before);
            let state_dir = tree.path().join("run/corelocal");
            let doomed = Doomed { root: tree.path(), state_dir, profile: "auto.toml", interface: "eth0" };
            let output = doomed.command(moment).env("RESTORE", "1").output().unwrap();
            if !was_killed(output.status) {
                assert_eq!(moments, 2 * all, "{}", String::from_utf8_lossy(&output.stderr));
                return;
            }
            let restored = number + usize::from(matches!(moment, Moment::After(_)));
            assert_eq!(changed(tree.path(), &before), all - restored, "killed in the middle");
            assert!(has_journal(tree.path()));
            run(tree.path(), ["restore"]).expect(0);
            assert_same_values(&contents(tree.path()), &before);
            moments += 1;
        }
    }
}

/// The journal of the first apply is there, and the second one has put its own values into it.
#[test]
fn a_second_apply_that_is_killed_at_any_write_leaves_the_way_to_the_first_state() {
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let auto = profile("auto.toml");
    for (moments, number) in (0..).step_by(17).enumerate() {
        run(tree.path(), ["--cpus", "0-3", "apply", auto.to_str().unwrap()]).expect(0);
        let state_dir = tree.path().join("run/corelocal");
        let doomed = Doomed { root: tree.path(), state_dir, profile: "40g.toml", interface: "eth0" };
        let output = doomed.command(Moment::After(number)).output().unwrap();
        let killed = was_killed(output.status);
        run(tree.path(), ["restore"]).expect(0);
        assert_same_values(&contents(tree.path()), &before);
        if !killed {
            assert!(moments > 2, "{}", String::from_utf8_lossy(&output.stderr));
            return;
        }
    }
}

/// What a run of the program that got a signal left.
struct Interrupted {
    status: ExitStatus,
    /// It had not ended when the signal was sent.
    in_time: bool,
    /// How many values are not as before.
    written: usize,
    /// How many an apply changes.
    all: usize,
}

/// Applies `40g.toml` by the program itself, which gets `signal` at moments spread over the time that an
/// apply takes and, every other time, as soon as the first value is written. `hit` must be true of three runs
/// at least.
fn interrupt_at_any_moment(signal: Signal, hit: impl Fn(&Interrupted) -> bool) {
    const MOMENTS: u32 = 20;
    const FIRST: &str = "proc/irq/121/smp_affinity_list";
    let forty = profile("40g.toml");
    let apply = |root: &Path| {
        let mut command = tune();
        command.arg("--root").args([root, Path::new("apply"), &forty]).stdout(Stdio::null());
        command
    };
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let start = Instant::now();
    assert!(apply(tree.path()).status().unwrap().success());
    let duration = start.elapsed();
    let all = changed(tree.path(), &before);
    run(tree.path(), ["restore"]).expect(0);
    let (mut tried, mut hits) = (0, 0);
    while tried < MOMENTS || hits < 3 {
        assert!(tried < 50 * MOMENTS, "{hits} of {tried} {signal:?} came in the middle");
        let mut child = apply(tree.path()).spawn().unwrap();
        let moment = Instant::now() + duration * (tried % MOMENTS) / MOMENTS;
        let first_is_written = || fs::read_to_string(tree.path().join(FIRST)).unwrap() != before[FIRST];
        let wait_for_write = tried % 2 == 1;
        wait(&mut child, || if wait_for_write { first_is_written() } else { Instant::now() >= moment });
        let in_time = child.try_wait().unwrap().is_none();
        if in_time {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let status = child.wait().unwrap();
        let written = changed(tree.path(), &before);
        assert!(written == 0 || has_journal(tree.path()), "{written} values and no journal");
        hits += usize::from(hit(&Interrupted { status, in_time, written, all }));
        run(tree.path(), ["restore"]).expect(0);
        assert_same_values(&contents(tree.path()), &before);
        tried += 1;
    }
}

/// Also between the writes, and while the journal is written.
#[test]
fn killed_at_any_moment_restore_brings_every_value_back() {
    interrupt_at_any_moment(Signal::KILL, |run| {
        was_killed(run.status) && (1..run.all).contains(&run.written)
    });
}

/// A Ctrl-C or a lost connection comes too early for anything to be written, or the transaction is finished.
#[test]
fn an_apply_that_has_begun_is_finished_in_spite_of_a_signal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        interrupt_at_any_moment(signal, |run| {
            let expected = if run.status.success() { run.all } else { 0 };
            assert_eq!(run.written, expected, "{signal:?}: {}", run.status);
            run.in_time && run.status.success()
        });
    }
}

/// Waits until the child has ended or something has happened.
fn wait(child: &mut Child, happened: impl Fn() -> bool) {
    while !happened() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn killed_at_any_write_on_a_veth_restore_brings_every_value_back() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().to_str().unwrap();
    let doomed = Doomed {
        root: Path::new("/"),
        state_dir: state.path().to_owned(),
        profile: "lab.toml",
        interface: NIC,
    };
    let mut kills = 0;
    for moment in (0..).flat_map(|number| [Moment::Before(number), Moment::After(number)]) {
        let mut command = doomed.command(moment);
        let status = veth.inside(|| command.output().unwrap().status);
        let killed = was_killed(status);
        veth.tune(&["restore", "--state-dir", state_dir]).expect(0);
        assert_eq!(veth.values(), before);
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 2 * 8, "4 RX and 4 TX queues at least: {kills}");
}
