//! What receives, sends and splices do in the simulated kernel.

use rustix::io::Errno;

use super::armed::{Armed, Send};
use super::kernel::SimulatedKernel;
use super::requests::{completion, number};
use super::socket::Wait;
use super::world::PeerId;
use crate::worker::kernel::{Completion, Manner, Spliced};
use crate::worker::memory::Memory;
use crate::worker::token::{BufferId, ConnectionId, Descriptor, Token};

impl SimulatedKernel {
    pub(super) fn issue_receive(
        &mut self,
        id: ConnectionId,
        descriptor: Descriptor,
        credit: u32,
        memory: &mut Memory,
    ) {
        let socket = self.socket_of(id, descriptor);
        if !self.has_buffer(memory) {
            self.seen.no_buffers += 1;
            return self.post(completion(Some(Token::Receive(id)), Err(Errno::NOBUFS)));
        }
        // Nothing is there and there is no memory to wait for it with (`io_wq_submit_work` in the kernel's
        // `io_uring/io_uring.c`): it ends as if it had been cancelled.
        if !self.world().sockets[socket].is_readable() && self.one_in(32) {
            self.seen.receives_dropped += 1;
            return self.post(completion(Some(Token::Receive(id)), Err(Errno::CANCELED)));
        }
        let credit = self.limits.credit.map_or(usize::MAX, |most| most.min(credit as usize));
        self.arm(Armed::Receive { id, socket, credit, cancelled: false }, memory);
    }

    pub(super) fn watch(&mut self, id: ConnectionId, socket: PeerId, cancelled: bool) {
        let readable = self.world().sockets[socket].is_readable();
        let cancelled = cancelled && (!readable || !self.one_in(3));
        let events = libc::POLLIN | if self.world().sockets[socket].reset { libc::POLLERR } else { 0 };
        let result = if cancelled { Err(Errno::CANCELED) } else { Ok(events.unsigned_abs().into()) };
        self.post(completion(Some(Token::Receive(id)), result));
    }

    pub(super) fn splice_now(&mut self, number: u32) -> Result<Spliced, Errno> {
        let id = self.check_splice(number);
        assert!(self.pipe.is_empty(), "bytes of another connection are in the pipe");
        let pending = self.world().sockets[id].incoming.len();
        let reset = self.world().sockets[id].reset;
        // Or an urgent mark is in the way.
        if pending == 0 || self.one_in(16) {
            self.seen.fruitless_splices += 1;
            let end = if self.one_in(2) { Ok(Spliced { came: 0, gone: 0 }) } else { Err(Errno::AGAIN) };
            return if reset && pending == 0 { Err(self.broken()) } else { end };
        }
        let came = self.up_to(pending.min(self.limits.splice));
        let mut world = self.world();
        let now = world.now;
        let bytes = world.sockets[id].receive(came, now);
        let socket = &world.sockets[id];
        let mut gone = if socket.reset { 0 } else { socket.room().min(came) };
        if world.choices.one_in(8) {
            gone = world.choices.below(gone + 1);
        }
        world.sockets[id].send(&bytes[..gone], now);
        if gone < came {
            world.sockets[id].wait = Wait::Yes;
        }
        world.events += 1;
        drop(world);
        self.pipe.extend(&bytes[gone..]);
        self.seen.splices += 1;
        self.seen.left_over += u64::from(gone < came);
        Ok(Spliced { came, gone })
    }

    fn has_buffer(&self, memory: &Memory) -> bool {
        memory.pool().is_published(self.head)
    }

    pub(super) fn receive(
        &mut self,
        id: ConnectionId,
        socket: PeerId,
        mut credit: usize,
        cancelled: bool,
        memory: &mut Memory,
    ) {
        let token = Some(Token::Receive(id));
        // A cancel that met a receive on its way: first what it brings.
        if cancelled && (!self.world().sockets[socket].is_readable() || !self.one_in(3)) {
            return self.post(completion(token, Err(Errno::CANCELED)));
        }
        for _ in 0..self.up_to(32) {
            let now = self.world().now;
            if !self.world().sockets[socket].is_readable() {
                break;
            }
            if !self.has_buffer(memory) {
                self.seen.no_buffers += 1;
                return self.post(completion(token, Err(Errno::NOBUFS)));
            }
            let pending = self.world().sockets[socket].incoming.len();
            if pending == 0 {
                return self.end_receive(token, socket, memory);
            }
            let room = memory.pool().size();
            let length = self.up_to(pending.min(room).min(credit));
            let bytes = self.world().sockets[socket].receive(length, now);
            let buffer = self.fill(&bytes, memory);
            credit -= length;
            let more = credit > 0 && !self.one_in(16);
            let left_some = length < pending;
            let result = completion(token, Ok(number(length)));
            if !self.post_multishot(Completion { more, buffer, left_some, ..result }) {
                return;
            }
        }
        self.armed.push(Armed::Receive { id, socket, credit, cancelled });
    }

