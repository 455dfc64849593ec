//! What the server reads of the host: CPUs, limits, memory, the length of accept queues.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tune::affinity;
use tune::cpu_set::CpuSet;
use tune::kernel_files::KernelFiles;

use crate::cgroup;
use crate::config::Config;
use crate::meminfo;
use crate::worker_plan::{Offer, OtherFiles};

/// Raises the soft limit of open files to the hard one and reads what the host offers to a server with this
/// configuration.
pub(crate) fn offer(config: &Config) -> Result<Offer> {
    let files = KernelFiles::open("/")?;
    let online = files.read("/sys/devices/system/cpu/online")?;
    Ok(Offer {
        online: online.parse::<CpuSet>()?,
        allowed: affinity::allowed().context("sched_getaffinity")?,
        files: raise_open_files(),
        others: OtherFiles::of(config),
        memory: memory(&files),
    })
}

/// Bytes of memory that this process may have: what the host has, less where its cgroup, one above that or
/// its own limits (RLIMIT_AS, RLIMIT_DATA) say so, or where the host promises no more than it has; `None` if
/// nothing of that can be read.
fn memory(files: &KernelFiles) -> Option<u64> {
    let meminfo = files.read("/proc/meminfo").unwrap_or_default();
    let host = meminfo::bytes(&meminfo, "MemTotal:");
    // What is mapped counts whether it is used or not (`Documentation/mm/overcommit-accounting.rst` of the
    // kernel).
    let strict = files.read("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let uncommitted = meminfo::uncommitted(&meminfo).filter(|_| strict);
    let cgroup = files.read("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup::files(&cgroup, "memory", ["memory.max", "memory.limit_in_bytes"]);
    // "max" is no number, and no limit.
    let limits = limits.iter().filter_map(|path| files.read(path).ok()?.trim().parse().ok());
    let own = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
    host.into_iter().chain(uncommitted).chain(limits).chain(own.into_iter().flatten()).min()
}

/// CPU numbers of this host are below this, those of CPUs that are yet to be plugged in, too
/// (`/sys/devices/system/cpu/possible`); `None` if it can't be read.
pub(crate) fn possible_cpus() -> Option<u32> {
    let files = KernelFiles::open("/").ok()?;
    let possible: CpuSet = files.read("/sys/devices/system/cpu/possible").ok()?.parse().ok()?;
    possible.iter().last().map(|cpu| cpu + 1)
}

/// RLIMIT_NOFILE, as high as this process may have it.
fn raise_open_files() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // If raising fails the old limit is what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX)
}

/// `net.core.somaxconn` of this network namespace: the kernel cuts the backlog of `listen()` to it. No limit
/// if it can't be read.
pub(crate) fn somaxconn() -> u32 {
    KernelFiles::open("/")
        .and_then(|files| files.read("/proc/sys/net/core/somaxconn"))
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_memory_is_the_least_that_the_host_and_the_cgroups_allow() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let memory = || memory(&KernelFiles::open(root.path()).unwrap());
        write("proc/meminfo", "MemTotal:    100 kB\nMemFree: 1 kB\n");
        assert_eq!(memory(), Some(102_400));
        write("proc/self/cgroup", "0::/system.slice/server.service\n");
        write("sys/fs/cgroup/system.slice/server.service/memory.max", "max\n");
        assert_eq!(memory(), Some(102_400));
        write("sys/fs/cgroup/system.slice/memory.max", "8192\n");
        assert_eq!(memory(), Some(8192), "a limit above holds, too");
        write("proc/meminfo", "MemTotal: 100 kB\nCommitLimit: 50 kB\nCommitted_AS: 46 kB\n");
        write("proc/sys/vm/overcommit_memory", "1\n");
        assert_eq!(memory(), Some(8192));
        write("proc/sys/vm/overcommit_memory", "2\n");
        assert_eq!(memory(), Some(4096), "what is not promised yet");
    }
}
