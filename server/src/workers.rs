//! Starts the workers, waits for signals and for workers that end, collects the results.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;
use rustix::thread::gettid;
use tune::affinity;
use tune::cpu_set::Cpu;
use tune::errno::describe;

use crate::config::{AcceptModel, Config, Steer};
use crate::control::{self, Control, Phase};
use crate::listener::{self, Listeners};
use crate::metrics::{Endpoint, Served};
use crate::pins::{self, Pins};
use crate::report::live::LiveTable;
use crate::report::{CoreReport, Report};
use crate::stats::{LiveCore, LiveCounters};
use crate::steer_auto::SteerAuto;
use crate::udp;
use crate::worker::buffers::Pages;
use crate::worker::{self, Crew, Features, Settings};
use crate::worker_plan::PlannedWorker;
use crate::{host, numa, privileges, signals};

/// Descriptors for which there is room from the start, if there may be as many: 8 bytes each.
const MOST_ROOM: u32 = 1 << 16;

/// What the main thread waits for.
enum Event {
    /// A worker is set up, on this thread, and waits to be told that the listeners listen.
    Ready(Cpu, u32, SyncSender<()>),
    /// A worker has ended.
    Ended(Cpu, Result<()>),
    /// One of those that end the server ([`signals`]).
    Signal,
    /// Something that people should know.
    Note(String),
}

/// What the main thread tells its caller while the server runs.
pub(crate) enum Notice {
    /// Connections are accepted from now on.
    Listening,
    /// The metrics are served here. Comes after [`Notice::Listening`].
    Metrics(SocketAddr),
    /// A worker has failed. The others drain.
    Failed(anyhow::Error),
    /// Something that people should know.
    Note(String),
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
    Tcp(Settings, Vec<OwnedFd>),
    Udp(udp::Settings, Vec<OwnedFd>),
}

