//! One pinned thread per core.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::ClockId;
use tune::affinity;
use tune::cpu_set::Cpu;

use crate::progress::{Line, Live};
use crate::stats::ThreadStats;
use crate::{Error, Moment, Observer};

/// The CPUs that the client runs on if none are named: all that it may.
pub(crate) fn allowed_cpus() -> Result<Vec<Cpu>, Error> {
    let allowed = affinity::allowed();
    let allowed = allowed.map_err(|error| Error::System { operation: "sched_getaffinity", error })?;
    Ok(allowed.iter().collect())
}

/// CPU time of the calling thread so far, user and system.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("CPU time is not negative")
}

/// Time that the calling thread has waited for its CPU while it could have run: the second number of
/// `/proc/thread-self/schedstat` (`Documentation/scheduler/sched-stats.rst`). Zero on a kernel without it.
fn run_delay() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    nanoseconds.map_or(Duration::ZERO, Duration::from_nanos)
}

/// What a thread has used by some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    cpu: Duration,
    delay: Duration,
}

impl Usage {
    /// Of the calling thread, now.
    pub(crate) fn now() -> Self {
        Self { cpu: cpu_time(), delay: run_delay() }
    }

    /// Writes what was used since then to `stats`; of the CPU time `idle` went into spinning in vain.
    pub(crate) fn count(self, stats: &mut ThreadStats, idle: Duration) {
        let now = Self::now();
        stats.cpu_time = now.cpu.saturating_sub(self.cpu);
        stats.busy = (stats.cpu_time + now.delay.saturating_sub(self.delay)).saturating_sub(idle);
    }
}

/// What a thread of [`run_pinned`] is told.
pub(crate) struct Worker<'a> {
    /// Its place among the cores, from 0.
    pub(crate) index: usize,
    /// Its CPU.
    pub(crate) cpu: Cpu,
    gate: &'a Gate,
    /// What it shows of itself while it runs.
    pub(crate) live: &'a Live,
}

impl Worker<'_> {
    /// Waits until all threads are here; gives the moment at which the last one arrived.
    ///
    /// # Errors
    /// If another thread failed and will not arrive.
    pub(crate) fn wait_for_all(&self) -> Result<Instant, Error> {
        self.gate.pass().ok_or(Error::Cancelled)
    }

    /// Waits until all threads are here, has the first one tell the observer, and then lets all go on; gives
    /// the moment at which they did.
    ///
    /// # Errors
    /// As [`Worker::wait_for_all`].
    pub(crate) fn observe(&self, observer: &Observer<'_>, moment: Moment) -> Result<Instant, Error> {
        self.wait_for_all()?;
        if self.index == 0 {
            observer(moment);
        }
        self.wait_for_all()
    }
}

/// Runs `work` once per core on a thread pinned there, and gives the results in the order of `cores`. The
/// first failure of a thread is the failure of all; threads that wait for all do not wait for one that
/// failed. With `progress` a line on standard error says how far they are.
pub(crate) fn run_pinned<T, F>(cores: &[Cpu], progress: bool, work: F) -> Result<Vec<T>, Error>
where
    T: Send,
    F: Fn(&Worker<'_>) -> Result<T, Error> + Sync,
{
    let gate = Gate { state: Mutex::default(), changed: Condvar::new(), parties: cores.len() };
    let live: Vec<Live> = cores.iter().map(|_| Live::default()).collect();
    let run = |index: usize, cpu| {
        let cancel = CancelGate(&gate);
        affinity::pin(cpu).map_err(|error| Error::Pin { cpu, error })?;
        // Without it the kernel wakes a thread that waits for a time up to 50 us later. If it fails they are
        // late.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let result = work(&Worker { index, cpu, gate: &gate, live: &live[index] })?;
        std::mem::forget(cancel);
        Ok(result)
    };
    let run = &run;
    let results: Vec<Result<T, Error>> = thread::scope(|scope| {
        let spawn = |(index, &cpu)| {
            let thread = thread::Builder::new().name(format!("load-{cpu}"));
            let started = thread.spawn_scoped(scope, move || run(index, cpu));
            if started.is_err() {
                gate.cancel();
            }
            (cpu, started)
        };
        let threads: Vec<_> = cores.iter().enumerate().map(spawn).collect();
        let line = progress.then(|| Line::start(scope, &live));
        let join = |(cpu, started): (Cpu, io::Result<thread::ScopedJoinHandle<'_, _>>)| {
            let thread = started.map_err(|error| Error::System { operation: "start a thread", error })?;
            thread.join().unwrap_or(Err(Error::Panicked(cpu)))
        };
        let results = threads.into_iter().map(join).collect();
        drop(line);
        results
    });
    let cause =
        results.iter().position(|result| matches!(result, Err(error) if !matches!(error, Error::Cancelled)));
    match cause {
        Some(index) => results.into_iter().nth(index).expect("position is within").map(|_| Vec::new()),
        None => results.into_iter().collect(),
    }
}

/// Where threads wait for each other, as often as they like; unlike `std::sync::Barrier` it opens for nobody
/// once one of them failed.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    parties: usize,
}

