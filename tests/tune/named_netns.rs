//! `--netns NAME`: every command in a namespace of `ip netns`, with its own `/sys`, while the caller stays
//! where it is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::veth::{NIC, Veth};
use common::{Run, profile, tune};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// The name of a veth's network namespace in `/run/netns`, as `ip netns attach` makes it; gone with this
/// value.
struct Named {
    veth: Veth,
    name: String,
}

impl Named {
    fn new(queues: u32, purpose: &str) -> Option<Self> {
        let veth = Veth::with_queues(queues)?;
        let name = format!("tune-test-{purpose}-{}", std::process::id());
        std::fs::create_dir_all("/run/netns").unwrap();
        File::create(Self::path(&name)).unwrap();
        let (network, _) = veth.namespace().paths();
        mount_bind(network, Self::path(&name)).unwrap();
        Some(Self { veth, name })
    }

    fn path(name: &str) -> PathBuf {
        Path::new("/run/netns").join(name)
    }

    fn tune(&self, arguments: &[&str]) -> Run {
        tune().args(["--netns", &self.name]).args(arguments).output().unwrap().into()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let path = Self::path(&self.name);
        let _ = unmount(&path, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&path);
    }
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn every_command_acts_there_and_the_callers_mounts_stay() {
    let Some(named) = Named::new(3, "all") else { return };
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let lab = profile("lab.toml");
    let lab = lab.to_str().unwrap();
    let (before, mounted) = (named.veth.values(), mounts());
    let here = Run::from(tune().args(["show", NIC]).output().unwrap());
    assert!(here.refusal().contains("does not exist"), "{}", here.stderr);

    let show = named.tune(&["show", "--json", NIC]).expect(0).json();
    assert_eq!(show["interfaces"][0]["queues"].as_array().unwrap().len(), 3);
    let with = |command: &'static str| vec![command, lab, "--interface", NIC];
    named.tune(&with("plan")).expect(2);
    named.tune(&with("check")).expect(2);
    let script = named.tune(&with("script")).expect(0).stdout;
    let run_it = format!("ip netns exec '{}' sh ", named.name);
    assert!(
        script.contains("--netns") && script.contains(&format!("# Run it as root: {run_it}FILE. ")),
        "{script}"
    );
    let applied = named.tune(&[&with("apply")[..], &["--state-dir", state]].concat()).expect(0);
    let way_back = format!("tune restore --netns {} --state-dir {state}", named.name);
    assert!(applied.stdout.contains(&way_back), "{}", applied.stdout);
    assert_ne!(named.veth.values(), before);
    named.tune(&with("check")).expect(0);
    named.tune(&["restore", "--state-dir", state]).expect(0);
    assert_eq!(named.veth.values(), before);
    assert_eq!(mounts(), mounted, "the mounts of this process are as they were");
}

/// As its head says; what undoes it is on the host's `/run`, and says the same.
#[test]
fn a_script_made_there_runs_there_by_ip_netns_exec() {
    let Some(named) = Named::new(2, "script") else { return };
    let place = tempfile::tempdir().unwrap();
    let lab = profile("lab.toml");
    let text = named.tune(&["script", lab.to_str().unwrap(), "--interface", NIC]).expect(0).stdout;
    let script = place.path().join("script.sh");
    std::fs::write(&script, text).unwrap();
    let (before, run_it) = (named.veth.values(), format!("ip netns exec '{}' sh ", named.name));
    let sh = |command: &str| -> Run { Command::new("sh").args(["-c", command]).output().unwrap().into() };
    let here = sh(&format!("sh {}", script.display())).expect(1);
    assert!(here.stderr.contains("there is no nic0 here; nothing was written"), "{}", here.stderr);
    let done = sh(&format!("{run_it}{}", script.display())).expect(0);
    assert_ne!(named.veth.values(), before);
    let (_, undo) = done.stdout.lines().last().unwrap().split_once("; to undo: ").unwrap();
    assert!(undo.starts_with(&format!("{run_it}/run/tune-undo.")), "{undo}");
    let refused = sh(&format!("sh {}", undo.rsplit(' ').next().unwrap())).expect(1);
    assert_eq!(refused.stderr, "tune script: this network namespace is another one; nothing was put back\n");
    sh(undo).expect(0);
    assert_eq!(named.veth.values(), before);
}

#[test]
fn a_name_that_is_none_and_a_root_beside_it_are_refused() {
    for (name, message) in [
        ("no-such-namespace", "open network namespace /run/netns/no-such-namespace: ENOENT"),
        ("../../etc/passwd", "is no name of a network namespace"),
        ("", "is no name of a network namespace"),
    ] {
        let refused = Run::from(tune().args(["show", "--netns", name]).output().unwrap());
        assert!(refused.refusal().contains(message), "{}", refused.stderr);
    }
    let both = Run::from(tune().args(["show", "--netns", "a", "--root", "/tmp"]).output().unwrap()).expect(2);
    assert!(both.stderr.contains("give one of them"), "{}", both.stderr);
}

#[test]
fn a_pipe_is_not_waited_for() {
    if !common::is_root() {
        return;
    }
    let name = format!("tune-test-pipe-{}", std::process::id());
    std::fs::create_dir_all("/run/netns").unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, Named::path(&name), mode).unwrap();
    let run: Run = tune().args(["--netns", &name, "show"]).output().unwrap().into();
    std::fs::remove_file(Named::path(&name)).unwrap();
    assert!(run.refusal().contains("it is no network namespace"), "{}", run.stderr);
}
