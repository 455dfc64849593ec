//! `kill -9` in the middle of an apply, at every write and at any moment: what was there before comes back with
//! `tune restore`, or with another apply and a restore.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::veth::{NIC, Veth};
use common::{assert_same_values, contents, copy_of, names, profile, run, tune};
use rustix::process::{Signal, getpid, kill_process};
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
    let text = std::fs::read_to_string(variable("PROFILE")).unwrap();
    let mut profile = Profile::parse(&text, "profile").unwrap();
    profile.interface = tune::profile::InterfaceChoice::Named(variable("INTERFACE").parse().unwrap());
    let files = KernelFiles::with_writer(variable("ROOT"), writer).unwrap();
    tune::apply_profile(&files, Path::new(&variable("STATE_DIR")), &profile).unwrap();
}

fn was_killed(status: ExitStatus) -> bool {
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
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
            let journals = names(&tree.path().join("run/corelocal"), |path| {
                path.extension().is_some_and(|e| e == "json")
            });
            assert_eq!(journals.len(), 1, "the journal was there before the first write");
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

/// Also between the writes, while the journal is written: the program itself, killed at moments spread over the time
/// that an apply takes.
#[test]
fn killed_at_any_moment_restore_brings_every_value_back() {
    const MOMENTS: u32 = 40;
    let forty = profile("40g.toml");
    let apply = |root: &Path| {
        let mut command = tune();
        command.arg("--root").args([root, Path::new("apply"), &forty]).stdout(std::process::Stdio::null());
        command
    };
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let start = Instant::now();
    assert!(apply(tree.path()).status().unwrap().success());
    let duration = start.elapsed();
    run(tree.path(), ["restore"]).expect(0);
    for moment in 0..MOMENTS {
        let mut child = apply(tree.path()).spawn().unwrap();
        wait_until_exit(&mut child, duration * moment / MOMENTS);
        child.kill().unwrap();
        was_killed(child.wait().unwrap());
        run(tree.path(), ["restore"]).expect(0);
        assert_same_values(&contents(tree.path()), &before);
    }
}

/// Waits until the child has ended, at most this long.
fn wait_until_exit(child: &mut std::process::Child, at_most: Duration) {
    let deadline = Instant::now() + at_most;
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
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