impl Work {
    fn udp(config: &Config, sockets: Vec<OwnedFd>) -> Self {
        let settings = udp::Settings {
            buffers: config.buffers,
            buffer_size: config.buffer_size,
            pages: Pages::of(config),
            busy_poll: config.busy_poll,
            spin: config.spin,
            drain_timeout: config.drain_timeout,
        };
        Self::Udp(settings, sockets)
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
    pins: Pins,
    /// `--numa`
    numa: bool,
    /// Holds the listeners, so it ends before the workers close theirs.
    steering: Option<SteerAuto>,
    notify: N,
    /// What the server shows of itself while it runs.
    metrics: Option<Served>,
    live_table: Option<LiveTable>,
}

/// Runs the server until a signal or the failure of a worker ends it. `notify` is told of what happens
/// meanwhile.
///
/// # Errors
/// If privileges can't be given up, a thread can't be started or the listeners can't listen.
pub(crate) fn run(
    config: &Config,
    features: Features,
    plan: &[PlannedWorker],
    listeners: Listeners,
    endpoint: Option<Endpoint>,
    notify: impl FnMut(Notice),
) -> Result<Outcome> {
    // Before the first thread, which would keep its privileges.
    privileges::give_up(config)?;
    let (sender, events) = channel();
    // Before the first thread: from now on a signal ends the server in good order.
    let signals = sender.clone();
    signals::forward(move || signals.send(Event::Signal).is_ok())?;
    let control = Arc::new(Control::new());
    let cpus = host::possible_cpus().or_else(|| plan.iter().map(|worker| worker.cpu + 1).max()).unwrap_or(0);
    let mut server = Server {
        control,
        wakes: Vec::new(),
        events,
        workers: 0,
        counters: plan.iter().map(|_| Arc::new(LiveCounters::new(cpus))).collect(),
        failed: false,
        signals: 0,
        pins: Pins::default(),
        numa: config.numa,
        steering: None,
        notify,
        metrics: None,
        live_table: None,
    };
    if features.splice && features.direct_descriptors {
        make_room_for_descriptors(plan);
    }
    let config = Arc::new(config.clone());
    let crew = (config.accept == AcceptModel::Single).then(|| {
        let limits = plan.iter().map(|worker| worker.max_connections);
        Arc::new(Crew::new(limits.zip(server.counters.iter().cloned())))
    });
    let backlog = u32::from(config.backlog).min(host::somaxconn()) as usize;
    for (index, (worker, sockets)) in plan.iter().zip(listeners.descriptors()?).enumerate() {
        let work = if config.udp {
            Work::udp(&config, sockets)
        } else {
            let settings = Settings {
                cpu: worker.cpu,
                features,
                max_connections: worker.max_connections,
                spill: worker.spill,
                backlog,
                aliases_below: worker.aliases_below,
                counts_drops: index == 0 || config.accept == AcceptModel::PerCore,
                config: Arc::clone(&config),
                crew: crew.as_ref().map(|crew| (Arc::clone(crew), index)),
            };
            Work::Tcp(settings, sockets)
        };
        server.start(index, worker.cpu, work, &sender)?;
    }
    let Some(waiting) = server.wait_until_ready() else {
        return Ok(Outcome { report: None, ..server.finish(plan) });
    };
    listeners.listen(config.backlog)?;
    server.watch(&config, plan, listeners, sender)?;
    server.notify(Notice::Listening);
    listener::advice(&config).into_iter().for_each(|advice| server.notify(Notice::Note(advice)));
    server.show(&config, plan, endpoint)?;
    // Each worker's `ready` returns. A signal that has come meanwhile makes it drain, not give up: there may
    // be clients.
    waiting.iter().for_each(|worker| _ = worker.send(()));
    while server.workers > 0 && server.control.phase() == Phase::Run {
        server.next_event();
    }
    Ok(server.finish(plan))
}

/// Lets the process's table of open files grow while it has one thread: later the kernel waits for all CPUs
/// each time that it grows (`expand_fdtable` in its `fs/file.c`), and a worker with it.
fn make_room_for_descriptors(plan: &[PlannedWorker]) {
    let connections = plan.iter().map(|worker| worker.max_connections).fold(0, u32::saturating_add);
    let below = plan.iter().map(|worker| worker.aliases_below).min().unwrap_or(0);
    let number = connections.min(MOST_ROOM).min(below).saturating_sub(1);
    // If there is no memory for it, it grows when it must.
    let _ = rustix::io::fcntl_dupfd_cloexec(io::stdin(), number.cast_signed());
}

pub(crate) fn no_thread(what: &str, error: &io::Error) -> anyhow::Error {
    let hint = "; raise the limits of processes and of memory (ulimit -u, ulimit -v, TasksMax=)";
    let hint = if Errno::from_io_error(error) == Some(Errno::AGAIN) { hint } else { "" };
    anyhow!("{what}: {}{hint}", describe(error))
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
        let on_node = self.numa;
        let body = move || -> Result<()> {
            affinity::pin(cpu).with_context(|| format!("pin a thread to CPU {cpu}"))?;
            if on_node {
                numa::bind(cpu).map_err(|error| {
                    anyhow!("bind memory to the NUMA node of the core (--numa): {}", describe(&error))
                })?;
            }
            let ready = || {
                let (go, started) = sync_channel(1);
                // The main thread says so when the listeners listen, and drops `go` if it gives up.
                let thread = gettid().as_raw_nonzero().get().unsigned_abs();
                let _ = sender.send(Event::Ready(cpu, thread, go));
                started.recv().is_ok()
            };
            match work {
                Work::Tcp(settings, listeners) => {
                    worker::run(&settings, listeners, &control, &wake, &counters, ready)?;
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
            .map_err(|error| no_thread(&format!("start the thread of core {cpu}"), &error))?;
        self.workers += 1;
        Ok(())
    }

    /// Lets the listeners go, to be steered otherwise if need be. The workers have descriptors of their own.
    fn watch(
        &mut self,
        config: &Config,
        plan: &[PlannedWorker],
        listeners: Listeners,
        sender: Sender<Event>,
    ) -> Result<()> {
        let steered = config.accept == AcceptModel::PerCore && config.steer == Steer::Auto;
        if steered && plan.len() > 1 {
            let tell = move |note| _ = sender.send(Event::Note(note));
            let what = if config.udp { "datagrams" } else { "connections" };
            let watch = SteerAuto::start(listeners, self.cores(plan), what, tell);
            let watch = watch.map_err(|error| no_thread("start the thread of --steer auto", &error))?;
            self.steering = Some(watch);
        }
        Ok(())
    }

    /// The workers are to close their listeners.
    fn drain(&mut self, phase: Phase) {
        self.steering = None;
        self.control.set(phase, &self.wakes);
    }

    /// Starts what shows the counters while they are counted.
    fn show(&mut self, config: &Config, plan: &[PlannedWorker], endpoint: Option<Endpoint>) -> Result<()> {
        let cores = self.cores(plan);
        if let Some(endpoint) = endpoint {
            let address = endpoint.address();
            self.metrics = Some(endpoint.serve(cores.clone(), Arc::clone(&self.control))?);
            self.notify(Notice::Metrics(address));
        }
        self.live_table =
            config.stats_interval.map(|interval| LiveTable::start(interval, cores)).transpose()?;
        Ok(())
    }

    fn cores(&self, plan: &[PlannedWorker]) -> Vec<LiveCore> {
        let core = |(worker, counters): (&PlannedWorker, &Arc<LiveCounters>)| LiveCore {
            cpu: worker.cpu,
            max_connections: worker.max_connections,
            spill: worker.spill,
            counters: Arc::clone(counters),
        };
        plan.iter().zip(&self.counters).map(core).collect()
    }

    /// Tells the caller, who may write to stderr.
    fn notify(&mut self, notice: Notice) {
        self.live_table.iter().for_each(LiveTable::leave);
        (self.notify)(notice);
    }

    /// Waits until every worker is set up; `None` if one failed or a signal came first.
    fn wait_until_ready(&mut self) -> Option<Vec<SyncSender<()>>> {
        let mut waiting = Vec::new();
        while waiting.len() < self.workers && self.control.phase() == Phase::Run {
            waiting.extend(self.next_event());
        }
        (self.control.phase() == Phase::Run).then_some(waiting)
    }

    /// Takes one event, or looks after the workers' threads if none comes. Gives the worker that is ready, if
    /// that is what happened.
    fn next_event(&mut self) -> Option<SyncSender<()>> {
        match self.events.recv_timeout(pins::TICK) {
            Err(RecvTimeoutError::Disconnected) => unreachable!("the signal thread keeps a sender"),
            Err(RecvTimeoutError::Timeout) => {
                self.pins.keep().into_iter().for_each(|note| self.notify(Notice::Note(note)));
            }
            Ok(Event::Ready(cpu, thread, worker)) => {
                self.pins.add(cpu, thread);
                return Some(worker);
            }
            Ok(Event::Signal) => self.stop(),
            Ok(Event::Ended(core, result)) => {
                self.workers -= 1;
                self.pins.remove(core);
                if let Err(error) = result {
                    self.failed = true;
                    self.notify(Notice::Failed(error.context(format!("core {core}"))));
                    self.drain(Phase::Drain);
                }
            }
            Ok(Event::Note(note)) => self.notify(Notice::Note(note)),
        }
        None
    }

    /// The first signal drains, the second closes everything.
    fn stop(&mut self) {
        self.signals += 1;
        self.drain(if self.signals == 1 { Phase::Drain } else { Phase::Stop });
    }

    /// Waits for all workers.
    fn finish(mut self, plan: &[PlannedWorker]) -> Outcome {
        while self.workers > 0 {
            drop(self.next_event());
        }
        let report = self.cores(plan).iter().map(CoreReport::read).collect();
        Outcome { report: Some(Report::new(report)), failed: self.failed }
    }
}
