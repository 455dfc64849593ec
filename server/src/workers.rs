//! Starts the workers, waits for signals and for workers that end, collects the results.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tune::affinity;
use tune::cpu_set::Cpu;
use tune::errno::describe;

use crate::config::Config;
use crate::control::{self, Control, Phase};
use crate::host;
use crate::listener::Listeners;
use crate::report::{CoreReport, Report};
use crate::stats::LiveCounters;
use crate::udp;
use crate::worker::{self, Features, Settings};
use crate::worker_plan::PlannedWorker;

/// What the main thread waits for.
enum Event {
    /// A worker is set up and waits to be told that the listeners listen.
    Ready(SyncSender<()>),
    /// A worker has ended.
    Ended(Cpu, Result<()>),
    /// SIGINT or SIGTERM.
    Signal,
}

/// What the main thread tells its caller while the server runs.
pub(crate) enum Notice {
    /// Connections are accepted from now on.
    Listening,
    /// A worker has failed. The others drain.
    Failed(anyhow::Error),
}

/// How the server ended.
pub(crate) struct Outcome {
    /// What the workers have counted; `None` if connections were never accepted.
    pub(crate) report: Option<Report>,
    /// A worker has failed.
    pub(crate) failed: bool,
}

/// What a worker is to do, and on which sockets.
enum Work {
    Tcp(Settings, OwnedFd),
    Udp(udp::Settings, Vec<OwnedFd>),
}

impl Work {
    fn tcp(
        config: &Config,
        features: Features,
        worker: &PlannedWorker,
        backlog: usize,
        listener: OwnedFd,
    ) -> Self {
        let settings = Settings {
            cpu: worker.cpu,
            features,
            max_connections: worker.max_connections,
            backlog,
            buffers: config.buffers,
            buffer_size: config.buffer_size,
            drain_timeout: config.drain_timeout,
        };
        Self::Tcp(settings, listener)
    }

    fn udp(config: &Config, socket: OwnedFd) -> Self {
        let settings = udp::Settings {
            buffers: config.buffers,
            buffer_size: config.buffer_size,
            spin: config.spin,
            drain_timeout: config.drain_timeout,
        };
        Self::Udp(settings, vec![socket])
    }
}

/// The running server.
struct Server<N> {
    control: Arc<Control>,
    wakes: Vec<OwnedFd>,
    events: Receiver<Event>,
    workers: usize,
    counters: Vec<Arc<LiveCounters>>,
    failed: bool,
    signals: u32,
    notify: N,
}

/// Runs the server until a signal or the failure of a worker ends it. `notify` is told of what happens meanwhile.
///
/// # Errors
/// If a thread can't be started or the listeners can't listen.
pub(crate) fn run(
    config: &Config,
    features: Features,
    plan: &[PlannedWorker],
    listeners: Listeners,
    notify: impl FnMut(Notice),
) -> Result<Outcome> {
    let (sender, events) = channel();
    // Before the first thread: from now on a signal ends the server in good order.
    forward_signals(sender.clone())?;
    let control = Arc::new(Control::new());
    let mut server = Server {
        control,
        wakes: Vec::new(),
        events,
        workers: 0,
        counters: plan.iter().map(|_| Arc::default()).collect(),
        failed: false,
        signals: 0,
        notify,
    };
    let backlog = u32::from(config.backlog).min(host::somaxconn()) as usize;
    for (index, (worker, listener)) in plan.iter().zip(listeners.descriptors()?).enumerate() {
        let work = if config.udp {
            Work::udp(config, listener)
        } else {
            Work::tcp(config, features, worker, backlog, listener)
        };
        server.start(index, worker.cpu, work, &sender)?;
    }
    drop(sender);
    let Some(waiting) = server.wait_until_ready() else {
        return Ok(Outcome { report: None, ..server.finish(plan) });
    };
    if config.udp {
        drop(listeners); // bound, they receive already
    } else {
        listeners.listen(config.backlog.into())?;
    }
    (server.notify)(Notice::Listening);
    drop(waiting); // each worker's `ready` returns
    while server.workers > 0 && server.control.phase() == Phase::Run {
        server.next_event();
    }
    Ok(server.finish(plan))
}

