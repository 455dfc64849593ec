//! What each request does in the simulated kernel.

use std::os::fd::RawFd;

use rustix::io::Errno;

use super::armed::{Armed, Work, token};
use super::kernel::{FIRST_RING, SimulatedKernel};
use super::socket::{Life, Socket};
use super::world::{Mail, PeerId, World};
use crate::worker::kernel::{Completion, Listener, Request};
use crate::worker::memory::Memory;
use crate::worker::token::{Descriptor, Token};

pub(super) fn completion(token: Option<Token>, result: Result<u32, Errno>) -> Completion {
    Completion { token, result, more: false, buffer: None, left_some: false, notification: false }
}

pub(super) fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the simulation is small")
}

impl World {
    /// Accepts a connection as the lowest free plain descriptor.
    pub(super) fn open_plain(&mut self, id: PeerId) -> u32 {
        self.accept(id);
        self.add_plain(id)
    }

    /// Another descriptor of a connection that has a direct one.
    fn add_alias(&mut self, id: PeerId) -> u32 {
        let number = self.add_plain(id);
        let before = self.sockets[id].alias.replace(number);
        assert_eq!(before, None, "peer {id}: two plain descriptors");
        number
    }

    /// The lowest number is that of stdin.
    fn add_plain(&mut self, id: PeerId) -> u32 {
        let free = self.plain.iter().position(Option::is_none).unwrap_or(self.plain.len());
        if free == self.plain.len() {
            self.plain.push(None);
        }
        self.plain[free] = Some(id);
        number(free + 1)
    }

    fn accept(&mut self, id: PeerId) {
        let now = self.now;
        let socket = &mut self.sockets[id];
        assert_eq!(socket.life, Life::Queued);
        socket.life = Life::Open;
        socket.active = now;
        self.events += 1;
    }
}

impl SimulatedKernel {
    pub(super) fn issue(&mut self, work: Work, memory: &mut Memory) {
        match work {
            Work::Send(send) => self.issue_send(send, memory),
            Work::Request(request) => match request {
                Request::AcceptMultishot(Listener { descriptor, .. })
                | Request::AcceptOne(Listener { descriptor, .. }) => {
                    let listener = self.listener(descriptor);
                    let token = token(&request).expect("has one");
                    self.arm(Armed::Accept { token, listener, cancelled: false }, memory);
                }
                Request::CancelAccepts(listener) => self.cancel_accepts(listener),
                Request::PollWake(_) => self.arm(Armed::Wake, memory),
                Request::Receive(id, descriptor, credit) => {
                    self.issue_receive(id, descriptor, credit, memory);
                }
                Request::Watch(id, descriptor) => {
                    let socket = self.socket_of(id, descriptor);
                    self.arm(Armed::Watch { id, socket, cancelled: false }, memory);
                }
                Request::Cancel(_, target) => self.cancel(token(&request), target, memory),
                // Sockets have no `flush`: they are closed when the kernel takes the request (`io_close()`).
                Request::Close(..) => self.execute(request),
                _ if self.one_in(4) => self.armed.push(Armed::Later(request)),
                _ => self.execute(request),
            },
        }
    }

    /// Does it at once if it is ready, mostly; else it waits.
    pub(super) fn arm(&mut self, armed: Armed, memory: &mut Memory) {
        self.armed.push(armed);
        let last = self.armed.len() - 1;
        if self.is_ready(last) && !self.one_in(4) {
            self.advance(last, memory);
        }
    }

    pub(super) fn is_ready(&self, index: usize) -> bool {
        let world = self.world();
        match &self.armed[index] {
            Armed::Accept { cancelled: true, .. }
            | Armed::Receive { cancelled: true, .. }
            | Armed::Watch { cancelled: true, .. }
            | Armed::Send { cancelled: true, .. }
            | Armed::Later(_) => true,
            Armed::Accept { listener, .. } => !world.listeners[*listener].waiting.is_empty(),
            Armed::Wake => world.wakes[self.worker],
            Armed::Mail => world.mailboxes[self.worker].as_ref().is_some_and(|mail| !mail.is_empty()),
            Armed::Receive { socket, .. } | Armed::Watch { socket, .. } => {
                world.sockets[*socket].is_readable()
            }
            Armed::Send { send, .. } => {
                let socket = &world.sockets[send.socket];
                socket.room() > 0 || socket.reset
            }
            Armed::Notification { send, position } => {
                let Socket { acknowledged, reset, .. } = &world.sockets[send.socket];
                acknowledged >= position || *reset || world.peers[send.socket].reset
            }
        }
    }

