//! Drives workers through the simulation, turn by turn, and checks them after each.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use super::armed::Armed;
use super::case::Case;
use super::kernel::SimulatedKernel;
use super::seen::Seen;
use super::socket::{Life, Wait};
use super::world::World;
use crate::config::Mode;
use crate::control::{self, Control, Phase};
use crate::stats::{Counters, LiveCounters};
use crate::worker::Worker;
use crate::worker::accepting::reserve;
use crate::worker::buffers::Pages;
use crate::worker::connection::Step;
use crate::worker::memory::Memory;
use crate::worker::spill::Spill;

/// Far more turns than any case takes.
const MOST_TURNS: usize = 100_000;

/// What became of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Of all workers.
    pub(super) counters: Counters,
    pub(super) seen: Seen,
    /// The most bytes that were received from a peer and not sent to it.
    pub(super) most_queued: u64,
    /// Bytes that each peer got.
    pub(super) read: Vec<u64>,
}

impl Case {
    /// Runs it to its end.
    pub(super) fn run(&self) -> Outcome {
        let world = Rc::new(RefCell::new(self.world()));
        let counters: Vec<Arc<LiveCounters>> = (0..self.workers).map(|_| Arc::default()).collect();
        let settings = self.settings(&counters);
        let mut memories: Vec<Memory> = (0..self.workers).map(|_| self.memory()).collect();
        let (control, wake) = (Control::new(), control::wake().unwrap());
        let mut workers = Vec::new();
        for (index, memory) in memories.iter_mut().enumerate() {
            let listeners = if index == 0 { self.listeners } else { 0 };
            let sockets: Vec<_> = (0..listeners).map(|_| control::wake().unwrap()).collect();
            let known = sockets.iter().map(AsRawFd::as_raw_fd).zip(0..).collect();
            let kernel = SimulatedKernel::new(Rc::clone(&world), index, self.limits(), known);
            let counters = &counters[index];
            let worker = Worker::new(&settings[index], kernel, memory, sockets, &control, &wake, counters);
            workers.push(Some(worker.expect("memory for a few connections")));
        }
        let rooms = workers.iter().flatten().map(rooms).collect();
        let (case, shared, control) = (self, Rc::clone(&world), &control);
        let simulation = Simulation {
            case,
            world: shared,
            control,
            workers,
            rooms,
            rests: vec![false; self.workers],
            quiet: 0,
        };
        let seen = simulation.run();
        let mut world = world.borrow_mut();
        check_end(&mut world, &memories);
        let mut total = Counters::default();
        counters.iter().for_each(|counters| total += counters.read());
        if !world.cut_off {
            assert_eq!(total.bytes_out, world.sockets.iter().map(|socket| socket.sent).sum::<u64>());
        }
        assert_eq!(total.refused, world.refused);
        assert!(total.spill_full == world.given_up || world.cut_off && total.spill_full > world.given_up);
        let most_queued = world.most_queued;
        Outcome {
            counters: total,
            seen,
            most_queued,
            read: world.peers.iter().map(|peer| peer.read).collect(),
        }
    }
}

impl Case {
    fn memory(&self) -> Memory {
        let source = self.mode == Mode::SinkSource;
        let spill = Spill::map(self.spill_bytes()).expect("memory for a few pieces");
        let memory = Memory::map(self.buffers, self.buffer_size, Pages::Small, source, spill);
        memory.expect("memory for a few buffers")
    }
}

/// Panics if anything is left behind.
fn check_end(world: &mut World, memories: &[Memory]) {
    if !world.cut_off {
        for memory in memories {
            assert_eq!((memory.pool().held(), memory.spill_bytes()), (0, 0), "memory lost");
        }
    }
    assert!(world.plain.iter().all(Option::is_none), "a descriptor is left open");
    world.peers.iter_mut().for_each(|peer| peer.pace = None);
    world.pass();
    world.happen_all();
    while world.nudge() {
        world.happen_all();
    }
    for (id, (peer, socket)) in world.peers.iter().zip(&world.sockets).enumerate() {
        assert!(peer.done && socket.life != Life::Open, "peer {id} is left: {peer:?} {socket:?}");
    }
}

struct Simulation<'c, 'r> {
    case: &'c Case,
    world: Rc<RefCell<World>>,
    control: &'c Control,
    workers: Vec<Option<Worker<'r, SimulatedKernel>>>,
    /// What the lists of each had [room](rooms) for at the start.
    rooms: Vec<Vec<usize>>,
    /// Which did not accept when they went to sleep.
    rests: Vec<bool>,
    /// How often nothing happened any more.
    quiet: u32,
}

