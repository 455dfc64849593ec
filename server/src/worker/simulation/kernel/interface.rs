//! The simulated ring as a worker sees it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::super::armed::{Send, Work};
use super::super::socket::Wait;
use super::{MOST_RUN, SimulatedKernel};
use crate::worker::kernel::{Completion, Kernel, MOST_PIECES, Manner, Request, Spliced};
use crate::worker::memory::{Memory, Span};
use crate::worker::token::{ConnectionId, Descriptor, Token};

impl Kernel for SimulatedKernel {
    fn room(&self) -> usize {
        self.limits.submissions - self.submissions.len()
    }

    fn ask(&mut self, request: Request) {
        self.check_request(&request);
        self.push(Work::Request(request));
    }

    fn send(
        &mut self,
        id: ConnectionId,
        descriptor: Descriptor,
        spans: impl Iterator<Item = Span> + Clone,
        memory: &Memory,
        manner: Manner,
    ) -> usize {
        // A ring has room for so many vectors.
        let most = if self.one_in(8) { 1 } else { MOST_PIECES };
        let spans: Vec<Span> = spans.take(most).collect();
        let count = spans.len();
        assert!(count > 0, "{id:?}: a send of nothing");
        let socket = self.check_send(id, descriptor);
        self.push(Work::Send(Send::new(id, socket, spans, memory, manner)));
        count
    }

    fn queued(&self) -> u64 {
        self.queued
    }

    fn consumed(&self) -> u64 {
        self.queued - self.submissions.len() as u64
    }

    fn has_overflowed(&self) -> bool {
        !self.overflow.is_empty()
    }

    fn has_caught_up(&mut self) -> bool {
        let ready = (0..self.armed.len()).any(|index| self.is_ready(index));
        !self.has_overflowed() && self.submissions.is_empty() && !ready
    }

    fn enter(&mut self, memory: &mut Memory, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        if std::thread::panicking() {
            return Err(Errno::IO.into());
        }
        self.asleep = None;
        self.check_sends(memory);
        memory.publish();
        let until = timeout.map(|timeout| self.world().now + timeout);
        self.world().pass();
        self.world().happen();
        let sleeps = want > 0 && until.is_none_or(|until| until > self.world().now);
        if self.submit(memory) {
            let most = self.up_to(MOST_RUN).max(want as usize);
            self.run(most, memory);
            if sleeps {
                self.sleep(memory, want, until);
            }
        }
        self.count_spins(sleeps);
        Ok(())
    }

    fn sync_completions(&mut self) -> usize {
        self.taken = 0;
        self.visible = self.posted.len();
        self.visible
    }

    fn next(&mut self) -> Option<Completion> {
        self.visible = self.visible.checked_sub(1)?;
        self.taken += 1;
        self.world().events += 1;
        let completion = self.posted.pop_front()?;
        if let Some(Token::Send(id)) = completion.token
            && !completion.more
        {
            let owner = Some((self.worker, id));
            let mut world = self.world();
            let mut sockets = world.sockets.iter_mut();
            if let Some(socket) = sockets.find(|socket| socket.owner == owner && socket.wait == Wait::Over) {
                socket.wait = Wait::Known;
            }
        }
        Some(completion)
    }

    fn cancel_now(&mut self, request: Token) {
        self.armed.retain(|armed| armed.token() != Some(request));
    }

    fn accepted(&self, number: u32) -> Descriptor {
        if self.limits.direct.is_some() { Descriptor::Direct(number) } else { Descriptor::Plain(number) }
    }

    fn sampled_cpu(&self, _number: u32) -> Option<u32> {
        Some(0)
    }

    fn incoming_cpu(&self, number: u32) -> Option<u32> {
        self.socket(Descriptor::Plain(number));
        Some(0)
    }

    fn unsent_bytes(&self, number: u32) -> Result<u32, Errno> {
        let id = self.socket(Descriptor::Plain(number));
        self.count_unsent(id)
    }

    fn reset_on_close(&mut self, number: u32) {
        let id = self.socket(Descriptor::Plain(number));
        self.world().sockets[id].reset_on_close = true;
    }

    fn most_spliced(&self) -> usize {
        self.limits.splice
    }

    fn splice(&mut self, number: u32) -> Result<Spliced, Errno> {
        self.splice_now(number)
    }

    fn left_over(&mut self, bytes: &mut [u8]) -> usize {
        let length = bytes.len().min(self.pipe.len());
        bytes.iter_mut().zip(self.pipe.drain(..length)).for_each(|(to, byte)| *to = byte);
        length
    }

    fn close_now(&mut self, descriptor: Descriptor) {
        // The ring closes direct descriptors as it goes.
        if !std::thread::panicking() && matches!(descriptor, Descriptor::Plain(_)) {
            self.close(descriptor);
        }
    }

    fn accept_now(&mut self, listener: BorrowedFd<'_>) -> Result<Descriptor, Errno> {
        let listener = self.listener(listener.as_raw_fd());
        if let Some(errno) = self.accept_error() {
            return Err(errno);
        }
        let mut world = self.world();
        let queue = &mut world.listeners[listener];
        let Some(id) = queue.waiting.pop_front() else {
            queue.about_to_close = true;
            return Err(Errno::AGAIN);
        };
        Ok(Descriptor::Plain(world.open_plain(id)))
    }

    fn drops(&self, _listener: BorrowedFd<'_>) -> Option<u32> {
        None
    }

    fn stop_queueing(&mut self, listener: BorrowedFd<'_>) {
        let listener = self.listener(listener.as_raw_fd());
        self.world().listeners[listener].backlog = 0;
    }

    fn take_wake(&mut self, _wake: BorrowedFd<'_>) {
        let worker = self.worker;
        self.world().wakes[worker] = false;
    }

    fn now(&self) -> Instant {
        self.world().now
    }
}