    /// Runs a request that is ready.
    pub(super) fn advance(&mut self, index: usize, memory: &mut Memory) {
        let armed = self.armed.swap_remove(index);
        match armed {
            Armed::Accept { token, listener, cancelled } => self.accept(token, listener, cancelled),
            Armed::Wake => self.post(completion(Some(Token::Wake), Ok(1))),
            Armed::Mail => self.take_mail(),
            Armed::Receive { id, socket, credit, cancelled } => {
                self.receive(id, socket, credit, cancelled, memory);
            }
            Armed::Watch { id, socket, cancelled } => self.watch(id, socket, cancelled),
            Armed::Send { send, cancelled } => self.advance_send(send, cancelled, memory),
            Armed::Notification { send, .. } => {
                send.check(memory);
                self.seen.notifications += 1;
                let result = Ok(number(self.below(2)));
                self.post(Completion {
                    notification: true,
                    ..completion(Some(Token::Send(send.id)), result)
                });
            }
            Armed::Later(request) => self.execute(request),
        }
    }

    fn take_mail(&mut self) {
        self.armed.push(Armed::Mail);
        let worker = self.worker;
        let mail = self.world().mailboxes[worker].as_mut().and_then(std::collections::VecDeque::pop_front);
        self.post(match mail.expect("it is ready") {
            Mail::Connection(number) => completion(Some(Token::TakeOver), Ok(number)),
            Mail::Room => completion(Some(Token::Room), Ok(0)),
        });
    }

    pub(super) fn accept_error(&mut self) -> Option<Errno> {
        let error = self.one_in(24).then(|| {
            // ENFILE is what a full table of direct descriptors gives; the worker must not let it come to
            // that.
            let errors =
                [Errno::CONNABORTED, Errno::MFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INTR, Errno::PERM];
            errors[self.below(errors.len())]
        });
        self.seen.accept_errors += u64::from(error.is_some());
        error
    }

    fn accept(&mut self, token: Token, listener: usize, cancelled: bool) {
        if cancelled {
            return self.post(completion(Some(token), Err(Errno::CANCELED)));
        }
        loop {
            if let Some(errno) = self.accept_error() {
                return self.post(completion(Some(token), Err(errno)));
            }
            let waiting = self.world().listeners[listener].waiting.pop_front();
            let Some(id) = waiting else { break };
            let descriptor = self.open(id);
            if !matches!(token, Token::Accept(_)) {
                return self.post(completion(Some(token), Ok(descriptor)));
            }
            self.seen.multishot_accepts += 1;
            let more = !self.one_in(16);
            if !self.post_multishot(Completion { more, ..completion(Some(token), Ok(descriptor)) }) {
                return;
            }
            if self.one_in(8) {
                break;
            }
        }
        self.armed.push(Armed::Accept { token, listener, cancelled: false });
    }

    fn open(&mut self, id: PeerId) -> u32 {
        if self.limits.direct.is_none() {
            return self.world().open_plain(id);
        }
        let free = self.direct.iter().position(Option::is_none);
        let free = free.expect("ENFILE: the table of direct descriptors is full, a connection is lost");
        self.direct[free] = Some(id);
        self.world().accept(id);
        number(free)
    }

    fn cancel_accepts(&mut self, listener: Listener) {
        let own = self.listener(listener.descriptor);
        let mut hit = 0;
        for index in 0..self.armed.len() {
            let escapes = self.one_in(8);
            if let Armed::Accept { listener, cancelled, .. } = &mut self.armed[index]
                && *listener == own
                && !escapes
            {
                *cancelled = true;
                hit += 1;
            }
        }
        self.post(completion(Some(Token::CancelAccept(listener.index)), Ok(hit)));
    }

