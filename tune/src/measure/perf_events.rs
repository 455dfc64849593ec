//! Counters of one process as in `perf stat -p`: software events, and hardware events where the machine has a
//! PMU (`perf_event_open(2)`).

use std::io;

use perf_event::events::{Event, Hardware, Software};
use perf_event::{Builder, Counter};
use serde::{Deserialize, Serialize};

/// Counters attached to a process.
pub struct PerfEvents {
    events: Vec<(&'static str, Result<Counter, io::Error>)>,
}

/// What the counters show at one moment, or between two. `None`: the machine or its permissions do not give
/// this event.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PerfReading {
    /// Time on a CPU, user and kernel, nanoseconds. Softirqs that ran on top of the process count too.
    pub task_clock_ns: Option<u64>,
    /// Switches from the process's threads to something else.
    pub context_switches: Option<u64>,
    /// Moves of its threads to another CPU.
    pub cpu_migrations: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// CPU cycles, user and kernel.
    pub cycles: Option<u64>,
    /// Instructions retired, user and kernel.
    pub instructions: Option<u64>,
    /// Accesses that missed the last-level cache.
    pub cache_misses: Option<u64>,
    /// Branches predicted wrongly.
    pub branch_misses: Option<u64>,
}

impl PerfEvents {
    /// Attaches to a thread (a process's number is that of its first thread) and starts counting. Threads and
    /// processes that it starts from now on are counted too (`inherit`), those that it has already started
    /// are not: to count a whole process, attach while it has a single thread. An event that cannot be had is
    /// left out; [`PerfEvents::refusals`] says why.
    #[must_use]
    pub fn attach(pid: i32) -> Self {
        let events = vec![
            ("task-clock", open(Software::TASK_CLOCK, pid)),
            ("context-switches", open(Software::CONTEXT_SWITCHES, pid)),
            ("cpu-migrations", open(Software::CPU_MIGRATIONS, pid)),
            ("page-faults", open(Software::PAGE_FAULTS, pid)),
            ("cycles", open(Hardware::CPU_CYCLES, pid)),
            ("instructions", open(Hardware::INSTRUCTIONS, pid)),
            ("cache-misses", open(Hardware::CACHE_MISSES, pid)),
            ("branch-misses", open(Hardware::BRANCH_MISSES, pid)),
        ];
        Self { events }
    }

    /// The events that could not be had, by the names that `perf list` uses, and why: ENOENT and EOPNOTSUPP
    /// mean that the machine has no such counter, EACCES and EPERM that `kernel.perf_event_paranoid` forbids
    /// it.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, &io::Error)> {
        self.events.iter().filter_map(|(name, event)| Some((*name, event.as_ref().err()?)))
    }

    /// What was counted since the attachment, by all threads together.
    ///
    /// # Errors
    /// If a counter cannot be read.
    pub fn read(&mut self) -> io::Result<PerfReading> {
        let mut count = |wanted| {
            let event = self.events.iter_mut().find(|(name, _)| *name == wanted);
            event.and_then(|(_, counter)| counter.as_mut().ok()).map(read_scaled).transpose()
        };
        Ok(PerfReading {
            task_clock_ns: count("task-clock")?,
            context_switches: count("context-switches")?,
            cpu_migrations: count("cpu-migrations")?,
            page_faults: count("page-faults")?,
            cycles: count("cycles")?,
            instructions: count("instructions")?,
            cache_misses: count("cache-misses")?,
            branch_misses: count("branch-misses")?,
        })
    }
}

impl PerfReading {
    /// What was counted between `earlier` and this reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            task_clock_ns: difference(self.task_clock_ns, earlier.task_clock_ns),
            context_switches: difference(self.context_switches, earlier.context_switches),
            cpu_migrations: difference(self.cpu_migrations, earlier.cpu_migrations),
            page_faults: difference(self.page_faults, earlier.page_faults),
            cycles: difference(self.cycles, earlier.cycles),
            instructions: difference(self.instructions, earlier.instructions),
            cache_misses: difference(self.cache_misses, earlier.cache_misses),
            branch_misses: difference(self.branch_misses, earlier.branch_misses),
        }
    }
}

fn open(event: impl Event, pid: i32) -> io::Result<Counter> {
    // Context switches and softirqs happen in the kernel, so that it is counted too.
    Builder::new(event).observe_pid(pid).any_cpu().inherit(true).include_kernel().enabled(true).build()
}

/// The count, scaled up for the time in which the hardware counted something else.
fn read_scaled(counter: &mut Counter) -> io::Result<u64> {
    let reading = counter.read_count_and_time()?;
    if reading.time_running == 0 || reading.time_running >= reading.time_enabled {
        return Ok(reading.count);
    }
    let scaled =
        u128::from(reading.count) * u128::from(reading.time_enabled) / u128::from(reading.time_running);
    Ok(u64::try_from(scaled).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn threads_started_after_the_attachment_are_counted_while_they_run() {
        let mut events = PerfEvents::attach(rustix::thread::gettid().as_raw_nonzero().get());
        let refusals: Vec<_> = events.refusals().map(|(name, _)| name).collect();
        if refusals.contains(&"task-clock") {
            println!("SKIPPED: no task-clock counter here (perf_event_paranoid?)");
            return;
        }
        let before = events.read().unwrap();
        let during = std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let mut sum = 0u64;
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    (0..10_000u64).for_each(|i| sum = black_box(sum.wrapping_add(i)));
                }
            });
            let start = std::time::Instant::now();
            let mut during = events.read().unwrap();
            while during.since(&before).task_clock_ns < Some(5_000_000) {
                assert!(start.elapsed().as_secs() < 60, "the thread is not counted");
                during = events.read().unwrap();
            }
            drop(stop);
            during
        });
        let total = events.read().unwrap();
        assert!(total.task_clock_ns >= during.task_clock_ns, "{total:?} {during:?}");
        assert!(total.cycles.is_none() == refusals.contains(&"cycles"));
    }

    #[test]
    fn what_is_not_supported_stays_none_in_a_difference() {
        let earlier = PerfReading { task_clock_ns: Some(5), cycles: Some(1), ..Default::default() };
        let later = PerfReading { task_clock_ns: Some(9), ..Default::default() };
        let difference = later.since(&earlier);
        assert_eq!(
            (difference.task_clock_ns, difference.cycles, difference.page_faults),
            (Some(4), None, None)
        );
    }
}
