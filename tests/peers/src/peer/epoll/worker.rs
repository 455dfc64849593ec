//! The loop of one core: wait, accept, advance what is ready.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::Trigger;
use super::connection::{Buffers, Connection, Progress};
use crate::peer::Mode;

/// Events taken from the kernel at once.
const EVENTS: usize = 512;

/// How long nothing is accepted when there are no descriptors, unless a connection ends before.
const PAUSE: Duration = Duration::from_millis(100);

/// The name of the listener among the events. Connections have the number of their descriptor.
const LISTENER: u64 = u64::MAX;

/// What a worker is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) trigger: Trigger,
    /// Bytes of the receive buffer.
    pub(crate) buffer_size: usize,
}

/// One core's listener, epoll and connections.
pub(crate) struct Worker {
    settings: Settings,
    listener: OwnedFd,
    epoll: OwnedFd,
    /// The listener is not watched, because there were no descriptors.
    paused: bool,
    /// By the number of the descriptor. An event can't be that of an older connection of the same number: a
    /// connection is closed at its own event, and has one in a batch.
    connections: Vec<Option<Connection>>,
    buffers: Buffers,
}

impl Worker {
    pub(crate) fn new(listener: OwnedFd, settings: Settings) -> anyhow::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("epoll_create1")?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).context("epoll_ctl")?;
        let buffers = Buffers::new(settings.buffer_size);
        Ok(Self { settings, listener, epoll, paused: false, connections: Vec::new(), buffers })
    }

    /// Serves. Comes back only with an error.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let pause = Timespec::try_from(PAUSE).context("the pause")?;
        loop {
            events.clear();
            let timeout = self.paused.then_some(&pause);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(0) => self.pause(false)?,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("epoll_wait"),
            }
            for &Event { flags, data } in &events {
                match data.u64() {
                    LISTENER => self.accept()?,
                    number => self.advance(number, flags)?,
                }
            }
        }
    }

    /// Accepts all that wait.
    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
                Ok(socket) if self.settings.mode != Mode::Echo => drop(socket),
                Ok(socket) => self.add(socket)?,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.pause(true),
                // accept(2): errors of the connection, and what is to be treated like them.
                Err(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => {
                    anyhow::bail!("accept4: the listener is gone")
                }
                Err(_) => {}
            }
        }
    }

    fn add(&mut self, socket: OwnedFd) -> anyhow::Result<()> {
        let number = usize::try_from(socket.as_raw_fd()).context("a descriptor is not negative")?;
        let data = EventData::new_u64(number as u64);
        match epoll::add(&self.epoll, &socket, data, interest(self.settings.trigger, false)) {
            Ok(()) => {}
            Err(Errno::NOMEM | Errno::NOSPC) => return Ok(()), // fs.epoll.max_user_watches: this connection is closed
            Err(errno) => return Err(errno).context("epoll_ctl"),
        }
        if number >= self.connections.len() {
            self.connections.resize_with(number + 1, || None);
        }
        self.connections[number] = Some(Connection::new(socket));
        Ok(())
    }

    fn advance(&mut self, number: u64, flags: EventFlags) -> anyhow::Result<()> {
        let slot = usize::try_from(number).context("the number of a descriptor")?;
        let Some(connection) = self.connections[slot].as_mut() else { return Ok(()) };
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let was_blocked = connection.is_blocked();
        if was_blocked && !flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            return Ok(()); // more to read, which waits until what is pending has gone
        }
        let progress = connection.advance(&mut self.buffers, ended);
        let again = match (self.settings.trigger, progress) {
            (_, Progress::Ended) => {
                self.connections[slot] = None; // closes it, which takes it out of the epoll
                return if self.paused { self.pause(false) } else { Ok(()) };
            }
            // Changing what is watched, even to the same, has epoll look again and tell if there is
            // something.
            (Trigger::Edge, Progress::More) => true,
            (Trigger::Edge, _) => false,
            (Trigger::Level, progress) => (progress == Progress::Blocked) != was_blocked,
        };
        if again {
            let interest = interest(self.settings.trigger, progress == Progress::Blocked);
            epoll::modify(&self.epoll, &*connection, EventData::new_u64(number), interest)
                .context("epoll_ctl")?;
        }
        Ok(())
    }

    /// Stops or goes on to watch the listener.
    fn pause(&mut self, pause: bool) -> anyhow::Result<()> {
        let interest = if pause { EventFlags::empty() } else { EventFlags::IN };
        epoll::modify(&self.epoll, &self.listener, EventData::new_u64(LISTENER), interest)
            .context("epoll_ctl")?;
        self.paused = pause;
        Ok(())
    }
}

/// What is watched of a connection.
fn interest(trigger: Trigger, blocked: bool) -> EventFlags {
    match (trigger, blocked) {
        (Trigger::Edge, _) => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        (Trigger::Level, false) => EventFlags::IN | EventFlags::RDHUP,
        (Trigger::Level, true) => EventFlags::OUT,
    }
}