fn forward_signals(sender: Sender<Event>) -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).context("install the handlers of SIGINT and SIGTERM")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().try_for_each(|_| sender.send(Event::Signal)))
        .context("start the signal thread")?;
    Ok(())
}

impl<N: FnMut(Notice)> Server<N> {
    fn start(&mut self, index: usize, cpu: Cpu, work: Work, sender: &Sender<Event>) -> Result<()> {
        let fail = |error: io::Error| {
            let hint = "; raise the limit of open files (ulimit -n, LimitNOFILE=)";
            let hint = if Errno::from_io_error(&error) == Some(Errno::MFILE) { hint } else { "" };
            anyhow!("create an eventfd for core {cpu}: {}{hint}", describe(&error))
        };
        let wake = control::wake().map_err(fail)?;
        self.wakes.push(wake.try_clone().map_err(fail)?);
        let ended = sender.clone();
        let (control, sender) = (Arc::clone(&self.control), sender.clone());
        let counters = Arc::clone(&self.counters[index]);
        let body = move || -> Result<()> {
            affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"))?;
            let ready = || {
                let (go, started) = sync_channel(0);
                // The main thread drops `go` when the listeners listen.
                let _ = sender.send(Event::Ready(go));
                let _ = started.recv();
                control.phase() == Phase::Run
            };
            match work {
                Work::Tcp(settings, listener) => {
                    worker::run(&settings, listener, &control, &wake, &counters, ready)?;
                }
                Work::Udp(settings, sockets) => {
                    udp::run(&settings, sockets, &control, &wake, &counters, ready)?;
                }
            }
            Ok(())
        };
        thread::Builder::new()
            .name(format!("worker-{cpu}"))
            .spawn(move || {
                let result =
                    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(anyhow!("panicked")));
                let _ = ended.send(Event::Ended(cpu, result));
            })
            .with_context(|| format!("start the thread of core {cpu}"))?;
        self.workers += 1;
        Ok(())
    }

    /// Waits until every worker is set up; `None` if one failed or a signal came first.
    fn wait_until_ready(&mut self) -> Option<Vec<SyncSender<()>>> {
        let mut waiting = Vec::new();
        while waiting.len() < self.workers && self.control.phase() == Phase::Run {
            waiting.extend(self.next_event());
        }
        (self.control.phase() == Phase::Run).then_some(waiting)
    }

    /// Takes one event. Gives the worker that is ready, if that is what happened.
    fn next_event(&mut self) -> Option<SyncSender<()>> {
        match self.events.recv().expect("the signal thread keeps a sender") {
            Event::Ready(worker) => return Some(worker),
            Event::Signal => self.stop(),
            Event::Ended(core, result) => {
                self.workers -= 1;
                if let Err(error) = result {
                    self.failed = true;
                    (self.notify)(Notice::Failed(error.context(format!("core {core}"))));
                    self.control.set(Phase::Drain, &self.wakes);
                }
            }
        }
        None
    }

    /// The first signal drains, the second closes everything.
    fn stop(&mut self) {
        self.signals += 1;
        self.control.set(if self.signals == 1 { Phase::Drain } else { Phase::Stop }, &self.wakes);
    }

    /// Waits for all workers.
    fn finish(mut self, plan: &[PlannedWorker]) -> Outcome {
        while self.workers > 0 {
            drop(self.next_event());
        }
        let cores = plan.iter().zip(&self.counters);
        let report =
            cores.map(|(worker, counters)| CoreReport { core: worker.cpu, counters: counters.read() });
        Outcome { report: Some(Report::new(report.collect())), failed: self.failed }
    }
}
