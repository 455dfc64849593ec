//! The kernel threads that poll NAPI instances (`/sys/class/net/IF/threaded`): finding them, and on which
//! CPUs they run.
//!
//! `napi-get` names a thread by its number in the first PID namespace; in another one, or when it has just
//! ended, that number is nobody's or somebody else's, so what counts is the thread's name, `napi/IF-ID`
//! (`napi_kthread_create()`), which keeps the interface's first name. Before Linux 6.8 the name is all there
//! is: it tells the thread of an instance, and nothing tells which queue an instance serves. (Drivers add
//! theirs in orders of their own, some in turn for RX and TX, and anew for one channel after a reset.) So
//! such threads are shown and never bound.

use std::io;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use serde_json::Value as Json;

use super::captured::{self, PATH};
use super::{Napi, NapiId, Netdev};
use crate::affinity;
use crate::cpu_set::CpuSet;
use crate::host::{HostError, InterfaceName};
use crate::kernel_files::KernelFiles;

const PREFIX: &str = "napi/";

/// A thread that polls a NAPI instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NapiThread {
    /// Its number.
    pub pid: u32,
    /// Its name, `napi/eth0-513`.
    pub name: String,
    /// The CPUs on which it may run and that are online.
    pub cpus: CpuSet,
}

/// Fills in the threads of the NAPI instances. Those that only their names tell of are added.
pub(super) fn find(files: &KernelFiles, name: &InterfaceName, netdev: &mut Netdev) -> Result<(), HostError> {
    if netdev.napis.iter().all(|napi| napi.pid.is_none()) && netdev.threaded.unwrap_or(0) == 0 {
        return Ok(());
    }
    let captured = captured_threads(files)?;
    for napi in &mut netdev.napis {
        if let Some(pid) = napi.pid {
            napi.thread = thread(files, &captured, pid)?;
        }
    }
    if netdev.unknown.is_none() {
        return Ok(());
    }
    for pid in all(files, &captured)? {
        let Some(thread) = thread(files, &captured, pid)? else { continue };
        if let Some(id) = id_in(&thread.name, name) {
            netdev.napis.push(Napi { id, irq: None, pid: Some(pid), thread: Some(thread) });
        }
    }
    Ok(())
}

/// The number in `napi/IF-ID`, where it is of this interface.
fn id_in(thread: &str, interface: &InterfaceName) -> Option<NapiId> {
    thread.strip_prefix(PREFIX)?.strip_prefix(interface.as_str())?.strip_prefix('-')?.parse().ok()
}

fn captured_threads(files: &KernelFiles) -> Result<Vec<NapiThread>, HostError> {
    if files.is_live() {
        return Ok(Vec::new());
    }
    let threads = captured::read_file(files)?.map(|captured| captured.threads).unwrap_or_default();
    let thread = |thread: captured::CapturedThread| {
        let cpus = CpuSet::parse_list(&thread.cpus).map_err(|error| HostError::text(PATH, &error))?;
        Ok(NapiThread { pid: thread.pid, name: thread.name, cpus })
    };
    threads.into_iter().map(thread).collect()
}