#[derive(Default)]
struct GateState {
    arrived: usize,
    /// How often all have arrived.
    opened: u64,
    /// When they last did.
    opened_at: Option<Instant>,
    cancelled: bool,
}

impl Gate {
    fn pass(&self) -> Option<Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.opened;
        state.arrived += 1;
        if state.arrived == self.parties {
            state.arrived = 0;
            state.opened += 1;
            state.opened_at = Some(Instant::now());
            self.changed.notify_all();
        }
        while state.opened == before && !state.cancelled {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // The next opening needs this thread, so that `opened_at` is still the one that was waited for.
        state.opened_at.filter(|_| state.opened != before)
    }

    fn cancel(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cancelled = true;
        self.changed.notify_all();
    }
}

/// Cancels the gate when a thread leaves by an error or a panic.
struct CancelGate<'a>(&'a Gate);

impl Drop for CancelGate<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_thread_runs_on_its_own_cpu() {
        let cores = allowed_cpus().unwrap();
        let ran = run_pinned(&cores, false, |worker| {
            worker.wait_for_all()?;
            Ok((worker.index, worker.cpu, rustix::thread::sched_getcpu()))
        })
        .unwrap();
        for (position, (index, cpu, ran_on)) in ran.into_iter().enumerate() {
            assert_eq!((index, cpu as usize), (position, ran_on));
        }
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error_that_names_it_and_nobody_waits() {
        let good = allowed_cpus().unwrap()[0];
        for cpu in [1023, 5000] {
            let error = run_pinned(&[good, cpu], false, |worker| worker.wait_for_all().map(drop))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(&format!("pin a thread to CPU {cpu}: ")), "{error}");
        }
    }

    #[test]
    fn the_observer_is_told_when_all_are_there_and_before_any_goes_on() {
        let cpu = allowed_cpus().unwrap()[0];
        let (arrived, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let observer = |moment| seen.lock().unwrap().push((moment, arrived.load(Ordering::SeqCst)));
        run_pinned(&[cpu, cpu, cpu], false, |worker| {
            for moment in [Moment::Start, Moment::End] {
                arrived.fetch_add(1, Ordering::SeqCst);
                worker.observe(&observer, moment)?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.into_inner().unwrap(), [(Moment::Start, 3), (Moment::End, 6)]);
    }

    #[test]
    fn a_panic_is_reported_and_nobody_waits() {
        let cpu = allowed_cpus().unwrap()[0];
        let result = run_pinned(&[cpu, cpu], false, |worker| {
            if worker.index == 1 {
                // A panic of which the hook says nothing.
                std::panic::resume_unwind(Box::new("meant to happen"));
            }
            worker.wait_for_all()
        });
        assert!(matches!(result, Err(Error::Panicked(_))));
    }
}
