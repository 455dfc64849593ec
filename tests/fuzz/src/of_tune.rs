//! The parsers of `tune`, and what it makes of what they read.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tune::capture::unpack;
use tune::cpu_set::CpuSet;
use tune::host::{Host, InterfaceChoice, Interrupts, SysctlName, ToldMap};
use tune::journal::{Journal, State};
use tune::kernel_files::KernelFiles;
use tune::profile::Profile;
use tune::setting::Setting;
use tune::{diff, plan, restore};

/// Trees of `tests/hosts` that profiles are planned on: few files, and something special in each.
const HOSTS: [&str; 4] = ["virtio-2cpu", "bond-8cpu", "isolated-8cpu", "bnxt-threaded"];

/// The files of `bnxt-threaded` that `captured` replaces, by the first byte.
const FILES: [&str; 16] = [
    "corelocal/netdev.json",
    "corelocal/ethtool/eth0.json",
    "corelocal/cpus.json",
    "corelocal/irqbalance.json",
    "proc/interrupts",
    "proc/net/route",
    "proc/net/ipv6_route",
    "proc/irq/100/smp_affinity_list",
    "sys/class/net/eth0/queues/rx-0/rps_cpus",
    "sys/class/net/eth0/threaded",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/possible",
    "sys/devices/system/cpu/isolated",
    "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
    "sys/devices/system/node/node0/cpulist",
    "sys/devices/system/node/node0/distance",
];

/// What asks for everything that depends on what is found.
const WISHES: &str = "[queues]\nirq = \"queue-cpu\"\nxps = \"rx-queue\"\nrps_flow_cnt = 100\n[channels]\n\
                      [rss]\n[rings]\nrx = 1024\n\
                      [coalesce]\nadaptive_rx = true\ntx_usecs = 9\n[features]\nntuple = \"on\"\n[napi]\n\
                      threaded = true\n\
                      [sysctl]\n\"net.core.somaxconn\" = 4096\n";

/// A profile: refused in one line, or planned, the same each time, and every setting and value can be read
/// back.
pub fn profile(bytes: &[u8]) {
    static READ: OnceLock<Vec<Host>> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let profile = match Profile::parse(text, "profile.toml") {
        Ok(profile) => profile,
        Err(error) => return assert_is_one_line(&error.to_string()),
    };
    let read = |name: &&str| read_host(&hosts().join(name)).expect("a committed tree can be read");
    for host in READ.get_or_init(|| HOSTS.iter().map(read).collect()) {
        check_plan(&profile, host);
    }
}

/// A journal: refused, or followed without writing, or making, anything but files of the tree.
pub fn journal(bytes: &[u8]) {
    with_tree("virtio-2cpu", |tree| {
        let root = fs::canonicalize(tree).expect("it was just made");
        let only_there = move |file: &Path, _: &str| {
            assert!(
                file.starts_with(root.join("proc")) || file.starts_with(root.join("sys")),
                "{}",
                file.display()
            );
            Ok(())
        };
        let state_directory = tree.join("run/corelocal");
        let files = KernelFiles::with_writer(tree, only_there).expect("a directory");
        let state = State::open(&state_directory, &files).expect("a directory of ours");
        fs::write(state.journal_path(), bytes).expect("written");
        let follow = || {
            if let Err(error) = restore::restore(&files, &state) {
                assert!(!error.to_string().is_empty());
            }
        };
        follow();
        // As if whoever wrote it had computed its checksum, too.
        if let Ok(journal) = serde_json::from_slice::<Journal>(bytes) {
            state.store(&state.journal(journal.entries)).expect("stored");
            follow();
        }
        state.remove().expect("removed");
        let left = fs::read_dir(&state_directory).expect("listed").flatten();
        assert!(left.into_iter().all(|entry| entry.file_name() == "journal.0.restored"));
    });
}

/// `/proc/interrupts`: what is found in a row is part of it, an address in lower case.
pub fn interrupts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(found) = Interrupts::parse(&text) else { return };
    for row in &found.rows {
        assert!(found.row(row.irq).is_some());
        assert!(row.actions().all(|action| !action.is_empty() && row.description.contains(action)));
        let lower = row.description.to_ascii_lowercase();
        assert!(row.pci().is_none_or(|pci| lower.contains(pci.as_str())));
    }
}

