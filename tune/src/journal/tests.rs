//! Tests of the journal and its directory.

use std::fs;
use std::path::Path;

use super::*;
use crate::kernel_files::KernelFiles;

fn state() -> (tempfile::TempDir, KernelFiles, State) {
    let dir = tempfile::tempdir().unwrap();
    let random = dir.path().join("proc/sys/kernel/random");
    fs::create_dir_all(&random).unwrap();
    fs::write(random.join("boot_id"), "boot-1\n").unwrap();
    let files = KernelFiles::open(dir.path()).unwrap();
    let state = State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
    (dir, files, state)
}

fn entry(path: &str, before: &str) -> Entry {
    Entry { path: path.into(), before: before.into(), owner: None }
}

#[test]
fn what_was_stored_is_loaded_and_removed() {
    let (dir, _, state) = state();
    assert_eq!(state.load().unwrap(), Loaded::Nothing);
    let journal = state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")]);
    state.store(&journal).unwrap();
    assert_eq!(state.load().unwrap(), Loaded::Journal(journal));
    assert!(dir.path().join("run/corelocal/journal.0.json").exists());
    state.remove().unwrap();
    state.remove().unwrap();
    assert_eq!(state.load().unwrap(), Loaded::Nothing);
}

#[test]
fn a_journal_of_another_boot_does_not_count() {
    let (dir, files, state) = state();
    state.store(&state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")])).unwrap();
    drop(state);
    fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), "boot-2\n").unwrap();
    let state = State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
    assert_eq!(state.load().unwrap(), Loaded::OtherBoot);
}

#[test]
fn two_runs_do_not_share_the_directory() {
    let (_dir, files, state) = state();
    let error = State::open(&State::default_directory(&files).unwrap(), &files).unwrap_err().to_string();
    assert!(error.contains("another tune is at work"), "{error}");
    drop(state);
    assert!(State::open(&State::default_directory(&files).unwrap(), &files).is_ok());
}

#[test]
fn a_damaged_journal_is_kept_and_named() {
    let (_dir, _, state) = state();
    for text in ["", "{}", "{\"schema\":9,\"tool\":\"tune 9\",\"boot_id\":null,\"netns\":0,\"entries\":[]}"] {
        fs::write(state.journal_path(), text).unwrap();
        let error = state.load().unwrap_err().to_string();
        assert!(error.contains("journal.0.json cannot be used"), "{error}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_journal_that_another_user_left_is_not_followed() {
    let (_dir, _, state) = state();
    state.store(&state.journal(vec![entry("/proc/sys/kernel/core_pattern", "|/tmp/x")])).unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    std::os::unix::fs::chown(state.journal_path(), Some(65534), None).unwrap();
    let error = state.load().unwrap_err().to_string();
    assert!(error.contains("cannot be used: it belongs to user 65534"), "{error}");
}

#[test]
fn a_journal_that_others_may_write_or_that_is_no_file_is_not_followed() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, _, state) = state();
    state.store(&state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")])).unwrap();
    fs::set_permissions(state.journal_path(), fs::Permissions::from_mode(0o620)).unwrap();
    let error = state.load().unwrap_err().to_string();
    assert!(error.contains("cannot be used: others may write to it (mode 620)"), "{error}");
    fs::remove_file(state.journal_path()).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, state.journal_path(), mode).unwrap();
    let error = state.load().unwrap_err().to_string();
    assert!(error.contains("cannot be used: it is no file"), "{error}");
}