    /// Receives into the next buffer, which there is.
    fn fill(&mut self, bytes: &[u8], memory: &mut Memory) -> Option<BufferId> {
        let buffer = memory.receive(self.head, bytes);
        self.head = self.head.wrapping_add(1);
        buffer
    }

    /// The end of the stream or an error: without a buffer, or, as if the kernel had taken one before it
    /// looked, with.
    fn end_receive(&mut self, token: Option<Token>, socket: PeerId, memory: &mut Memory) {
        let buffer = if self.one_in(8) { self.fill(b"?", memory) } else { None };
        let reset = self.world().sockets[socket].reset;
        let result = if reset { Err(Errno::CONNRESET) } else { Ok(0) };
        self.post(Completion { buffer, ..completion(token, result) });
    }

    pub(super) fn issue_send(&mut self, send: Send, memory: &mut Memory) {
        send.check(memory);
        if send.manner != Manner::Silent {
            self.world().sockets[send.socket].wait = Wait::Yes;
        }
        if send.manner == Manner::ZeroCopy && self.one_in(8) {
            self.seen.zero_copies_refused += 1;
            return self.end_send(send, Err(Errno::NOMEM));
        }
        if send.manner != Manner::Silent {
            self.seen.waiting_sends += 1;
            return self.arm(Armed::Send { send, cancelled: false }, memory);
        }
        let token = Some(Token::Send(send.id));
        if self.world().sockets[send.socket].reset {
            return self.post(completion(token, Err(self.broken())));
        }
        let mut taken = self.world().sockets[send.socket].room().min(send.bytes.len());
        if self.one_in(8) {
            taken = self.below(taken + 1);
        }
        let now = self.world().now;
        self.world().sockets[send.socket].send(&send.bytes[..taken], now);
        if taken < send.bytes.len() {
            self.world().sockets[send.socket].wait = Wait::Yes;
        }
        if taken == 0 {
            self.seen.full_sockets += 1;
            self.post(completion(token, Err(Errno::AGAIN)));
        } else if taken < send.bytes.len() {
            self.seen.short_sends += 1;
            self.post(completion(token, Ok(number(taken))));
        }
    }

    fn broken(&self) -> Errno {
        if self.one_in(2) { Errno::PIPE } else { Errno::CONNRESET }
    }

    pub(super) fn advance_send(&mut self, mut send: Send, cancelled: bool, memory: &mut Memory) {
        send.check(memory);
        let reset = self.world().sockets[send.socket].reset;
        if cancelled || reset {
            let error = if reset { self.broken() } else { Errno::CANCELED };
            let result = if send.done > 0 { Ok(number(send.done)) } else { Err(error) };
            return self.end_send(send, result);
        }
        let left = send.bytes.len() - send.done;
        let most = self.world().sockets[send.socket].room().min(left);
        let now = self.world().now;
        let taken = self.up_to(most);
        self.world().sockets[send.socket].send(&send.bytes[send.done..send.done + taken], now);
        self.world().events += 1;
        send.done += taken;
        if send.done < send.bytes.len() {
            self.armed.push(Armed::Send { send, cancelled });
        } else {
            let result = Ok(number(send.done));
            self.end_send(send, result);
        }
    }

    fn end_send(&mut self, send: Send, result: Result<u32, Errno>) {
        if send.done == send.bytes.len() {
            self.world().sockets[send.socket].wait = Wait::Over;
        }
        // One that never started has no notification.
        let notifies = send.manner == Manner::ZeroCopy && (send.done > 0 || self.one_in(2));
        let token = Some(Token::Send(send.id));
        self.post(Completion { more: notifies, ..completion(token, result) });
        if notifies {
            let position = self.world().sockets[send.socket].sent;
            self.armed.push(Armed::Notification { send, position });
        }
    }
}
