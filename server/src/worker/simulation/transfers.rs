//! What receives and sends do in the simulated kernel.

use rustix::io::Errno;

use super::armed::{Armed, Send};
use super::kernel::SimulatedKernel;
use super::requests::{completion, number};
use super::world::PeerId;
use crate::worker::buffers::Group;
use crate::worker::kernel::{Completion, Manner, When};
use crate::worker::memory::Memory;
use crate::worker::token::{BufferId, ConnectionId, Descriptor, Token};

impl SimulatedKernel {
    pub(super) fn issue_receive(&mut self, id: ConnectionId, descriptor: Descriptor, memory: &mut Memory) {
        let socket = self.socket_of(id, descriptor);
        if !self.has_buffer(Group::Small, memory) {
            self.seen.no_buffers += 1;
            return self.post(completion(Some(Token::Receive(id)), Err(Errno::NOBUFS)));
        }
        let credit = self.limits.credit.unwrap_or(usize::MAX);
        let group = Group::Small;
        self.arm(Armed::Receive { id, socket, group, credit, cancelled: false }, memory);
    }

    /// `When::Now` runs at once; else it does when there is something, or by mistake when there is nothing.
    pub(super) fn issue_receive_large(
        &mut self,
        id: ConnectionId,
        descriptor: Descriptor,
        when: When,
        memory: &mut Memory,
    ) {
        let socket = self.socket_of(id, descriptor);
        let receive = Armed::Receive { id, socket, group: Group::Large, credit: 0, cancelled: false };
        match when {
            When::Now => self.advance_large(receive, memory),
            When::Readable if self.one_in(4) => self.advance_large(receive, memory),
            When::Readable => self.arm(receive, memory),
        }
    }

    fn advance_large(&mut self, receive: Armed, memory: &mut Memory) {
        self.armed.push(receive);
        self.advance(self.armed.len() - 1, memory);
    }

    fn has_buffer(&self, group: Group, memory: &Memory) -> bool {
        memory.buffers(group).is_published(self.heads[group as usize])
    }

    pub(super) fn receive_large(
        &mut self,
        id: ConnectionId,
        socket: PeerId,
        cancelled: bool,
        memory: &mut Memory,
    ) {
        let token = Some(Token::Receive(id));
        let now = self.world().now;
        let pending = self.world().sockets[socket].incoming.len();
        let readable = self.world().sockets[socket].is_readable();
        if cancelled && (!readable || !self.one_in(3)) {
            return self.post(completion(token, Err(Errno::CANCELED)));
        }
        // It takes a buffer before it looks at the socket.
        if !self.has_buffer(Group::Large, memory) {
            self.seen.large_awaited += 1;
            return self.post(completion(token, Err(Errno::NOBUFS)));
        }
        if !readable {
            self.seen.needless_turns += 1;
            return self.armed.push(Armed::Receive { id, socket, group: Group::Large, credit: 0, cancelled });
        }
        if pending == 0 {
            return self.end_receive(token, socket, Group::Large, memory);
        }
        self.seen.large_receives += 1;
        let length = self.up_to(pending.min(memory.buffers(Group::Large).size()));
        let bytes = self.world().sockets[socket].receive(length, now);
        let buffer = self.fill(Group::Large, &bytes, memory);
        let left_some = length < pending;
        self.post(Completion { buffer, left_some, ..completion(token, Ok(number(length))) });
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
            if !self.has_buffer(Group::Small, memory) {
                self.seen.no_buffers += 1;
                return self.post(completion(token, Err(Errno::NOBUFS)));
            }
            let pending = self.world().sockets[socket].incoming.len();
            if pending == 0 {
                return self.end_receive(token, socket, Group::Small, memory);
            }
            let room = memory.buffers(Group::Small).size();
            let length = self.up_to(pending.min(room).min(credit));
            let bytes = self.world().sockets[socket].receive(length, now);
            let buffer = self.fill(Group::Small, &bytes, memory);
            credit -= length;
            let more = credit > 0 && !self.one_in(16);
            let left_some = length < pending;
            let result = completion(token, Ok(number(length)));
            if !self.post_multishot(Completion { more, buffer, left_some, ..result }) {
                return;
            }
        }
        self.armed.push(Armed::Receive { id, socket, group: Group::Small, credit, cancelled });
    }

    /// Receives into the next buffer of a group, which has one.
    fn fill(&mut self, group: Group, bytes: &[u8], memory: &mut Memory) -> Option<BufferId> {
        let head = &mut self.heads[group as usize];
        let buffer = memory.receive(group, *head, bytes);
        *head = head.wrapping_add(1);
        buffer
    }

    /// The end of the stream or an error: without a buffer, or, as if the kernel had taken one before it
    /// looked, with.
    fn end_receive(&mut self, token: Option<Token>, socket: PeerId, group: Group, memory: &mut Memory) {
        let buffer = if self.one_in(8) { self.fill(group, b"?", memory) } else { None };
        let reset = self.world().sockets[socket].reset;
        let result = if reset { Err(Errno::CONNRESET) } else { Ok(0) };
        self.post(Completion { buffer, ..completion(token, result) });
    }

    pub(super) fn issue_send(&mut self, send: Send, memory: &mut Memory) {
        send.check(memory);
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
