//! The transaction under attack: a full or read-only state directory, an interface that is renamed in the
//! middle, queues that go, runs that die while they take back. Nothing may be left behind that no journal
//! knows of.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::link::rename;
use common::veth::{NIC, Veth};
use common::{Run, assert_same_values, contents, copy_of, is_root, profile, run, tune};
use lab::namespace::Namespace;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use tune::host::InterfaceChoice;
use tune::journal::State;
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::Profile;

/// A namespace with a file system of this many KiB on `/run/small`, or `None` without root.
fn small_disk(kib: usize) -> Option<Namespace> {
    if !is_root() {
        return None;
    }
    let namespace = Namespace::create().unwrap();
    let make = || {
        fs::create_dir("/run/small").unwrap();
        let size = CString::new(format!("size={kib}k")).unwrap();
        mount("tmpfs", "/run/small", "tmpfs", MountFlags::empty(), Some(size.as_c_str())).unwrap();
    };
    namespace.run(make).unwrap();
    Some(namespace)
}

/// `tune --root ROOT ARGUMENTS…` with the state directory on the small disk.
fn on_small_disk(namespace: &Namespace, root: &Path, arguments: &[&str]) -> Run {
    let mut command = tune();
    command.arg("--root").arg(root).args(arguments).args(["--state-dir", "/run/small/state"]);
    namespace.run(|| command.output().unwrap()).unwrap().into()
}

fn path_of(profile_file: &str) -> String {
    profile(profile_file).to_str().unwrap().to_owned()
}

#[test]
fn where_the_journal_has_no_room_nothing_is_written() {
    let Some(disk) = small_disk(8) else { return };
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let failed = on_small_disk(&disk, tree.path(), &["apply", &path_of("40g.toml")]);
    let message = failed.refusal();
    assert!(message.contains("ENOSPC") && message.contains("nothing was written"), "{message}");
    assert!(message.contains("--state-dir"), "the next step: {message}");
    assert_eq!(contents(tree.path()), before);
    let left = disk.run(|| fs::read_dir("/run/small/state").unwrap().count()).unwrap();
    assert_eq!(left, 0, "no half of a journal is left");
}