#[test]
fn a_journal_is_believed_as_a_whole_or_not_at_all() {
    let (_dir, _, state) = state();
    let good = || entry("/proc/sys/net/core/somaxconn", "128");
    for (bad, reason) in [
        (entry("/etc/passwd", "x"), "\"/etc/passwd\" in it is no file that tune sets"),
        (entry("/proc/sys/../../etc/passwd", "x"), "is no file that tune sets"),
        (
            entry("/proc/irq/3/smp_affinity_list", "a\nb"),
            "\"a\\nb\" in it is no value of /proc/irq/3/smp_affinity_list",
        ),
    ] {
        state.store(&state.journal(vec![good(), bad, good()])).unwrap();
        let error = state.load().unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_oldest_value_of_a_path_is_kept() {
    let (_dir, _, state) = state();
    let journal = state.journal(vec![entry("/a", "1"), entry("/b", "2")]);
    let extended = journal.extended(vec![entry("/b", "20"), entry("/c", "3")], &Links::new());
    assert_eq!(extended.entries, [entry("/a", "1"), entry("/b", "2"), entry("/c", "3")]);
}

/// The handler of IRQ 40 is named after the interface, which is `lan0` now; IRQ 41 has gone to another
/// device.
#[test]
fn an_interrupt_is_the_same_as_long_as_its_device_is() {
    let (_dir, _, state) = state();
    let of = |irq: u32, before: &str, name: &str, device: &str| Entry {
        owner: Some(Owner::Interrupt { name: name.into(), device: format!("/sys/devices/{device}") }),
        ..entry(&format!("/proc/irq/{irq}/smp_affinity_list"), before)
    };
    let eth0 = of(40, "0-1", "i40e-eth0-TxRx-0", "0000:af:00.0");
    let journal = state.journal(vec![eth0.clone(), of(41, "0-1", "nvme0q1", "0000:01:00.0")]);
    let nic = of(41, "0", "i40e-lan0-TxRx-1", "0000:af:00.0");
    let extended =
        journal.extended(vec![of(40, "0", "i40e-lan0-TxRx-0", "0000:af:00.0"), nic.clone()], &Links::new());
    assert_eq!(extended.entries, [eth0, nic]);
}

/// The channels changed, and with them the numbers: what each queue's interrupt held first is kept under the
/// old number.
#[test]
fn the_interrupt_of_a_queue_is_the_same_under_another_number() {
    let (_dir, _, state) = state();
    let of = |irq: u32, before: &str, name: &str| Entry {
        owner: Some(Owner::Interrupt { name: name.into(), device: "/sys/devices/0000:af:00.0".into() }),
        ..entry(&format!("/proc/irq/{irq}/smp_affinity_list"), before)
    };
    let first = vec![of(40, "0-1", "eth0-TxRx-0"), of(41, "0-1", "eth0-TxRx-1")];
    let now = vec![of(50, "0", "eth0-TxRx-0"), of(51, "0", "eth0-TxRx-1"), of(52, "0", "eth0-TxRx-2")];
    let extended = state.journal(first.clone()).extended(now, &Links::new());
    assert_eq!(extended.entries, [first, vec![of(52, "0", "eth0-TxRx-2")]].concat());
    // A driver that calls all of them by the interface's name says nothing by it.
    let first = vec![of(40, "0-1", "eth0"), of(41, "0-1", "eth0")];
    let now = vec![of(50, "0", "eth0")];
    let extended = state.journal(first.clone()).extended(now.clone(), &Links::new());
    assert_eq!(extended.entries, [first, now].concat());
}

#[test]
fn the_oldest_value_of_a_renamed_interface_is_kept_and_that_of_a_new_one_is_its_own() {
    let (_dir, _, state) = state();
    let link = |index, address: &str| Link { index, address: address.into() };
    let of = |name: &str, link: &Link, before: &str| Entry {
        owner: Some(Owner::Interface(link.clone())),
        ..entry(&format!("/sys/class/net/{name}/queues/rx-0/rps_cpus"), before)
    };
    let (first, gone, new) = (link(2, "02:aa"), link(3, "02:bb"), link(7, "02:cc"));
    let journal = state.journal(vec![of("eth0", &first, "0"), of("eth1", &gone, "0")]);
    // eth0 was renamed, and a new interface is eth1.
    let links =
        Links::from([("lan0".parse().unwrap(), first.clone()), ("eth1".parse().unwrap(), new.clone())]);
    let extended = journal.extended(vec![of("lan0", &first, "1"), of("eth1", &new, "3")], &links);
    assert_eq!(extended.entries, [of("lan0", &first, "0"), of("eth1", &new, "3")]);
}

#[test]
fn journals_of_other_namespaces_are_found() {
    let (dir, _, state) = state();
    state.store(&state.journal(Vec::new())).unwrap();
    assert_eq!(state.others().unwrap(), Vec::<std::path::PathBuf>::new());
    for name in ["journal.4099.json", "journal.4099.json.new", "note.json"] {
        fs::write(dir.path().join("run/corelocal").join(name), "").unwrap();
    }
    let names: Vec<_> =
        state.others().unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["journal.4099.json"]);
}

/// A tree's own link must not make its journal that of the running machine.
#[test]
fn a_link_leads_neither_the_directory_nor_the_journal_out_of_the_root() {
    use std::os::unix::fs::symlink;
    for link in ["run", "run/corelocal"] {
        let (dir, files, state) = state();
        drop(state);
        let outside = tempfile::tempdir().unwrap();
        fs::remove_dir_all(dir.path().join(link)).unwrap();
        symlink(outside.path(), dir.path().join(link)).unwrap();
        let error = State::default_directory(&files).unwrap_err().to_string();
        assert!(error.contains("outside of") && error.contains("--state-dir"), "{error}");
        // One that leads nowhere is not followed to make something there.
        fs::remove_dir(outside.path()).unwrap();
        let directory = State::default_directory(&files).unwrap();
        assert!(State::open(&directory, &files).is_err());
        assert!(!outside.path().exists());
    }
    let (dir, _, state) = state();
    let victim = dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, state.new_path()).unwrap();
    state.store(&state.journal(Vec::new())).expect("the link is gone");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    fs::remove_file(state.journal_path()).unwrap();
    symlink(&victim, state.journal_path()).unwrap();
    assert!(state.load().unwrap_err().to_string().contains("ELOOP"));
}