/// The numbers of every process, or of the captured threads.
fn all(files: &KernelFiles, captured: &[NapiThread]) -> Result<Vec<u32>, HostError> {
    if !files.is_live() {
        return Ok(captured.iter().map(|thread| thread.pid).collect());
    }
    Ok(files.list("/proc")?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The thread of this number, if it is one that polls.
fn thread(files: &KernelFiles, captured: &[NapiThread], pid: u32) -> Result<Option<NapiThread>, HostError> {
    if !files.is_live() {
        return Ok(captured.iter().find(|thread| thread.pid == pid).cloned());
    }
    // A process may end between the two looks at it.
    let Ok(Some(name)) = files.read_optional(&format!("/proc/{pid}/comm")) else { return Ok(None) };
    if !name.starts_with(PREFIX) {
        return Ok(None);
    }
    Ok(affinity::allowed_of(pid).ok().map(|cpus| NapiThread { pid, name, cpus }))
}

fn find_one(files: &KernelFiles, interface: &InterfaceName, id: NapiId) -> io::Result<NapiThread> {
    let netdev = Netdev::read(files, interface).map_err(io::Error::other)?;
    netdev.napi(id).and_then(|napi| napi.thread.clone()).ok_or_else(|| Errno::NOENT.into())
}

/// The CPUs of the thread of a NAPI instance.
///
/// # Errors
/// ENOENT if there is none, or none any more.
pub(crate) fn cpus_of(files: &KernelFiles, interface: &InterfaceName, id: NapiId) -> io::Result<CpuSet> {
    find_one(files, interface, id).map(|thread| thread.cpus)
}

/// Whether this process may set the CPUs of the thread of a NAPI instance.
///
/// # Errors
/// ENOENT as [`cpus_of`], EPERM without CAP_SYS_NICE; of a captured tree those of a write to its file.
pub(crate) fn check_settable(files: &KernelFiles, interface: &InterfaceName, id: NapiId) -> io::Result<()> {
    find_one(files, interface, id)?;
    if !files.is_live() {
        return files.check_writable(PATH).map_err(io::Error::other);
    }
    let able = capabilities(None)?.effective.contains(CapabilitySet::SYS_NICE);
    if able { Ok(()) } else { Err(Errno::PERM.into()) }
}

/// Sets the CPUs of the thread of a NAPI instance.
///
/// # Errors
/// ENOENT as [`cpus_of`], and those of `sched_setaffinity(2)`; of a captured tree those of a write to its
/// file.
pub(crate) fn set_cpus(
    files: &KernelFiles,
    interface: &InterfaceName,
    id: NapiId,
    cpus: &CpuSet,
) -> io::Result<()> {
    let thread = find_one(files, interface, id)?;
    if files.is_live() {
        return affinity::set_of(thread.pid, cpus);
    }
    let text = files.read(PATH).map_err(io::Error::other)?;
    let changed = with_cpus(&text, thread.pid, cpus)?;
    files.write_existing(PATH, &changed).map_err(io::Error::other)
}

/// The captured file with other CPUs for one thread; the rest of it stays as it is.
fn with_cpus(text: &str, pid: u32, cpus: &CpuSet) -> io::Result<String> {
    let mut file: Json = serde_json::from_str(text)?;
    let threads = file.get_mut("threads").and_then(Json::as_array_mut).into_iter().flatten();
    for thread in threads.filter(|thread| thread["pid"] == pid) {
        thread["cpus"] = cpus.to_string().into();
    }
    Ok(serde_json::to_string_pretty(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netdev::Direction;
    use crate::host::{Irq, QueueIndex};

    #[test]
    fn the_name_says_which_instance_of_which_interface() {
        let interface = "eth0".parse().unwrap();
        for (name, id) in [
            ("napi/eth0-513", Some(NapiId(513))),
            ("napi/eth01-513", None),
            ("napi/eth0-", None),
            ("napi/eth0-5x", None),
            ("napi/eth0.5-513", None),
            ("ksoftirqd/0", None),
        ] {
            assert_eq!(id_in(name, &interface), id, "{name}");
        }
        assert_eq!(id_in("napi/br-lan-7", &"br-lan".parse().unwrap()), Some(NapiId(7)));
        assert_eq!(id_in("napi/br-lan-7", &"br".parse().unwrap()), None);
    }

    fn tree(json: &str, threaded: &str) -> (tempfile::TempDir, KernelFiles) {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("sys/class/net/eth0");
        std::fs::create_dir_all(&net).unwrap();
        std::fs::write(net.join("threaded"), threaded).unwrap();
        std::fs::create_dir(dir.path().join("corelocal")).unwrap();
        std::fs::write(dir.path().join("corelocal/netdev.json"), json).unwrap();
        let files = KernelFiles::open(dir.path()).unwrap();
        (dir, files)
    }

    const JSON: &str = r#"{"schema": 1, "interfaces": {"eth0": {
        "queues": [{"type": "rx", "id": 0, "napi-id": 513}, {"type": "rx", "id": 1, "napi-id": 514}],
        "napis": [{"id": 514, "pid": 882}, {"id": 513, "irq": 40, "pid": 881}]}},
        "threads": [{"pid": 881, "name": "napi/eth0-513", "cpus": "0-3"}, {"pid": 7, "name": "napi/eth1-9", "cpus": "0"}]}"#;

    #[test]
    fn threads_are_found_by_number_and_set_and_one_that_is_gone_is_none() {
        let (_dir, files) = tree(JSON, "1");
        let eth0 = "eth0".parse().unwrap();
        let netdev = Netdev::read(&files, &eth0).unwrap();
        let ids: Vec<NapiId> = netdev.napis.iter().map(|napi| napi.id).collect();
        assert_eq!(ids, [NapiId(513), NapiId(514)]);
        let first = netdev.of_queue(Direction::Rx, QueueIndex(0)).unwrap();
        assert_eq!(first.irq, Some(Irq(40)));
        assert_eq!(first.thread.as_ref().unwrap().cpus.to_string(), "0-3");
        let second = netdev.of_queue(Direction::Rx, QueueIndex(1)).unwrap();
        assert_eq!((second.pid, &second.thread), (Some(882), &None));

        check_settable(&files, &eth0, NapiId(513)).unwrap();
        set_cpus(&files, &eth0, NapiId(513), &"2".parse().unwrap()).unwrap();
        assert_eq!(cpus_of(&files, &eth0, NapiId(513)).unwrap().to_string(), "2");
        let gone = set_cpus(&files, &eth0, NapiId(514), &"2".parse().unwrap()).unwrap_err();
        assert_eq!(Errno::from_io_error(&gone), Some(Errno::NOENT));
    }

    #[test]
    fn before_netlink_names_tell_of_the_threads() {
        let json = r#"{"schema": 1, "threads": [{"pid": 881, "name": "napi/eth0-513", "cpus": "0-3"},
            {"pid": 7, "name": "napi/eth1-9", "cpus": "0"}]}"#;
        let (_dir, files) = tree(json, "1");
        let netdev = Netdev::read(&files, &"eth0".parse().unwrap()).unwrap();
        assert!(netdev.unknown.is_some());
        assert_eq!(netdev.napis.len(), 1);
        assert_eq!((netdev.napis[0].id, netdev.napis[0].pid), (NapiId(513), Some(881)));
        let (_dir, files) = tree(json, "0");
        assert_eq!(Netdev::read(&files, &"eth0".parse().unwrap()).unwrap().napis, []);
    }
}