impl Simulation<'_, '_> {
    fn run(mut self) -> Seen {
        let mut seen = Seen::default();
        for turn in 0.. {
            assert!(turn < MOST_TURNS, "it does not come to an end: {}", self.state());
            self.signal(turn);
            let before = self.world.borrow().events;
            for index in 0..self.workers.len() {
                // After the others' turn, so that what they have handed over is on its way.
                if self.case.fails_at == Some(turn) && index + 1 == self.workers.len() {
                    seen += self.fail();
                }
                let worker = &mut self.workers[index];
                if worker.as_mut().is_some_and(|worker| worker.kernel.sleeps_on(worker.memory)) {
                    continue;
                }
                if worker.as_ref().is_some_and(Worker::is_done) {
                    seen += finish(&worker.take().expect("it was there"));
                } else if let Some(worker) = worker {
                    let rests = worker.rest_until.is_some();
                    worker.turn().expect("no peer and no kernel makes a worker fail");
                    self.rests[index] = rests && worker.kernel.asleep.is_some();
                    check_turn(worker, &self.rooms[index]);
                }
            }
            if self.workers.iter().all(Option::is_none) {
                break;
            }
            let asleep = self.workers.iter().flatten().all(|worker| worker.kernel.asleep.is_some());
            if asleep && self.world.borrow().events == before {
                self.nothing_happens();
            }
        }
        seen
    }

    /// What a failure is understood by.
    fn state(&self) -> String {
        let running = self.workers.iter().flatten();
        let states = running.map(|worker| {
            let acceptors: Vec<_> = worker.listeners.iter().map(|listening| &listening.acceptor).collect();
            let waiting = [worker.newcomers.len(), worker.listed.len(), worker.silent_sends.len()];
            format!(
                "{} open, {} held, {} starved; newcomers, listed, silent: {waiting:?}; {acceptors:?}, rest {:?}, {:?}",
                worker.connections.open_count(),
                worker.memory.pool().held(),
                worker.starved.len(),
                worker.rest_until,
                worker.kernel,
            )
        });
        states.collect::<Vec<_>>().join("\n")
    }

    fn signal(&mut self, turn: usize) {
        if self.case.drain_at == Some(turn) {
            self.tell(Phase::Drain);
        }
        if let (Some(drain), Some(stop)) = (self.case.drain_at, self.case.stop_after)
            && turn == drain + stop
        {
            self.world.borrow_mut().cut_off = true;
            self.tell(Phase::Stop);
        }
    }

    /// The last worker ends though it is not done, and so the others are told to.
    fn fail(&mut self) -> Seen {
        self.world.borrow_mut().cut_off = true;
        let failed = self.workers.last_mut().and_then(Option::take);
        self.tell(Phase::Drain);
        failed.map(|worker| worker.kernel.seen).unwrap_or_default()
    }

    fn tell(&mut self, phase: Phase) {
        self.control.set(phase, &[]);
        let mut world = self.world.borrow_mut();
        world.draining = true;
        world.wakes.fill(true);
        world.events += 1;
    }

    /// All workers sleep and nothing would wake them but time, or a peer that holds the rest up.
    fn nothing_happens(&mut self) {
        let rests = self.rests.contains(&true);
        let running = || self.workers.iter().flatten();
        let until = running().filter_map(|worker| worker.kernel.asleep.flatten()).min();
        let full = match self.case.workers {
            1 => running().all(|worker| worker.connections.free_count() == 0),
            _ => running()
                .all(|worker| worker.settings.crew.as_ref().is_some_and(|(crew, _)| crew.room() == 0)),
        };
        let mut world = self.world.borrow_mut();
        if !world.draining {
            let waiting = world.listeners.iter().any(|listener| !listener.waiting.is_empty());
            assert!(!waiting || full || rests, "clients wait, and slots are free: {}", self.state());
            world.check_quiet();
            for worker in &mut self.workers {
                let connections = worker.iter_mut().flat_map(|worker| worker.connections.iter_mut());
                let mut given_up = connections.filter(|(_, c)| c.has_descriptor() && !c.is_served());
                assert!(given_up.next().is_none(), "a connection was given up and is not closed");
            }
        }
        let over = world.peers.iter().all(|peer| peer.done);
        if over && !world.draining {
            drop(world);
            return self.tell(Phase::Drain);
        }
        world.events += 1;
        // Long enough for an idle timeout to pass; then those go on who hold the rest up.
        self.quiet += 1;
        let nudges = self.quiet.is_multiple_of(16) || world.choices.one_in(2);
        if let Some(until) = until
            && !(nudges && world.nudge())
        {
            world.now = world.now.max(until);
        } else if until.is_none() {
            let nudged = world.nudge();
            assert!(nudged, "sleeps for ever, and something is to be done: {:?}", world.peers);
        }
    }
}