/// Lists and masks of CPUs, and what `--map` takes: written again they mean the same.
pub fn cpu_set(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(set) = CpuSet::parse_list(text) {
        assert_eq!(CpuSet::parse_list(&set.to_string()).as_ref(), Ok(&set));
        assert_eq!(CpuSet::parse_mask(&set.to_mask()).as_ref(), Ok(&set));
        assert_eq!(set.iter().count(), set.len());
    }
    if let Ok(ordered) = CpuSet::parse_ordered(text) {
        let set: CpuSet = ordered.iter().copied().collect();
        assert_eq!((CpuSet::parse_list(text).as_ref(), ordered.len()), (Ok(&set), set.len()));
    }
    match CpuSet::parse_mask(text) {
        Ok(set) => assert_eq!(CpuSet::parse_mask(&set.to_mask()), Ok(set)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Err(error) = text.parse::<ToldMap>() {
        assert_is_one_line(&error.to_string());
    }
}

/// A file of a captured tree, chosen by the first byte: refused, or read, and planned on.
pub fn captured(bytes: &[u8]) {
    static PROFILE: OnceLock<Profile> = OnceLock::new();
    let Some((choice, text)) = bytes.split_first() else { return };
    let profile = PROFILE.get_or_init(|| Profile::parse(WISHES, "p").expect("a profile"));
    with_tree("bnxt-threaded", |tree| {
        let file = tree.join(FILES[usize::from(*choice) % FILES.len()]);
        let before = fs::read(&file).ok();
        fs::create_dir_all(file.parent().expect("below the tree")).expect("made");
        fs::write(&file, text).expect("written");
        match read_host(tree) {
            Ok(host) => check_plan(profile, &host),
            Err(error) => assert!(!error.is_empty()),
        }
        match before {
            Some(before) => fs::write(&file, before).expect("written"),
            None => fs::remove_file(&file).expect("removed"),
        }
    });
}

/// A capture: refused, or unpacked without anything that lies or leads outside of the directory, and then a
/// host or none.
pub fn archive(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    mend_checksums(&mut bytes);
    let scratch = scratch();
    let (file, outside) = (scratch.path().join("capture.tar"), scratch.path().join("outside"));
    let inside = outside.join("inside");
    fs::write(&file, bytes).expect("written");
    fs::create_dir_all(&inside).expect("made");
    let unpacked = unpack(&file, &inside);
    assert_eq!(fs::read_dir(&outside).expect("listed").count(), 1, "something lies beside the directory");
    assert_eq!(fs::read_dir(scratch.path()).expect("listed").count(), 2);
    check_inside(&fs::canonicalize(&inside).expect("there"), &inside);
    if let Err(error) = unpacked.map_err(|error| error.to_string()).and_then(|()| read_host(&inside)) {
        assert!(!error.is_empty());
    }
}

/// Neither a file nor the end of a link lies outside of `top`.
fn check_inside(top: &Path, directory: &Path) {
    for entry in fs::read_dir(directory).expect("listed").map(|entry| entry.expect("listed")) {
        let path = entry.path();
        let kind = entry.file_type().expect("there");
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{}", path.display());
        if let Ok(real) = fs::canonicalize(&path) {
            assert!(real.starts_with(top), "{} leads to {}", path.display(), real.display());
        }
        if kind.is_dir() {
            check_inside(top, &path);
        }
    }
}

/// Gives each header of a tar archive the checksum that it must have, which no fuzzer finds.
fn mend_checksums(archive: &mut [u8]) {
    const BLOCK: usize = 512;
    let mut at = 0_usize;
    while let Some(header) = archive.get_mut(at..at.saturating_add(BLOCK)) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or_default();
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
}

/// A plan comes out the same each time; its settings and values are those that their texts mean, with a
/// reason each.
fn check_plan(profile: &Profile, host: &Host) {
    let desired = plan::plan(profile, host);
    assert_eq!(desired, plan::plan(profile, host));
    let desired = match desired {
        Ok(desired) => desired,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(desired.settings.keys().eq(desired.reasons.keys()));
    for (setting, value) in &desired.settings {
        assert_eq!(Setting::from_path(&setting.path()).as_ref(), Some(setting));
        let text = value.to_string();
        assert_eq!(setting.parse(&text).as_ref().ok(), Some(value), "{}: {text}", setting.path());
        if let Setting::IrqAffinity(_) = setting {
            let cpus = CpuSet::parse_list(&text).expect("a list");
            assert!(cpus.len() == 1 && cpus.is_subset(&host.topology.online), "{}: {text}", setting.path());
        }
    }
    for change in diff::diff(host, &desired) {
        assert!(
            change.before != change.after && desired.settings.get(&change.setting) == Some(&change.after)
        );
    }
}

/// What quotes no file of a host. What does is made one line where it is printed.
fn assert_is_one_line(message: &str) {
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

/// The host of a tree as `plan` reads it, with the governors, and the sysctls of the shipped profiles.
fn read_host(tree: &Path) -> Result<Host, String> {
    const SYSCTLS: [&str; 6] = [
        "net.core.somaxconn",
        "net.core.rps_sock_flow_entries",
        "net.ipv4.tcp_migrate_req",
        "net.ipv4.tcp_slow_start_after_idle",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ];
    let names: Vec<SysctlName> = SYSCTLS.iter().map(|name| name.parse().expect("a name")).collect();
    let files = KernelFiles::open(tree).map_err(|error| error.to_string())?;
    let host = Host::read(&files, &InterfaceChoice::Auto, &names, &ToldMap::default());
    host.and_then(|host| host.with_governors(&files)).map_err(|error| error.to_string())
}

/// `tests/hosts`, seen from whichever package this file is compiled in.
fn hosts() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.map(|above| above.join("tests/hosts")).find(|hosts| hosts.is_dir()).expect("in the repository")
}

/// A directory in memory where there is such a file system: it is written ten thousands of times.
fn scratch() -> TempDir {
    let made = tempfile::Builder::new().prefix("corelocal-fuzz-").tempdir_in("/dev/shm");
    made.or_else(|_| tempfile::tempdir()).expect("made")
}

/// Calls with a copy of a tree of `tests/hosts`, made once for each thread.
fn with_tree(name: &'static str, then: impl FnOnce(&Path)) {
    thread_local! {
        static TREES: RefCell<Vec<(&'static str, TempDir)>> = const { RefCell::new(Vec::new()) };
    }
    TREES.with_borrow_mut(|trees| {
        if !trees.iter().any(|(other, _)| *other == name) {
            let copy = scratch();
            copy_tree(&hosts().join(name), copy.path());
            trees.push((name, copy));
        }
        let tree = trees.iter().find(|(other, _)| *other == name);
        then(tree.expect("it was just made").1.path());
    });
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("listed").map(|entry| entry.expect("listed")) {
        let (path, there) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("there");
        if kind.is_symlink() {
            symlink(fs::read_link(&path).expect("a link"), &there).expect("made");
        } else if kind.is_dir() {
            fs::create_dir(&there).expect("made");
            copy_tree(&path, &there);
        } else {
            fs::copy(&path, &there).expect("copied");
        }
    }
}
