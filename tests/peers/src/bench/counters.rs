//! What the kernel says of the server's processes and of the CPUs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tune::cpu_set::CpuSet;

/// A process and its descendants: a server may consist of several.
pub(crate) fn family(pid: i32) -> Vec<i32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(&pid) = pids.get(next) {
        next += 1;
        for thread in threads(pid) {
            // Missing without CONFIG_PROC_CHILDREN; then the process stands for itself.
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    pids
}

fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether all threads of a process are stopped by a signal: the state behind the name in
/// `/proc/PID/task/TID/stat`.
pub(crate) fn is_stopped(pid: i32) -> bool {
    threads(pid).into_iter().all(|thread| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('T'))
    })
}

/// CPU time of each thread of a process and its descendants, user and system.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTimes(BTreeMap<i32, Duration>);

impl CpuTimes {
    /// Reads the run time of `/proc/PID/task/TID/schedstat`, which the scheduler keeps in nanoseconds
    /// (Documentation/scheduler/sched-stats.rst), unlike the ticks of `/proc/PID/stat`.
    pub(crate) fn read(pid: i32) -> anyhow::Result<Self> {
        let mut times = BTreeMap::new();
        for pid in family(pid) {
            for thread in threads(pid) {
                // A thread that has ended since it was listed is none.
                if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) {
                    times.insert(thread, parse_run_time(&text)?);
                }
            }
        }
        if times.is_empty() {
            bail!(
                "read /proc/{pid}/task/*/schedstat: no thread; the server has ended, or the kernel is \
                 without CONFIG_SCHED_INFO"
            );
        }
        Ok(Self(times))
    }

    /// CPU time since `earlier`. What a thread has used that has ended in between is not known and not in it.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = |(thread, now): (&i32, &Duration)| {
            now.saturating_sub(earlier.0.get(thread).copied().unwrap_or_default())
        };
        self.0.iter().map(used).sum()
    }
}

fn parse_run_time(schedstat: &str) -> anyhow::Result<Duration> {
    let first = schedstat.split_whitespace().next().unwrap_or_default();
    first.parse().map(Duration::from_nanos).with_context(|| format!("schedstat {schedstat:?}"))
}

/// Memory of a process and its descendants, bytes: sums of `/proc/PID/smaps_rollup`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, pages that several processes share divided among them.
    pub(crate) pss: u64,
    /// Resident and of no file: heap, stacks, buffers.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Reads it.
    pub(crate) fn read(pid: i32) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in family(pid) {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let memory = Self::parse(&text).with_context(|| path.clone())?;
            sum.rss += memory.rss;
            sum.pss += memory.pss;
            sum.anonymous += memory.anonymous;
        }
        Ok(sum)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let bytes = |name: &str| -> anyhow::Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            Ok(1024 * kib.with_context(|| format!("no line \"{name}: … kB\""))?)
        };
        Ok(Self { rss: bytes("Rss")?, pss: bytes("Pss")?, anonymous: bytes("Anonymous")? })
    }
}

/// Time that some CPUs have been idle since boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdleTime(Duration);

impl IdleTime {
    /// Reads `/proc/stat`, whose unit is a hundredth of a second.
    pub(crate) fn read(cpus: &CpuSet) -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text, cpus)
    }

    fn parse(text: &str, cpus: &CpuSet) -> anyhow::Result<Self> {
        let idle = |cpu| -> anyhow::Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")));
            let fields: Vec<_> =
                line.with_context(|| format!("/proc/stat has no cpu{cpu}"))?.split_whitespace().collect();
            let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
            let (idle, iowait) = (field(3), field(4));
            idle.zip(iowait).map(|(idle, iowait)| idle + iowait).context("/proc/stat: idle and iowait")
        };
        let ticks: u64 = cpus.iter().map(idle).sum::<anyhow::Result<_>>()?;
        Ok(Self(Duration::from_millis(10 * ticks)))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn own_cpu_time_is_counted_thread_by_thread() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = CpuTimes::read(pid).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let own = || rustix::time::clock_gettime(rustix::thread::ClockId::ThreadCPUTime);
            while own().tv_nsec < 50_000_000 && own().tv_sec == 0 && start.elapsed() < Duration::from_secs(60)
            {
            }
            let _ = receiver.recv(); // a thread that has ended is not counted any more
        });
        let start = Instant::now();
        let used = || CpuTimes::read(pid).unwrap().since(&before);
        while used() < Duration::from_millis(50) && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(used() >= Duration::from_millis(50), "{:?}", used());
        drop(sender);
        thread.join().unwrap();
    }

    #[test]
    fn own_memory_is_there() {
        let memory = Memory::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(
            memory.rss >= memory.anonymous && memory.rss >= memory.pss && memory.anonymous > 0,
            "{memory:?}"
        );
    }

    #[test]
    fn idle_and_iowait_of_the_cpus_asked_for() {
        let text =
            "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 9 9 9 100 7 9 9 9 0 0\ncpu1 9 9 9 200 3 9 9 9 0 0\nintr 1\n";
        let idle = |list| IdleTime::parse(text, &CpuSet::parse_list(list).unwrap()).map(|time| time.0);
        assert_eq!(idle("0").unwrap(), Duration::from_millis(1070));
        assert_eq!(idle("0-1").unwrap(), Duration::from_millis(3100));
        assert!(idle("2").is_err());
        let all = tune::affinity::allowed().unwrap();
        assert!(IdleTime::read(&all).is_ok());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(CpuTimes::read(i32::MAX).is_err() && Memory::read(i32::MAX).is_err());
        assert!(parse_run_time("").is_err());
        assert_eq!(parse_run_time("1500 20 3\n").unwrap(), Duration::from_nanos(1500));
    }
}
