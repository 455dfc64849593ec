//! The simulated ring: submission and completion queue, overflow, and the order in which requests that are
//! ready are run.

mod interface;

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

use super::armed::{Armed, Work};
use super::seen::Seen;
use super::world::World;
use crate::worker::kernel::Completion;
use crate::worker::memory::Memory;
use crate::worker::token::{Descriptor, Token};

/// `IO_LOCAL_TW_DEFAULT_MAX` of the kernel: how many requests that are ready an enter runs, unless it waits
/// for more.
const MOST_RUN: usize = 20;

/// More enters that do not sleep than `--spin-us` of 20 gives, at 1 us each, and than it takes to arm 64
/// accepts of each of two listeners through a submission queue of 5.
const MOST_SPINS: u32 = 256;

/// The first number of a simulated ring's descriptor.
pub(super) const FIRST_RING: RawFd = 1000;

/// How large a ring is, and what it can do.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) submissions: usize,
    pub(super) completions: usize,
    /// Entries of the table of direct descriptors; `None`: descriptors are plain.
    pub(super) direct: Option<usize>,
    /// Bytes that a receive may bring before it ends.
    pub(super) credit: Option<usize>,
    /// Bytes that are spliced at a time.
    pub(super) splice: usize,
}

/// A ring and its worker's part of the kernel.
pub(super) struct SimulatedKernel {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) worker: usize,
    pub(super) limits: Limits,
    /// Raw descriptors of the worker's listeners, and which of the world's they are.
    pub(super) listeners: Vec<(RawFd, usize)>,
    submissions: VecDeque<Work>,
    queued: u64,
    /// Requests that wait.
    pub(super) armed: Vec<Armed>,
    posted: VecDeque<Completion>,
    /// Of those posted, how many the worker may see; and how many it took whose room is not given back.
    visible: usize,
    taken: usize,
    overflow: VecDeque<Completion>,
    pub(super) direct: Vec<Option<usize>>,
    /// The kernel's head in the ring of buffers.
    pub(super) head: u16,
    /// What was spliced out of a socket, which did not take it back.
    pub(super) pipe: Vec<u8>,
    /// The last enter slept, and nothing happened any more; until when it would have slept.
    pub(super) asleep: Option<Option<Instant>>,
    /// Enters in a row that neither slept nor changed anything.
    spins: u32,
    /// [`World::events`] at the end of the last enter.
    counted: u64,
    /// Kinds of what has happened here, to see that the simulation reaches it.
    pub(super) seen: Seen,
}

impl fmt::Debug for SimulatedKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let armed: Vec<_> = self.armed.iter().filter_map(Armed::token).take(8).collect();
        let queues = [self.submissions.len(), self.armed.len(), self.posted.len(), self.overflow.len()];
        write!(f, "queued, armed, posted, overflow: {queues:?}, {armed:?}, {:?}", self.seen)
    }
}

impl SimulatedKernel {
    pub(super) fn new(
        world: Rc<RefCell<World>>,
        worker: usize,
        limits: Limits,
        listeners: Vec<(RawFd, usize)>,
    ) -> Self {
        let direct = vec![None; limits.direct.unwrap_or(0)];
        Self {
            world,
            worker,
            limits,
            listeners,
            submissions: VecDeque::new(),
            queued: 0,
            armed: vec![Armed::Mail],
            posted: VecDeque::new(),
            visible: 0,
            taken: 0,
            overflow: VecDeque::new(),
            direct,
            head: 0,
            pipe: Vec::new(),
            asleep: None,
            spins: 0,
            counted: 0,
            seen: Seen::default(),
        }
    }

    pub(super) fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    pub(super) fn below(&self, n: usize) -> usize {
        self.world().choices.below(n)
    }

    pub(super) fn one_in(&self, n: usize) -> bool {
        self.world().choices.one_in(n)
    }

    pub(super) fn up_to(&self, most: usize) -> usize {
        self.world().choices.up_to(most)
    }

    /// Posts a request's last completion.
    pub(super) fn post(&mut self, completion: Completion) {
        self.world().events += 1;
        if self.is_full() {
            self.seen.overflows += 1;
            self.overflow.push_back(completion);
        } else {
            self.posted.push_back(completion);
        }
    }

    /// Posts a completion of a multishot request; false if that ends it, because the queue is full.
    pub(super) fn post_multishot(&mut self, completion: Completion) -> bool {
        let stays = completion.more && !self.is_full();
        self.seen.cut_short += u64::from(completion.more && !stays);
        self.post(Completion { more: stays, ..completion });
        stays
    }

