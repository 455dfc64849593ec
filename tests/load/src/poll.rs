//! One thread's epoll, edge-triggered.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::Error;

/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// A socket to which something happened.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// Its name.
    pub(crate) slot: usize,
    /// The peer has ended its side, or the connection has failed. There may be no further event, so that it must be
    /// read to the end: the end that came with the last bytes has no event of its own.
    pub(crate) ended: bool,
}

/// An epoll instance and its event buffer.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
    spin: bool,
}

impl Poll {
    /// With `spin` it never sleeps: it asks until there is something.
    pub(crate) fn new(spin: bool) -> Result<Self, Error> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(Error::system("epoll_create1"))?;
        Ok(Self { epoll, events: Vec::with_capacity(BATCH), spin })
    }

    /// Watches a socket for both directions under the name `slot`; closing the socket ends it. Edge-triggered: an
    /// event comes when the state changes, so whoever gets one reads and writes as far as the kernel allows.
    pub(crate) fn add(&self, socket: impl AsFd, slot: usize) -> Result<(), Error> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(slot as u64), flags)
            .map_err(Error::system("epoll_ctl"))
    }

    /// Waits until something happens or `timeout` is over, and gives the sockets to which it happened.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<impl Iterator<Item = Ready> + use<'_>, Error> {
        self.events.clear();
        if self.spin {
            let until = Instant::now() + timeout;
            while self.events.is_empty() {
                self.take(Duration::ZERO)?;
                if self.events.is_empty() && Instant::now() >= until {
                    break;
                }
            }
        } else {
            self.take(timeout)?;
        }
        Ok(self.events.iter().map(|&Event { flags, data }| Ready {
            slot: usize::try_from(data.u64()).expect("it was a usize"),
            ended: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
        }))
    }

    fn take(&mut self, timeout: Duration) -> Result<(), Error> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::system("epoll_wait")(errno)),
        }
    }
}
