//! One pinned thread per core.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::ClockId;
use tune::affinity;
use tune::cpu_set::Cpu;

use crate::Error;

/// The CPUs that the client runs on if none are named: all that it may.
pub(crate) fn allowed_cpus() -> Result<Vec<Cpu>, Error> {
    let allowed = affinity::allowed();
    let allowed = allowed.map_err(|error| Error::System { operation: "sched_getaffinity", error })?;
    Ok(allowed.iter().collect())
}

/// CPU time of the calling thread so far, user and system.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("CPU time is not negative")
}

/// What a thread of [`run_pinned`] is told.
pub(crate) struct Worker<'a> {
    /// Its place among the cores, from 0.
    pub(crate) index: usize,
    /// Its CPU.
    pub(crate) cpu: Cpu,
    gate: &'a Gate,
}

impl Worker<'_> {
    /// Waits until all threads are here; gives the moment at which the last one arrived.
    ///
    /// # Errors
    /// If another thread failed and will not arrive.
    pub(crate) fn wait_for_all(&self) -> Result<Instant, Error> {
        self.gate.pass().ok_or(Error::Cancelled)
    }
}

/// Runs `work` once per core on a thread pinned there, and gives the results in the order of `cores`. The first
/// failure of a thread is the failure of all; threads that wait for all do not wait for one that failed.
pub(crate) fn run_pinned<T, F>(cores: &[Cpu], work: F) -> Result<Vec<T>, Error>
where
    T: Send,
    F: Fn(&Worker<'_>) -> Result<T, Error> + Sync,
{
    let gate = Gate { state: Mutex::default(), changed: Condvar::new(), parties: cores.len() };
    let run = |index, cpu| {
        let cancel = CancelGate(&gate);
        affinity::pin(cpu).map_err(|error| Error::Pin { cpu, error })?;
        let result = work(&Worker { index, cpu, gate: &gate })?;
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
        let join = |(cpu, started): (Cpu, io::Result<thread::ScopedJoinHandle<'_, _>>)| {
            let thread = started.map_err(|error| Error::System { operation: "start a thread", error })?;
            thread.join().unwrap_or(Err(Error::Panicked(cpu)))
        };
        threads.into_iter().map(join).collect()
    });
    let cause =
        results.iter().position(|result| matches!(result, Err(error) if !matches!(error, Error::Cancelled)));
    match cause {
        Some(index) => results.into_iter().nth(index).expect("position is within").map(|_| Vec::new()),
        None => results.into_iter().collect(),
    }
}

/// Where threads wait for each other; unlike `std::sync::Barrier` it opens for nobody once one of them failed.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    parties: usize,
}

#[derive(Default)]
struct GateState {
    arrived: usize,
    opened: Option<Instant>,
    cancelled: bool,
}

impl Gate {
    fn pass(&self) -> Option<Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        if state.arrived == self.parties {
            state.opened = Some(Instant::now());
            self.changed.notify_all();
        }
        while state.opened.is_none() && !state.cancelled {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.opened
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
    use super::*;

    #[test]
    fn each_thread_runs_on_its_own_cpu() {
        let cores = allowed_cpus().unwrap();
        let ran = run_pinned(&cores, |worker| {
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
            let error =
                run_pinned(&[good, cpu], |worker| worker.wait_for_all().map(drop)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("pin a thread to CPU {cpu}: ")), "{error}");
        }
    }

    #[test]
    fn a_panic_is_reported_and_nobody_waits() {
        let cpu = allowed_cpus().unwrap()[0];
        let result = run_pinned(&[cpu, cpu], |worker| {
            assert_ne!(worker.index, 1, "meant to happen");
            worker.wait_for_all()
        });
        assert!(matches!(result, Err(Error::Panicked(_))));
    }
}
