//! The floor: what the kernel alone needs, on the server's first CPU, by one pinned thread.
//!
//! An echo costs a server one receive and one send, whatever it is written in. So half of an exchange of
//! which one thread drives both ends over loopback, a send on one end and the receive on the other, is what
//! no server in user space goes below: the thread never sleeps, is never interrupted and knows what comes. It
//! is measured in each round of each echo scenario, with its size and its connections, so that a machine that
//! gets slower or faster does so for the floor too: batched by io_uring, which is the floor that percentages
//! are of, and by plain system calls. What is measured is the CPU time of the thread.
//!
//! Beside it stand a null system call, an io_uring NOP, AF_UNIX instead of TCP, and, with CAP_BPF and
//! CAP_NET_ADMIN, an echo in the kernel.

mod bpf;
mod echo;
mod kernel_echo;
mod ring;

use std::io;
use std::time::Duration;

use anyhow::Context;
use lab::summary::Spread;
use load::cpu_time;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tune::cpu_set::Cpu;

use self::echo::Pairs;
use self::kernel_echo::Clients;
use self::ring::Ring;
use super::scenario::Scenario;
use super::table;

/// Samples of each cost: of what is measured once, and in each round; and the least CPU time of one.
const SAMPLES: usize = 15;
const SAMPLES_OF_ROUND: usize = 3;
const SAMPLE: Duration = Duration::from_millis(4);

/// Operations between two looks at the clock, which is a system call too.
const UNLOOKED: u64 = 64;

/// NOPs in a batch.
const NOPS: u16 = 64;

/// Messages that are greater do not fit into a socket, and one thread would wait for itself.
const LARGEST: u32 = 64 * 1024;

/// What does not depend on a scenario, microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Floor {
    cpu: Cpu,
    null_system_call_us: Spread,
    io_uring_nop_us: Spread,
}

/// Half of an exchange, a send and a receive, as it was once: medians of a few samples, microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Half {
    /// TCP over loopback, batched by io_uring.
    pub(crate) io_uring_us: f64,
    /// TCP over loopback, a system call each.
    pub(crate) system_calls_us: f64,
    /// AF_UNIX, a system call each.
    pub(crate) unix_us: f64,
    /// The whole exchange with an echo in the kernel (BPF), wall-clock time: the client's two calls, and on
    /// the same CPU the kernel's worker, whose time is nobody's. None if bpf(2) gave EPERM.
    pub(crate) kernel_echo_us: Option<f64>,
}

impl Floor {
    /// Measures it on a CPU.
    pub(crate) fn measure(cpu: Cpu) -> anyhow::Result<Self> {
        on_cpu(cpu, || {
            let mut ring = Ring::new()?;
            let null_system_call_us = cost(SAMPLES, cpu_time, || {
                let _ = rustix::process::getppid();
                Ok(1)
            })?;
            let io_uring_nop_us = cost(SAMPLES, cpu_time, || ring.nops(NOPS).map(|()| NOPS.into()))?;
            Ok(Self { cpu, null_system_call_us, io_uring_nop_us })
        })
    }

    /// What stands above the table; `denied`: that the kernel's echo was.
    pub(crate) fn title(&self, denied: bool) -> String {
        let [null, nop] =
            [&self.null_system_call_us, &self.io_uring_nop_us].map(|cost| table::spread(Some(cost), 3));
        let denied = if denied { "; kernel echo: EPERM: needs CAP_BPF and CAP_NET_ADMIN" } else { "" };
        format!(
            "floor on CPU {}, in each round: half of an exchange in us, and of the io_uring floor what each \
             contender reaches in %; a null system call {null} us, an io_uring NOP {nop} us{denied}",
            self.cpu
        )
    }
}

impl Half {
    /// Measures it on a CPU, as in the scenario; none if that is no echo, or too large.
    pub(crate) fn measure(cpu: Cpu, scenario: Scenario) -> anyhow::Result<Option<Self>> {
        match scenario {
            Scenario::Echo { size, connections, depth: 1, .. } if size <= LARGEST => {
                on_cpu(cpu, || Self::of(size as usize, connections)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn of(size: usize, connections: u32) -> anyhow::Result<Self> {
        let median = |spread: Spread| spread.median;
        let (mut ring, mut tcp) = (Ring::new()?, Pairs::tcp(connections as usize, size)?);
        let io_uring = cost(SAMPLES_OF_ROUND, cpu_time, || {
            tcp.turn();
            ring.exchange(&tcp.from, &tcp.to, &mut tcp.buffer).map(|()| connections.into())
        });
        let io_uring_us = io_uring.map(median)?;
        let system_calls = cost(SAMPLES_OF_ROUND, cpu_time, || tcp.exchange().map(|()| connections.into()));
        let system_calls_us = system_calls.map(median)?;
        let mut unix = Pairs::unix(connections as usize, size)?;
        let unix = cost(SAMPLES_OF_ROUND, cpu_time, || unix.exchange().map(|()| connections.into()));
        let unix_us = unix.map(median)?;
        let kernel_echo_us = match Clients::new(connections, size) {
            Ok(mut clients) => {
                let exchange = || clients.exchange().map(|()| connections.into());
                Some(cost(SAMPLES_OF_ROUND, wall_time, exchange).map(median)?)
            }
            Err(error) if may_not(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { io_uring_us, system_calls_us, unix_us, kernel_echo_us })
    }
}

/// Runs it on a thread of its own on a CPU: the runner's stays where it was.
fn on_cpu<T: Send>(cpu: Cpu, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let pinned = || {
        tune::affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"))?;
        work()
    };
    let thread = std::thread::scope(|scope| scope.spawn(pinned).join());
    thread.map_err(|_| anyhow::anyhow!("the thread that measures the floor panicked"))?
}

/// Whether it failed for want of a privilege.
fn may_not(error: &anyhow::Error) -> bool {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().and_then(Errno::from_io_error)
    };
    error.chain().any(|cause| of(cause) == Some(Errno::PERM))
}

/// Time per operation, of batches that say how many operations they were. The first sample warms up.
fn cost(
    samples: usize,
    clock: fn() -> Duration,
    mut batch: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<Spread> {
    let mut costs = Vec::new();
    for _ in 0..=samples {
        let (start, mut operations) = (clock(), 0);
        while clock() - start < SAMPLE {
            let look = operations + UNLOOKED;
            while operations < look {
                operations += batch()?;
            }
        }
        costs.push((clock() - start).as_secs_f64() * 1e6 / operations as f64);
    }
    Spread::of(costs.into_iter().skip(1)).context("no sample")
}

/// Time that has passed.
fn wall_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