/// How long each list of the worker's may become before it grows. One of several workers may have more
/// connections than its limit, which another could not take: then only what waits to be handed over.
fn rooms(worker: &Worker<'_, SimulatedKernel>) -> Vec<usize> {
    let to_hand_over = worker.to_hand_over.capacity();
    if worker.settings.crew.is_some() {
        return vec![to_hand_over];
    }
    let [entries, free] = worker.connections.rooms();
    let (starved, listed) = (worker.starved.capacity(), worker.listed.capacity());
    let (silent, to_splice) = (worker.silent_sends.capacity(), worker.to_splice.capacity());
    let newcomers = worker.newcomers.capacity();
    vec![entries, free, newcomers, starved, listed, silent, to_splice, to_hand_over]
}

/// Panics if the worker's books are wrong. `at_start`: what its lists had room for then.
fn check_turn(worker: &mut Worker<'_, SimulatedKernel>, at_start: &[usize]) {
    let reserve = reserve(worker.settings.config.overload, worker.kernel.listeners.len());
    let most = (worker.settings.max_connections + reserve) as usize;
    let alone = worker.settings.crew.is_none();
    assert!(!alone || worker.connections.open_count() <= most, "more connections than may be");
    assert_eq!(rooms(worker), at_start, "a list has grown");
    for send in &worker.silent_sends {
        let connection = worker.connections.get(send.id);
        let in_flight = connection.is_some_and(|c| c.is_sending() && c.send_request() == send.request);
        assert!(in_flight, "a send that has ended is to be confirmed");
    }
    if worker.kernel.asleep.is_some() {
        let starves = !worker.starved.is_empty() && worker.memory.pool().free() > 0;
        assert!(!starves, "sleeps while clients wait for free buffers");
        let tight = worker.memory.spill_is_tight();
        // Those that the clock has listed since the enter are asked for in the next turn.
        for (id, connection) in worker.connections.iter_mut().filter(|(_, connection)| !connection.listed) {
            // Of a copy: what it gives is taken as asked. A receive may be armed from before the spill was
            // tight.
            let step =
                connection.clone().next_step(tight).filter(|step| !tight || *step != Step::CancelReceive);
            assert!(step.is_none(), "sleeps, and {id:?} was not asked for {step:?}: {connection:?}");
        }
    }
    assert!(worker.kernel.pipe.is_empty(), "bytes are left in the pipe");
    let spilled = worker.memory.spill_bytes() as u64;
    assert!(spilled <= worker.settings.spill, "more bytes in the spill than may be");
    assert_eq!(worker.counters.spill_bytes.get(), spilled);
    let open: Vec<_> = worker.listeners.iter().map(|listening| listening.socket().as_raw_fd()).collect();
    let mut world = worker.kernel.world();
    world.cut_off |= worker.is_cut_off();
    world.note_queued();
    // Who is being reset was given up before the worker knew that the peer reads again, or in the same turn.
    for socket in world.sockets.iter_mut().filter(|socket| socket.wait == Wait::Known) {
        let (owner, id) = socket.owner.expect("it was sent to");
        if owner == worker.kernel.worker && worker.connections.get(id).is_some_and(|c| c.is_served()) {
            socket.wait = Wait::No;
        }
    }
    for (descriptor, index) in &worker.kernel.listeners {
        world.listeners[*index].about_to_close = false;
        if !open.contains(descriptor) && !world.listeners[*index].closed {
            world.close_listener(*index);
        }
    }
}

/// Panics if a worker that is done leaves something behind.
fn finish(worker: &Worker<'_, SimulatedKernel>) -> Seen {
    if !worker.kernel.world().cut_off {
        assert_eq!(worker.connections.open_count(), 0);
        let left =
            worker.kernel.armed.iter().filter(|armed| !matches!(armed, Armed::Wake | Armed::Mail)).count();
        assert_eq!(left, 0, "requests in flight");
    }
    worker.kernel.seen
}
