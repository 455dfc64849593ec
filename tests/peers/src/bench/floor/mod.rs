//! The floor: what the kernel alone needs, on the server's first CPU, by one pinned thread.
//!
//! An echo costs a server one receive and one send, whatever it is written in. So half of an exchange of
//! which one thread drives both ends over loopback, a send on one end and the receive on the other, is what
//! no server in user space goes below: the thread never sleeps, is never interrupted and knows what comes. It
//! is measured for each echo scenario of the run, with its size and its connections: batched by io_uring,
//! which is the floor that percentages are of, and by plain system calls. What is measured is the CPU time of
//! the thread.
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
use super::overview::Line;
use super::rounds::Plan;
use super::scenario::Scenario;
use super::table;

/// Samples of each cost, and the least CPU time of one.
const SAMPLES: usize = 15;
const SAMPLE: Duration = Duration::from_millis(4);

/// Batches between two looks at the clock, which is a system call too.
const BATCHES: usize = 64;

/// NOPs in a batch.
const NOPS: u16 = 64;

/// Messages that are greater do not fit into a socket, and one thread would wait for itself.
const LARGEST: u32 = 64 * 1024;

/// Everything that was measured, microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Floor {
    cpu: Cpu,
    null_system_call_us: Spread,
    io_uring_nop_us: Spread,
    halves: Vec<Half>,
}

/// Half of an exchange: a send and a receive.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Half {
    pub(crate) scenario: Scenario,
    /// TCP over loopback, batched by io_uring.
    pub(crate) io_uring_us: Spread,
    /// TCP over loopback, a system call each.
    pub(crate) system_calls_us: Spread,
    /// AF_UNIX, a system call each.
    pub(crate) unix_us: Spread,
    /// The whole exchange with an echo in the kernel (BPF), wall-clock time: the client's two calls, and on
    /// the same CPU the kernel's worker, whose time is nobody's. None if bpf(2) gave EPERM.
    pub(crate) kernel_echo_us: Option<Spread>,
}

impl Floor {
    /// Measures it on the first of the server's CPUs, for those of the scenarios that are echoes.
    pub(crate) fn measure(plan: &Plan) -> anyhow::Result<Self> {
        let cpu = plan.setup.server_cores.iter().next().context("no server core")?;
        // A thread of its own: the runner's stays where it was.
        let measure = || {
            tune::affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"))?;
            let mut ring = Ring::new()?;
            let null_system_call_us = cost(cpu_time, || {
                let _ = rustix::process::getppid();
                Ok(1)
            })?;
            let io_uring_nop_us = cost(cpu_time, || ring.nops(NOPS).map(|()| NOPS.into()))?;
            let halves = plan.scenarios.iter().filter_map(|&scenario| half(&mut ring, scenario).transpose());
            let halves = halves.collect::<anyhow::Result<_>>()?;
            Ok(Self { cpu, null_system_call_us, io_uring_nop_us, halves })
        };
        let thread = std::thread::scope(|scope| scope.spawn(measure).join());
        thread.map_err(|_| anyhow::anyhow!("the thread that measures the floor panicked"))?
    }

    /// What stands above the table.
    pub(crate) fn title(&self) -> String {
        let [null, nop] =
            [&self.null_system_call_us, &self.io_uring_nop_us].map(|cost| table::spread(Some(cost), 3));
        let denied = self.halves.iter().any(|half| half.kernel_echo_us.is_none());
        let denied = if denied { "; kernel echo: EPERM: needs CAP_BPF and CAP_NET_ADMIN" } else { "" };
        format!(
            "floor on CPU {}: half of an exchange in us, and of the io_uring floor what each contender \
             reaches in %; a null system call {null} us, an io_uring NOP {nop} us{denied}",
            self.cpu
        )
    }

    /// Header, and a row for each scenario: the floors, and each contender as a per cent of that of io_uring.
    pub(crate) fn table(&self, names: &[String], lines: &[Line]) -> Vec<Vec<String>> {
        let header =
            ["", "io_uring", "system calls", "AF_UNIX", "whole, kernel echo"].map(str::to_owned).into_iter();
        let mut table = vec![header.chain(names.iter().map(|name| format!("{name} %"))).collect::<Vec<_>>()];
        for half in &self.halves {
            let scenario = half.scenario.to_string();
            let Some(line) = lines.iter().find(|line| line.scenario == scenario) else { continue };
            let floors = [&half.io_uring_us, &half.system_calls_us, &half.unix_us];
            let floors = floors.into_iter().map(Some).chain([half.kernel_echo_us.as_ref()]);
            let floors = floors.map(|floor| table::spread(floor, 2));
            let percent = |name: &String| {
                let share = line.median(name).map(|median| 100.0 * half.io_uring_us.median / median);
                share.map_or("-".to_owned(), |share| format!("{share:.0}"))
            };
            table.push([scenario].into_iter().chain(floors).chain(names.iter().map(percent)).collect());
        }
        table
    }
}

/// Half of an exchange as in the scenario; none if that is no echo, or too large.
fn half(ring: &mut Ring, scenario: Scenario) -> anyhow::Result<Option<Half>> {
    let Scenario::Echo { size, connections, depth: 1, .. } = scenario else { return Ok(None) };
    if size > LARGEST {
        return Ok(None);
    }
    let (size, count) = (size as usize, connections as usize);
    let mut tcp = Pairs::tcp(count, size)?;
    let io_uring_us = cost(cpu_time, || {
        tcp.turn();
        ring.exchange(&tcp.from, &tcp.to, &mut tcp.buffer).map(|()| connections.into())
    })?;
    let system_calls_us = cost(cpu_time, || tcp.exchange().map(|()| connections.into()))?;
    let mut unix = Pairs::unix(count, size)?;
    let unix_us = cost(cpu_time, || unix.exchange().map(|()| connections.into()))?;
    let kernel_echo_us = match Clients::new(connections, size) {
        Ok(mut clients) => Some(cost(wall_time, || clients.exchange().map(|()| connections.into()))?),
        Err(error) if may_not(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Half { scenario, io_uring_us, system_calls_us, unix_us, kernel_echo_us }))
}

/// Whether it failed for want of a privilege.
fn may_not(error: &anyhow::Error) -> bool {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().and_then(Errno::from_io_error)
    };
    error.chain().any(|cause| of(cause) == Some(Errno::PERM))
}

/// Time per operation, of batches that say how many operations they were. The first sample warms up.
fn cost(clock: fn() -> Duration, mut batch: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<Spread> {
    let mut samples = Vec::new();
    for _ in 0..=SAMPLES {
        let (start, mut operations) = (clock(), 0);
        while clock() - start < SAMPLE {
            for _ in 0..BATCHES {
                operations += batch()?;
            }
        }
        samples.push((clock() - start).as_secs_f64() * 1e6 / operations as f64);
    }
    Spread::of(samples.into_iter().skip(1)).context("no sample")
}

/// Time that has passed.
fn wall_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