    /// The answer is how many it hit, those that are under way and go on among them: as the worker asks there
    /// is no EALREADY (`__io_async_cancel` in the kernel's `io_uring/cancel.c`, with
    /// `IORING_ASYNC_CANCEL_ALL`).
    fn cancel(&mut self, answer: Option<Token>, target: Token, memory: &mut Memory) {
        let mut result = Ok(1);
        let found = self.armed.iter().position(|armed| armed.token() == Some(target));
        match (found, self.below(8)) {
            (None, choice) => {
                self.seen.cancels_missed += 1;
                result = if choice == 7 { Err(Errno::NOENT) } else { Ok(0) };
            }
            (Some(_), 6) => {
                self.seen.cancels_escaped += 1;
                result = Ok(0);
            }
            (Some(index), 5) if self.is_ready(index) => {
                // It is done before the cancel comes to it, but was counted.
                self.advance(index, memory);
                let left = self.armed.iter_mut().find(|armed| armed.token() == Some(target));
                left.and_then(Armed::cancelled).into_iter().for_each(|cancelled| *cancelled = true);
            }
            (Some(index), choice) => {
                self.seen.cancels_hit += 1;
                *self.armed[index].cancelled().expect("receives and sends") = true;
                if choice == 4 {
                    self.advance(index, memory); // its end before the answer
                }
            }
        }
        self.post(completion(answer, result));
    }

    pub(super) fn count_unsent(&self, id: PeerId) -> Result<u32, Errno> {
        let socket = &self.world().sockets[id];
        if socket.reset { Err(Errno::NOTCONN) } else { Ok(number(socket.unacknowledged())) }
    }

    /// What needs no waiting.
    fn execute(&mut self, request: Request) {
        let mut result = Ok(0);
        match request {
            Request::Shutdown(id, descriptor) => {
                let peer = self.socket_of(id, descriptor);
                self.world().sockets[peer].shut = true;
            }
            Request::ResetOnClose(id, direct) => {
                let peer = self.socket_of(id, Descriptor::Direct(direct));
                self.world().sockets[peer].reset_on_close = true;
            }
            Request::Close(id, descriptor) => {
                self.socket_of(id, descriptor);
                return self.close(descriptor);
            }
            Request::LookForUnsent(id, direct) => {
                let peer = self.socket_of(id, Descriptor::Direct(direct));
                result = self.count_unsent(peer);
            }
            Request::LookForCpu(_, id, direct) => {
                self.socket_of(id, Descriptor::Direct(direct));
            }
            Request::Install(id, direct) => {
                let peer = self.socket_of(id, Descriptor::Direct(direct));
                result = if self.one_in(8) { Err(Errno::MFILE) } else { Ok(self.world().add_alias(peer)) };
            }
            Request::HandOver { ring, number, .. } => {
                return self.deliver(ring, Mail::Connection(number), token(&request));
            }
            Request::TellOfRoom(ring) => return self.deliver(ring, Mail::Room, token(&request)),
            _ => unreachable!("{request:?} is issued elsewhere"),
        }
        self.post(completion(token(&request), result));
    }

    fn deliver(&mut self, ring: RawFd, mail: Mail, token: Option<Token>) {
        let member = usize::try_from(ring - FIRST_RING).expect("a ring");
        let fails = self.one_in(8);
        let reaches = !fails && self.world().mailboxes[member].is_some();
        if reaches {
            self.world().mailboxes[member].as_mut().expect("there").push_back(mail);
            self.seen.handed_over += u64::from(mail != Mail::Room);
        } else {
            self.post(completion(token, Err(Errno::BADF)));
        }
    }

    pub(super) fn close(&mut self, descriptor: Descriptor) {
        let peer = self.socket(descriptor);
        match descriptor {
            Descriptor::Direct(number) => self.direct[number as usize] = None,
            Descriptor::Plain(number) => self.world().plain[number as usize - 1] = None,
        }
        let mut world = self.world();
        let alias = world.sockets[peer].alias;
        if alias.is_some() {
            assert_eq!(
                alias.map(Descriptor::Plain),
                Some(descriptor),
                "peer {peer}: its FIN waits for the other"
            );
            world.sockets[peer].alias = None;
        } else {
            world.close(peer);
        }
    }
}