#[test]
fn only_its_owner_may_read_or_lock_the_state() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _, state) = state();
    state.store(&state.journal(Vec::new())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir.path().join("run/corelocal")), mode(&state.journal_path())), (0o700, 0o600));
}

#[test]
fn a_journal_that_was_edited_is_refused_and_kept() {
    let (_dir, _, state) = state();
    state.store(&state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")])).unwrap();
    let text = fs::read_to_string(state.journal_path()).unwrap();
    fs::write(state.journal_path(), text.replace("\"128\"", "\"129\"")).unwrap();
    let error = state.load().unwrap_err().to_string();
    assert!(error.contains("somebody has changed it") && error.contains("written back by hand"), "{error}");
    assert!(state.journal_path().exists());
}

/// The directory may be moved away between two looks; the one that is locked is the one that is written to.
#[test]
fn what_was_opened_is_used_whatever_becomes_of_its_name() {
    let (dir, _, state) = state();
    let (here, moved) = (dir.path().join("run/corelocal"), dir.path().join("run/moved"));
    fs::rename(&here, &moved).unwrap();
    fs::create_dir(&here).unwrap();
    let journal = state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128")]);
    state.store(&journal).unwrap();
    assert!(moved.join("journal.0.json").exists());
    assert_eq!(state.load().unwrap(), Loaded::Journal(journal));
    state.remove().unwrap();
    assert_eq!(fs::read_dir(&here).unwrap().count() + fs::read_dir(&moved).unwrap().count(), 0);
}

#[test]
fn a_link_is_followed_on_the_way_and_is_not_the_directory() {
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};
    let (dir, files, _state) = state();
    let (link, real) = (dir.path().join("link"), dir.path().join("real"));
    fs::create_dir(&real).unwrap();
    symlink("real", &link).unwrap();
    let error = State::open(&link, &files).unwrap_err().to_string();
    assert!(error.contains("open state directory") && error.contains("ELOOP"), "{error}");
    let below = link.join("a/b");
    assert!(State::open_existing(&below, &files).unwrap().is_none());
    drop(State::open(&below, &files).unwrap());
    assert!(real.join("a/b").is_dir());

    fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
    let error = State::open(&below, &files).unwrap_err().to_string();
    assert!(error.contains("real on its way: others may write to it (mode 777)"), "{error}");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(State::open(&below, &files).is_ok(), "as /tmp");
    if rustix::process::geteuid().is_root() {
        lchown(&link, Some(65534), None).unwrap();
        let error = State::open(&below, &files).unwrap_err().to_string();
        assert!(error.contains("link on its way: it belongs to user 65534"), "{error}");
    }
}
