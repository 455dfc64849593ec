//! Which CPUs the tests may use, and threads that stay on one of them.

use tune::cpu_set::{Cpu, CpuSet};

use super::proc;

/// The CPUs this process may run on.
pub(crate) fn allowed() -> CpuSet {
    proc::allowed_cpus("/proc/self/status")
}

/// The first CPU this process may run on: where a server with one worker goes.
pub(crate) fn first() -> Cpu {
    allowed().first().expect("a process runs somewhere")
}

/// The first two CPUs this process may run on, if there are two.
pub(crate) fn two() -> Option<(Cpu, Cpu)> {
    let allowed = allowed();
    let mut cpus = allowed.iter();
    Some((cpus.next()?, cpus.next()?))
}

/// Runs `work` on a thread pinned to `cpu`. A process it starts is confined to `cpu` as well, as if under
/// `taskset -c`.
pub(crate) fn on_cpu<T: Send>(cpu: Cpu, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || {
            tune::affinity::pin(cpu).expect("a CPU of this process");
            work()
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