    fn is_full(&self) -> bool {
        !self.overflow.is_empty() || self.posted.len() + self.taken >= self.limits.completions
    }

    /// True if a completion of this request waits to be seen by the worker.
    pub(super) fn is_unseen(&self, matches: impl Fn(Token) -> bool) -> bool {
        let mut completions = self.posted.iter().chain(&self.overflow);
        completions.any(|completion| !completion.notification && completion.token.is_some_and(&matches))
    }

    /// Requests that the worker has asked for and the kernel has not taken.
    pub(super) fn unsubmitted(&self) -> impl Iterator<Item = &Work> {
        self.submissions.iter()
    }

    fn push(&mut self, work: Work) {
        assert!(self.submissions.len() < self.limits.submissions, "no room was left");
        self.submissions.push_back(work);
        self.queued += 1;
    }

    /// Takes what is queued, or a part of it. False if a part is left.
    fn submit(&mut self, memory: &mut Memory) -> bool {
        let mut left = 0;
        if self.one_in(10) {
            // EAGAIN, or EBUSY as long as completions wait.
            left = self.up_to(self.submissions.len().max(1)).min(self.submissions.len());
            self.seen.partial_submissions += u64::from(left > 0);
        }
        while self.submissions.len() > left {
            let work = self.submissions.pop_front().expect("not empty");
            self.world().events += 1;
            self.issue(work, memory);
            if self.one_in(8) {
                self.world().happen();
            }
        }
        left == 0
    }

    /// Runs requests that are ready, at most `most`.
    fn run(&mut self, most: usize, memory: &mut Memory) {
        for _ in 0..most {
            let ready: Vec<usize> = (0..self.armed.len()).filter(|&index| self.is_ready(index)).collect();
            if ready.is_empty() {
                break;
            }
            let chosen = ready[self.below(ready.len())];
            self.advance(chosen, memory);
        }
        self.flush();
    }

    /// Moves what waits outside the completion queue into it.
    fn flush(&mut self) {
        while self.posted.len() + self.taken < self.limits.completions
            && let Some(completion) = self.overflow.pop_front()
        {
            self.posted.push_back(completion);
        }
    }

    fn sleep(&mut self, memory: &mut Memory, want: u32, until: Option<Instant>) {
        let most = MOST_RUN.max(want as usize);
        while self.posted.len() < want as usize {
            // EINTR, or nobody knows why.
            if self.one_in(12) {
                return;
            }
            let before = self.world().events;
            self.world().happen();
            if self.world().events == before {
                self.world().happen_all();
            }
            self.run(most, memory);
            if self.world().events == before {
                self.asleep = Some(until);
                return;
            }
        }
    }

    /// The worker sleeps on, if it sleeps: nothing of its own runs. False if it has been woken up.
    pub(super) fn sleeps_on(&mut self, memory: &mut Memory) -> bool {
        let Some(until) = self.asleep.take() else { return false };
        self.world().pass();
        self.world().happen();
        if until.is_none_or(|until| until > self.world().now) {
            self.run(MOST_RUN, memory);
            self.sleep(memory, 1, until);
        }
        self.asleep.is_some()
    }

    /// The kernel may read at any time from what it has been given to send, until the send has ended.
    fn check_sends(&self, memory: &Memory) {
        let queued = self.submissions.iter().filter_map(|work| match work {
            Work::Send(send) => Some(send),
            Work::Request(_) => None,
        });
        queued.chain(self.armed.iter().filter_map(Armed::send)).for_each(|send| send.check(memory));
    }

    fn count_spins(&mut self, sleeps: bool) {
        let events = self.world().events;
        let before = std::mem::replace(&mut self.counted, events);
        let quiet = !sleeps && events == before && self.world().choices.is_over();
        self.spins = if quiet { self.spins + 1 } else { 0 };
        assert!(
            self.spins < MOST_SPINS,
            "the worker spins: it does not sleep, and nothing happens; {} wait outside the completion queue, \
             {} armed",
            self.overflow.len(),
            self.armed.len()
        );
    }
}

impl Drop for SimulatedKernel {
    /// The ring goes, and its direct descriptors with it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let worker = self.worker;
            self.world().mailboxes[worker] = None;
            for number in 0..self.direct.len() {
                if self.direct[number].is_some() {
                    self.close(Descriptor::Direct(u32::try_from(number).expect("a small table")));
                }
            }
        }
    }
}
