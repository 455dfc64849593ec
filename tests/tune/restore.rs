//! Restore after the world has changed: interfaces renamed and removed, values that the kernel writes in
//! another way, other network namespaces, and what the whole host has once. On a veth pair: the real kernel.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::sync::mpsc;

use common::veth::{NIC, Veth};
use common::{Run, link, profile, profile_of, tune};
use tune::journal::{Loaded, State};
use tune::kernel_files::KernelFiles;

fn lab_toml() -> String {
    profile("lab.toml").to_str().unwrap().to_owned()
}

fn rename(veth: &Veth, from: &str, to: &str) {
    veth.inside(|| link::rename(from, to));
}

#[track_caller]
fn assert_nothing_is_left(veth: &Veth) {
    let again = veth.tune(&["restore"]).expect(0);
    assert!(again.stdout.starts_with("nothing to restore"), "{}", again.stdout);
}

#[test]
fn the_values_of_a_renamed_interface_come_back_under_its_new_name() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    veth.tune(&["apply", &lab_toml()]).expect(0);
    let after = veth.values();
    rename(&veth, NIC, "lan0");
    let restored = veth.tune(&["restore"]).expect(0);
    assert!(restored.stdout.contains("interface nic0 is lan0 now\n"), "{}", restored.stdout);
    assert!(restored.stdout.contains("/sys/class/net/lan0/queues/rx-0/rps_cpus: "), "{}", restored.stdout);
    assert_nothing_is_left(&veth);
    rename(&veth, "lan0", NIC);
    assert_eq!(veth.values(), before);
    assert_ne!(after, before);
}

#[test]
fn a_sysctl_of_a_renamed_interface_comes_back() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let arp_ignore = |interface: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore");
        veth.inside(|| fs::read_to_string(path).unwrap())
    };
    let file = profile_of("[queues]\nirq = \"keep\"\n[sysctl]\n\"net.ipv4.conf.nic0.arp_ignore\" = 1\n");
    veth.tune(&["apply", file.path().to_str().unwrap()]).expect(0);
    assert_eq!(arp_ignore(NIC), "1\n");
    rename(&veth, NIC, "lan0.7");
    assert_eq!(arp_ignore("lan0.7"), "1\n");
    veth.tune(&["restore"]).expect(0);
    assert_eq!(arp_ignore("lan0.7"), "0\n");
}

#[test]
fn an_apply_after_a_rename_keeps_the_first_values() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    veth.tune(&["apply", &lab_toml()]).expect(0);
    rename(&veth, NIC, "lan0");
    let other = profile_of("[queues]\nirq = \"keep\"\nxps = \"off\"\nrps = \"off\"\nrps_flow_cnt = 512\n");
    let arguments = ["apply", other.path().to_str().unwrap(), "--interface", "lan0"];
    veth.output(tune().args(arguments)).expect(0);
    veth.tune(&["restore"]).expect(0);
    rename(&veth, "lan0", NIC);
    assert_eq!(veth.values(), before);
    assert_nothing_is_left(&veth);
}

#[test]
fn an_interface_that_is_gone_is_named_and_the_rest_restored() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let somaxconn = || veth.inside(|| fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap());
    let before = somaxconn();
    let file = profile_of("[queues]\nirq = \"keep\"\n[sysctl]\n\"net.core.somaxconn\" = { exact = 77 }\n");
    veth.tune(&["apply", file.path().to_str().unwrap()]).expect(0);
    assert_eq!(somaxconn(), "77\n");
    veth.inside(|| link::delete(NIC));
    let restored = veth.tune(&["restore"]).expect(0);
    assert!(restored.stdout.contains("interface nic0 (index "), "{}", restored.stdout);
    assert!(restored.stdout.contains("is not in this network namespace any more"), "{}", restored.stdout);
    assert_eq!(somaxconn(), before);
    assert_nothing_is_left(&veth);
}

/// The list is empty at first, which a write of no bytes would not restore, and reads back in the kernel's
/// own form.
#[test]
fn a_list_of_ports_is_compared_as_the_kernel_prints_it_and_emptied_again() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let ports = || veth.inside(|| fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap());
    assert_eq!(ports(), "\n");
    for (asked, held) in [("\"8002,8000,8001,9000\"", "8000-8002,9000\n"), ("8000", "8000\n")] {
        let text = format!(
            "[queues]\nirq = \"keep\"\n[sysctl]\n\"net.ipv4.ip_local_reserved_ports\" = {{ exact = {asked} \
             }}\n"
        );
        let file = profile_of(&text);
        let path = file.path().to_str().unwrap();
        veth.tune(&["apply", path]).expect(0);
        assert_eq!(ports(), held);
        veth.tune(&["plan", path]).expect(0);
    }
    veth.tune(&["restore"]).expect(0);
    assert_eq!(ports(), "\n");
    assert_nothing_is_left(&veth);
}

/// A second namespace would journal what the first one set as the value from before.
#[test]
fn what_the_whole_host_has_once_is_not_set_from_a_child_namespace() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let burst = "/proc/sys/kernel/printk_ratelimit_burst";
    let before = fs::read_to_string(burst).unwrap();
    let other: u32 = before.trim().parse::<u32>().unwrap() + 1;
    let values = veth.values();
    let file = profile_of(&format!("[sysctl]\n\"kernel.printk_ratelimit_burst\" = {{ exact = {other} }}\n"));
    for command in ["plan", "apply"] {
        let result = veth.tune(&[command, file.path().to_str().unwrap()]);
        let message = result.refusal();
        assert!(message.contains(&format!("{burst} belongs to the whole host")), "{message}");
    }
    assert_eq!(fs::read_to_string(burst).unwrap(), before);
    assert_eq!(veth.values(), values);
    let same = profile_of(&format!("[sysctl]\n\"kernel.printk_ratelimit_burst\" = {before}"));
    veth.tune(&["apply", same.path().to_str().unwrap()]).expect(0); // nothing of the host to write
}

