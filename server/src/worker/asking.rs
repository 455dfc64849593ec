//! What a worker asks the kernel for before it enters it.

use std::os::fd::AsRawFd;

use super::connection::Step;
use super::connections::note;
use super::kernel::{Kernel, MOST_PIECES, Manner, Request};
use super::operations::RECEIVE_CREDIT;
use super::token::{ConnectionId, Descriptor, Token};
use super::{SilentSend, Worker};

/// Most requests that one connection asks for in one turn: a send, a receive, a cancel and a look.
const MOST_STEPS: usize = 4;

/// How many new connections are begun to be received from in one turn, if there are more; and as many as a
/// quarter of those that want something else. What they bring is sent in the next turn, while it is in the
/// cache.
const LEAST_NEWCOMERS: usize = 16;

impl<K: Kernel> Worker<'_, K> {
    /// Queues the requests that the listeners and the listed connections want, as far as there is room; the
    /// rest in the next turn, which then comes without sleeping.
    pub(super) fn ask(&mut self) {
        let overflowed = self.kernel.has_overflowed();
        self.counters.cq_overflows.add(overflowed.into());
        self.hurry = overflowed || self.kernel.consumed() < self.kernel.queued();
        if self.poll_wake && self.kernel.room() > 0 {
            self.poll_wake = false;
            self.kernel.ask(Request::PollWake(self.wake.as_raw_fd()));
        }
        self.ask_to_accept();
        self.hand_over();
        self.feed_starved();
        self.ask_newcomers();
        self.splice_some();
        // Nobody is listed while being asked.
        let mut asked = 0;
        while asked < self.listed.len() && self.kernel.room() >= MOST_STEPS {
            if let Some(id) = self.connections.unlisted(self.listed[asked]) {
                self.ask_for(id);
            }
            asked += 1;
        }
        self.listed.drain(..asked);
        self.resume_reading();
        let pool = self.memory.pool();
        // Copying for peers that do not read has freed buffers meanwhile. With none free, the completion of
        // what has them wakes the worker up.
        self.hurry |= !self.starved.is_empty() && pool.free() > 0;
        // What silent sends have sent comes back only after the enter: with few buffers left, receives would
        // fail for want of one; while the spill is tight, somebody may wait for it not to be.
        self.hurry |= !self.silent_sends.is_empty() && (pool.few_left() || self.was_tight);
        self.hurry |= !self.listed.is_empty() || !self.to_splice.is_empty() || !self.newcomers.is_empty();
    }

    /// Begins to receive from those who came first; while the server drains, from all.
    fn ask_newcomers(&mut self) {
        let drains = self.drain.is_some();
        let mut left = if drains { usize::MAX } else { LEAST_NEWCOMERS.max(self.listed.len() / 4) };
        while left > 0
            && self.kernel.room() >= MOST_STEPS
            && let Some(id) = self.newcomers.pop_front()
        {
            // It may have been listed since, and asked for, or be gone.
            if self.connections.get(id).is_some_and(|connection| connection.receives_by().is_none()) {
                self.ask_for(id);
                left -= 1;
            }
        }
    }

    /// Once the spill is not tight any more, has those asked who were not read from because it was.
    fn resume_reading(&mut self) {
        if self.was_tight && !self.memory.spill_is_tight() {
            self.was_tight = false;
            for (id, connection) in self.connections.iter_mut() {
                if connection.is_served() && connection.receives_by().is_none() {
                    note(&mut self.listed, id.slot, connection);
                }
            }
        }
    }

    /// Lets as many starved connections receive again as there are buffers for, before those who have had
    /// theirs ask for their next: else a few that stream would take every buffer again and again.
    fn feed_starved(&mut self) {
        let mut free = self.memory.pool().free();
        while free > 0
            && self.kernel.room() >= MOST_STEPS
            && let Some(id) = self.starved.pop_front()
        {
            if let Some(connection) = self.connections.get(id) {
                connection.feed();
                self.ask_for(id);
                free -= 1;
            }
        }
    }

    /// Queues what one connection wants.
    fn ask_for(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let descriptor = connection.descriptor();
        while let Some(connection) = self.connections.get(id) {
            let tight = self.memory.spill_is_tight();
            self.was_tight |= tight;
            let Some(step) = connection.next_step(tight) else { break };
            match step {
                Step::SendNow => self.send(id, Manner::Silent),
                Step::SendWaiting => {
                    let copied = connection.spare_buffers(self.memory);
                    if self.copied(id, copied) {
                        self.send(id, Manner::Waiting);
                    }
                }
                Step::Receive => self.kernel.ask(Request::Receive(id, descriptor, self.credit())),
                Step::Install(number) => self.kernel.ask(Request::Install(id, number)),
                Step::Watch => self.kernel.ask(Request::Watch(id, descriptor)),
                Step::CancelReceive => self.kernel.ask(Request::Cancel(id, Token::Receive(id))),
                Step::CancelSend => self.kernel.ask(Request::Cancel(id, Token::Send(id))),
                Step::Shutdown => self.kernel.ask(Request::Shutdown(id, descriptor)),
                Step::CountUnsent => self.count_unsent(id, descriptor),
                Step::ResetOnClose => self.reset_on_close(id, descriptor),
                Step::Close => {
                    if let Some(alias) = connection.take_alias() {
                        self.kernel.close_now(Descriptor::Plain(alias));
                    }
                    self.kernel.ask(Request::Close(id, descriptor));
                    self.connections.ended(id);
                    self.hurry |= self.awaits_closes();
                }
            }
        }
    }

    /// Bytes that a receive armed now may bring: while the spill is tight no more than fill a buffer, until
    /// it is known whether the peer reads.
    fn credit(&self) -> u32 {
        let size = u32::try_from(self.memory.pool().size()).unwrap_or(u32::MAX);
        if self.memory.spill_is_tight() { size.min(RECEIVE_CREDIT) } else { RECEIVE_CREDIT }
    }

    fn send(&mut self, id: ConnectionId, manner: Manner) {
        let Some(connection) = self.connections.get(id) else { return };
        let spans = connection.queue().spans(MOST_PIECES, self.memory);
        // Its buffers come back when the peer has the bytes: only while enough are left for those who read
        // faster.
        let few_left = self.memory.pool().few_left();
        let manner = match self.settings.config.zerocopy_threshold {
            Some(threshold)
                if !few_left && !connection.must_copy() && connection.queue().bytes() >= threshold.into() =>
            {
                Manner::ZeroCopy
            }
            _ => manner,
        };
        let spans = self.kernel.send(id, connection.descriptor(), spans, self.memory, manner);
        let request = self.kernel.queued();
        connection.send_started(spans, request, self.memory);
        match manner {
            Manner::Silent => {
                self.hurry |= connection.awaits_send();
                self.silent_sends.push(SilentSend { id, request });
            }
            Manner::Waiting => connection.send_waits(),
            Manner::ZeroCopy => {
                connection.send_waits();
                self.counters.zerocopy_sends.add(1);
            }
        }
    }

    fn count_unsent(&mut self, id: ConnectionId, descriptor: Descriptor) {
        match descriptor {
            Descriptor::Plain(number) => self.take_unsent(id, self.kernel.unsent_bytes(number)),
            Descriptor::Direct(number) => self.kernel.ask(Request::LookForUnsent(id, number)),
        }
    }

    fn reset_on_close(&mut self, id: ConnectionId, descriptor: Descriptor) {
        match descriptor {
            Descriptor::Direct(number) => self.kernel.ask(Request::ResetOnClose(id, number)),
            Descriptor::Plain(number) => {
                self.kernel.reset_on_close(number);
                if let Some(connection) = self.connections.get(id) {
                    connection.look_ended();
                }
            }
        }
    }
}