/// The journal of the first apply is the way back; a second one that has no room must not lose it.
#[test]
fn where_a_longer_journal_has_no_room_the_first_one_stays() {
    let Some(disk) = small_disk(12) else { return };
    let tree = copy_of("i40e-48cpu");
    let before = contents(tree.path());
    let lab = path_of("lab.toml");
    let few = ["--cpus", "0-1"];
    let small = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(
        small.path(),
        "[queues]\nirq = \"keep\"\nxps = \"keep\"\nrps = \"keep\"\n\
         [sysctl]\n\"net.ipv4.tcp_migrate_req\" = 1\n",
    )
    .unwrap();
    on_small_disk(&disk, tree.path(), &["apply", small.path().to_str().unwrap()]).expect(0);
    let after_first = contents(tree.path());
    assert_ne!(after_first, before);
    let failed = on_small_disk(&disk, tree.path(), &[&["apply", lab.as_str()], &few[..]].concat());
    assert!(failed.refusal().contains("ENOSPC"), "{}", failed.stderr);
    assert_eq!(contents(tree.path()), after_first);
    on_small_disk(&disk, tree.path(), &["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn a_state_directory_that_became_read_only_keeps_its_journal_and_what_was_restored_is_said() {
    let Some(disk) = small_disk(512) else { return };
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    on_small_disk(&disk, tree.path(), &["apply", &path_of("auto.toml")]).expect(0);
    let remount = |flags| disk.run(move || mount_remount("/run/small", flags, c"").unwrap()).unwrap();
    remount(MountFlags::RDONLY);
    let after = contents(tree.path());
    let lab = on_small_disk(&disk, tree.path(), &["apply", &path_of("lab.toml")]);
    assert!(lab.refusal().contains("EROFS"), "{}", lab.stderr);
    assert_eq!(contents(tree.path()), after);

    let restored = on_small_disk(&disk, tree.path(), &["restore"]).expect(1);
    assert_same_values(&contents(tree.path()), &before);
    assert!(restored.stdout.contains("restored 4 values"), "{}{}", restored.stdout, restored.stderr);
    assert!(restored.stderr.contains("EROFS") && restored.stderr.contains("is kept"), "{}", restored.stderr);
    remount(MountFlags::empty());
    let again = on_small_disk(&disk, tree.path(), &["restore"]).expect(0);
    assert!(again.stdout.contains("4 had their old values already"), "{}", again.stdout);
}

#[test]
fn with_nothing_to_restore_an_empty_read_only_directory_is_no_failure() {
    let Some(disk) = small_disk(512) else { return };
    let tree = copy_of("virtio-2cpu");
    disk.run(|| {
        fs::create_dir("/run/small/state").unwrap();
        mount_remount("/run/small", MountFlags::RDONLY, c"").unwrap();
    })
    .unwrap();
    let restored = on_small_disk(&disk, tree.path(), &["restore"]).expect(0);
    assert!(restored.stdout.starts_with("nothing to restore"), "{}", restored.stdout);
    assert_eq!(restored.stderr, "");
}

/// Whoever may write there could put another journal in its place.
#[test]
fn a_state_directory_that_others_may_write_is_refused() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let state = tempfile::tempdir().unwrap();
    let auto = path_of("auto.toml");
    let apply = || run(tree.path(), ["--state-dir", state.path().to_str().unwrap(), "apply", &auto]);
    let mode = |mode| fs::set_permissions(state.path(), fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o777, 0o770, 0o702] {
        mode(open);
        let refused = apply();
        let message = refused.refusal();
        assert!(message.contains("others may write") && message.contains("--state-dir"), "{message}");
    }
    if is_root() {
        mode(0o700);
        chown(state.path(), Some(65534), None).unwrap();
        let refused = apply();
        assert!(refused.refusal().contains("belongs to user 65534"), "{}", refused.stderr);
        chown(state.path(), Some(0), None).unwrap();
    }
    assert_eq!(contents(tree.path()), before);
    mode(0o1777); // as /tmp: nobody can take a file of another's away
    apply().expect(0);
}

/// Renames [`NIC`] before the n-th write, or after it.
fn renaming(number: usize, after: bool) -> impl KernelWrite {
    let count = AtomicUsize::new(0);
    move |file: &Path, value: &str| {
        let now = count.fetch_add(1, Ordering::Relaxed) == number;
        if now && !after {
            rename(NIC, "lan0");
        }
        let result = DirectWrite.write(file, value);
        if now && after {
            rename(NIC, "lan0");
        }
        result
    }
}

fn lab_profile() -> Profile {
    let mut lab = Profile::parse(&fs::read_to_string(profile("lab.toml")).unwrap(), "lab.toml").unwrap();
    lab.interface = InterfaceChoice::Named(NIC.parse().unwrap());
    lab
}

/// By udev, or by hand. What was written under the old name is still there under the new one.
#[test]
fn an_interface_that_is_renamed_in_the_middle_of_an_apply_gets_its_values_back() {
    for number in [1, 3, 5] {
        let Some(veth) = Veth::with_queues(4) else { return };
        let before = veth.values();
        let message = veth.inside(|| {
            let files = KernelFiles::with_writer("/", renaming(number, false)).unwrap();
            let state = State::default_directory(&files).unwrap();
            tune::apply_profile(&files, &state, &lab_profile()).unwrap_err().to_string()
        });
        assert!(message.contains("ENOENT") && message.contains("undone"), "{message}");
        let restored = veth.tune(&["restore"]).expect(0);
        assert!(restored.stdout.starts_with("nothing to restore"), "{}", restored.stdout);
        veth.inside(|| rename("lan0", NIC));
        assert_eq!(veth.values(), before, "write {number}: {message}");
    }
}

/// The file became read-only after the preflight had found it writable.
#[test]
fn a_file_that_refuses_in_the_middle_undoes_the_others() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let before = veth.values();
    let file = format!("/sys/class/net/{NIC}/queues/rx-2/rps_cpus");
    let message = veth.inside(|| {
        let count = AtomicUsize::new(0);
        let refusing = file.clone();
        let writer = move |path: &Path, value: &str| {
            if count.fetch_add(1, Ordering::Relaxed) == 2 {
                mount_bind(&refusing, &refusing).unwrap();
                mount_remount(&refusing, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
            }
            DirectWrite.write(path, value)
        };
        let files = KernelFiles::with_writer("/", writer).unwrap();
        let state = State::default_directory(&files).unwrap();
        tune::apply_profile(&files, &state, &lab_profile()).unwrap_err().to_string()
    });
    assert!(message.contains(&format!("{file}: EROFS")), "{message}");
    assert!(message.contains("undone, "), "{message}");
    assert_eq!(veth.values(), before);
    assert!(veth.tune(&["restore"]).expect(0).stdout.starts_with("nothing to restore"));
}

/// A restore that loses the interface on the way keeps the journal for the next one. The first value that is
/// put back is a sysctl: with the name gone after that, every file of the interface looks as if it were gone.
#[test]
fn an_interface_that_is_renamed_in_the_middle_of_a_restore_gets_its_values_back_from_the_next() {
    for (number, after) in [(0, true), (3, false)] {
        let Some(veth) = Veth::with_queues(4) else { return };
        let before = veth.values();
        veth.tune(&["apply", &path_of("lab.toml")]).expect(0);
        let failed = veth.inside(|| {
            let files = KernelFiles::with_writer("/", renaming(number, after)).unwrap();
            let state = State::default_directory(&files).unwrap();
            tune::restore(&files, &state).unwrap().failed
        });
        assert!(failed.concat().contains("interface nic0 was renamed or removed meanwhile"), "{failed:?}");
        veth.tune(&["restore"]).expect(0);
        veth.inside(|| rename("lan0", NIC));
        assert_eq!(veth.values(), before, "{number} {after}");
    }
}

/// `ethtool -L`: the queues went, and their values with them.
#[test]
fn after_queues_were_removed_restore_says_what_no_longer_applies() {
    let Some(veth) = Veth::with_queues(4) else { return };
    if Command::new("ethtool").arg("--version").output().is_err() {
        println!("SKIPPED: needs ethtool");
        return;
    }
    let before = veth.values();
    let channels = |number: &str| {
        veth.output(Command::new("ethtool").args(["-L", NIC, "rx", number, "tx", number])).expect(0);
    };
    veth.tune(&["apply", &path_of("lab.toml")]).expect(0);
    channels("2");
    let restored = veth.tune(&["restore"]).expect(0);
    for queue in ["rx-2/rps_cpus", "rx-3/rps_cpus", "tx-2/xps_cpus", "tx-3/xps_cpus"] {
        let said = format!("/sys/class/net/{NIC}/queues/{queue} does not exist any more\n");
        assert!(restored.stdout.contains(&said), "{said}{}", restored.stdout);
    }
    assert_eq!(restored.stderr, "");
    channels("4");
    assert_eq!(veth.values(), before, "the kernel gives new queues no map");
    assert!(veth.tune(&["restore"]).expect(0).stdout.starts_with("nothing to restore"));
}

/// Fails the n-th write, and from the m-th on every one: as if the undo were cut off.
fn cut_off(fails: usize, dies: usize) -> impl KernelWrite {
    let count = AtomicUsize::new(0);
    move |file: &Path, value: &str| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number == fails || number >= dies {
            return Err(io::Error::from(Errno::IO));
        }
        DirectWrite.write(file, value)
    }
}

#[test]
fn an_undo_that_is_cut_off_anywhere_leaves_the_journal_for_restore() {
    let text = fs::read_to_string(profile("auto.toml")).unwrap();
    let auto = Profile::parse(&text, "auto.toml").unwrap();
    for (fails, dies) in (1..4).flat_map(|fails| (fails + 1..2 * fails + 2).map(move |dies| (fails, dies))) {
        let tree = copy_of("virtio-2cpu");
        let before = contents(tree.path());
        let files = KernelFiles::with_writer(tree.path(), cut_off(fails, dies)).unwrap();
        let state = tree.path().join("run/corelocal");
        let message = tune::apply_profile(&files, &state, &auto).unwrap_err().to_string();
        let complete = !message.contains("NOT wholly undone");
        assert_eq!(complete, !state.join("journal.0.json").exists(), "{fails} {dies}: {message}");
        run(tree.path(), ["restore"]).expect(0);
        assert_same_values(&contents(tree.path()), &before);
    }
}