/// A journal that somebody has changed together with its checksum. The value is the one of now, so that
/// nothing happens even if it were followed.
#[test]
fn what_the_whole_host_has_once_is_not_restored_in_a_child_namespace() {
    const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
    let Some(veth) = Veth::with_queues(2) else { return };
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().to_str().unwrap();
    veth.tune(&["--state-dir", state_dir, "apply", &lab_toml()]).expect(0);
    let after = veth.values();
    let path = veth.inside(|| {
        let state = State::open(state.path(), &KernelFiles::open("/").unwrap()).unwrap();
        let Loaded::Journal(mut journal) = state.load().unwrap() else { panic!("no journal") };
        SWAPPINESS.clone_into(&mut journal.entries[0].path);
        fs::read_to_string(SWAPPINESS).unwrap().trim().clone_into(&mut journal.entries[0].before);
        state.store(&journal).unwrap();
        state.journal_path()
    });
    let restored = veth.tune(&["--state-dir", state_dir, "restore"]);
    assert!(
        restored.refusal().contains("/proc/sys/vm/swappiness in it belongs to the whole host"),
        "{}",
        restored.stderr
    );
    assert!(path.exists(), "the journal is kept");
    assert_eq!(veth.values(), after, "nor is anything else of it followed");
}

#[test]
fn a_journal_that_somebody_has_edited_is_refused() {
    let tree = common::copy_of("virtio-2cpu");
    let auto = profile("auto.toml");
    common::run(tree.path(), ["apply", auto.to_str().unwrap()]).expect(0);
    let path = tree.path().join("run/corelocal/journal.0.json");
    let text = fs::read_to_string(&path).unwrap();
    let edited = text.replacen("\"before\": \"", "\"before\": \"1", 1);
    assert_ne!(edited, text);
    fs::write(&path, edited).unwrap();
    let after = common::contents(tree.path());
    for command in [vec!["restore"], vec!["apply", profile("lab.toml").to_str().unwrap()]] {
        let refused = common::run(tree.path(), command);
        let message = refused.refusal();
        assert!(message.contains("somebody has changed it") && message.contains("move it away"), "{message}");
    }
    assert_eq!(common::contents(tree.path()), after);
}

/// What was done stands, and the exit code says so; that nobody could read of it is said where it can be.
#[test]
fn a_report_that_cannot_be_written_does_not_make_a_failure_of_what_was_done() {
    let tree = common::copy_of("virtio-2cpu");
    let before = common::contents(tree.path());
    let auto = profile("auto.toml");
    for (done, arguments) in
        [("applied", vec!["apply", auto.to_str().unwrap()]), ("restored", vec!["restore"])]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = tune();
        command.arg("--root").arg(tree.path()).args(arguments).stdout(full);
        let ran = Run::from(command.output().unwrap()).expect(0);
        let said =
            format!("tune: {done}, but the report of it could not be written: write to stdout: ENOSPC");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    }
    common::assert_same_values(&common::contents(tree.path()), &before);
}

#[test]
fn with_nothing_to_restore_the_journals_of_other_namespaces_are_named() {
    let (Some(one), Some(other)) = (Veth::with_queues(2), Veth::with_queues(2)) else { return };
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().to_str().unwrap();
    one.tune(&["apply", "--state-dir", state_dir, &lab_toml()]).expect(0);
    let journals = common::names(state.path(), |path| path.extension().is_some_and(|e| e == "json"));
    let journal = state.path().join(&journals[0]);
    let found = other.tune(&["restore", "--state-dir", state_dir]).expect(0).stdout;
    let expected =
        format!("nothing to restore in this network namespace; of others there are {}\n", journal.display());
    assert_eq!(found, expected);
    let json = other.tune(&["restore", "--json", "--state-dir", state_dir]).expect(0).json();
    assert_eq!(json["elsewhere"], serde_json::json!([journal]));
}

/// The text of `/proc/PID/root` is `/`, whatever the process has there.
#[test]
fn the_root_of_a_process_elsewhere_is_not_taken_for_this_one_s() {
    let Some(veth) = Veth::with_queues(2) else { return };
    for chroot in [None, Some("/run")] {
        let (say, told) = mpsc::channel();
        let (release, wait) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let veth = &veth;
            scope.spawn(move || {
                veth.inside(move || {
                    let thread = rustix::thread::gettid().as_raw_nonzero();
                    if let Some(root) = chroot {
                        rustix::process::chroot(root).unwrap();
                    }
                    say.send(thread).unwrap();
                    let _ = wait.recv();
                });
            });
            let root = format!("/proc/{}/task/{}/root", std::process::id(), told.recv().unwrap());
            let result: Run = tune().args(["--root", &root, "show", "lo"]).output().unwrap().into();
            drop(release);
            let message = result.refusal();
            assert!(message.contains("it is another directory than /"), "{message}");
            assert!(message.contains("nsenter"), "the next step: {message}");
        });
    }
    let own: Run = tune().args(["--root", "/proc/self/root", "show", "lo"]).output().unwrap().into();
    own.expect(0);
}
