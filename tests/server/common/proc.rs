//! What /proc/PID says about a process.

use std::fs;
use std::time::Duration;

use tune::cpu_set::CpuSet;

/// One thread of a process.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its number.
    pub(crate) number: u32,
    /// `comm`: at most 15 bytes.
    pub(crate) name: String,
    /// `Cpus_allowed_list`.
    pub(crate) allowed: CpuSet,
    /// `wchan`: the function of the kernel that it sleeps in; `0` if it runs or the kernel does not say.
    pub(crate) waits_in: String,
}

/// The threads that `pid` has now. Kernel threads that work for it (`iou-wrk-…`) are among them.
pub(crate) fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads of the server");
    let tasks = tasks.map(|task| task.expect("read /proc/PID/task").path());
    // A thread may end between the listing and the reading.
    let named = tasks.filter_map(|task| Some((fs::read_to_string(task.join("comm")).ok()?, task)));
    named
        .filter_map(|(name, task)| {
            let status = fs::read_to_string(task.join("status")).ok()?;
            let waits_in = fs::read_to_string(task.join("wchan")).unwrap_or_default();
            let number = task.file_name()?.to_str()?.parse().ok()?;
            let allowed = cpus_allowed_list(&status);
            Some(Thread { number, name: name.trim_end().to_owned(), allowed, waits_in })
        })
        .collect()
}

/// The state of each thread of `pid`, such as `T` of one that is stopped (proc_pid_stat(5)).
pub(crate) fn states(pid: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads of the server");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    // The name before it is in parentheses and may hold anything.
    stats.filter_map(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next()).collect()
}

/// CPU time of all threads of `pid` since its start: utime + stime of /proc/PID/stat, in steps of a clock
/// tick.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let stat = read(&format!("/proc/{pid}/stat"));
    // Field 2 is the name in parentheses and may hold anything; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|f| f.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Resident memory of `pid` in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    kib(pid, "VmRSS:")
}

/// The most resident memory that `pid` has had, in KiB.
pub(crate) fn peak_resident_kib(pid: u32) -> u64 {
    kib(pid, "VmHWM:")
}

fn kib(pid: u32, name: &str) -> u64 {
    let status = read(&format!("/proc/{pid}/status"));
    field(&status, name).trim_end_matches("kB").trim().parse().expect("a number of kB")
}

/// What each mapping of a thread's process says of that thread's memory policy (`numa_maps` of proc(5)), such
/// as `bind:0`; `None` if the kernel has no NUMA.
pub(crate) fn memory_policies(pid: u32, thread: u32) -> Option<Vec<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/task/{thread}/numa_maps")).ok()?;
    Some(maps.lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect())
}

/// The page size of each mapping of `pid` in KiB (`KernelPageSize` of its smaps).
pub(crate) fn page_sizes_kib(pid: u32) -> Vec<u64> {
    let maps = read(&format!("/proc/{pid}/smaps"));
    let sizes = maps.lines().filter_map(|line| line.strip_prefix("KernelPageSize:")?.strip_suffix("kB"));
    sizes.map(|size| size.trim().parse().expect("a number of kB")).collect()
}

/// Numbers of the descriptors that `pid` has open. Direct descriptors of a ring are not among them.
pub(crate) fn descriptors(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("list the descriptors of the server");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// `Cpus_allowed_list` of a status file.
pub(crate) fn allowed_cpus(path: &str) -> CpuSet {
    cpus_allowed_list(&read(path))
}

fn cpus_allowed_list(status: &str) -> CpuSet {
    CpuSet::parse_list(field(status, "Cpus_allowed_list:")).expect("a CPU list")
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}")).trim()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {path}: {error}"))
}
