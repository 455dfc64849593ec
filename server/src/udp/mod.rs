//! The worker for datagrams: a pinned thread, its ring, its socket on each address. Each datagram goes back
//! to its sender.
//!
//! ```text
//! socket ─ multishot recvmsg ─> buffer ─ [message] ─> [flight] ─ send or sendmsg from the same buffer ─> socket
//!                                  ^─────────────── given back when the kernel has taken the send ──┘
//! ```
//!
//! [`Worker::run`] is the loop: arm the receives, ask for the sends, enter the kernel once, take the
//! completions.
//!
//! * Nothing is waited for. A datagram that can't be sent at once, because the socket's send queue is full or
//!   the kernel refuses it, is dropped and counted, as is one that the kernel had no room for on the way in.
//! * A train of datagrams that the kernel has put together (GRO) goes back as one send that it takes apart
//!   again (GSO), or one by one where it refuses that.
//! * A datagram from a port that is the server's own gets no answer: two echo servers would send it to and
//!   fro for ever (CVE-2024-2169).
//! * There is no `request-local` share. For a socket that is not connected the kernel does not keep
//!   `SO_INCOMING_CPU` (`__udp_queue_rcv_skb` in its `net/ipv4/udp.c`): it reads as -1, or as what it was set
//!   to for steering. Which core a datagram came to is known from the cores' counters.
//!
//! The pool is `buffers` times [`HEAD`] + `buffer_size` bytes for each core, touched on first use: 4 MiB by
//! default. Nothing is allocated after the start. That a send succeeded is known after the enter that asks
//! for it, which may sleep until the next datagram comes: so long its counters lag behind.

mod completions;
mod drain;
mod flight;
mod message;
mod operations;
mod socket;
mod token;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use tune::errno::describe;

use crate::control::Control;
use crate::stats::LiveCounters;
use crate::worker::SetupError;
use crate::worker::buffers::{Buffers, Pages};
use crate::worker::ring as worker_ring;
use drain::{CATCH_UP, Drain};
use flight::{Sends, Sent};
pub(crate) use message::HEAD;
use message::LARGEST_PAYLOAD;
use operations::Ring;
use socket::Socket;

/// Bytes of payload that a buffer has room for unless told otherwise: any datagram. With less, longer
/// datagrams are not answered, and GRO is not used.
pub(crate) const DEFAULT_BUFFER_SIZE: u32 = LARGEST_PAYLOAD;

/// Buffers of a core unless told otherwise. Two bursts of a multishot receive (32 messages); what more would
/// take is cache: the kernel goes through all of them in turn.
pub(crate) const DEFAULT_BUFFERS: u16 = 64;

/// How long a receive rests that keeps failing.
const BACKOFF: Duration = Duration::from_millis(10);

/// What a worker is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Buffers in the pool; a power of two.
    pub(crate) buffers: u16,
    /// Bytes of payload that a buffer has room for.
    pub(crate) buffer_size: u32,
    /// What the pool is made of.
    pub(crate) pages: Pages,
    /// How long the ring polls the NIC before it sleeps; zero: not at all.
    pub(crate) busy_poll: Duration,
    /// How long to look for completions before sleeping.
    pub(crate) spin: Duration,
    /// How long datagrams are still answered after the server was told to stop.
    pub(crate) drain_timeout: Duration,
}

/// Why a worker ended early. The process reports it and exits non-zero.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UdpError {
    /// The ring could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A system call of the set-up failed.
    #[error("{0}: {error}{hint}", error = describe(.1), hint = .2)]
    Start(&'static str, io::Error, &'static str),
    /// The ring itself failed.
    #[error("io_uring_enter: {error}", error = describe(.0))]
    Enter(io::Error),
    /// A socket can't receive any more.
    #[error("recvmsg: {error}: the socket is gone", error = describe(.0))]
    Receive(io::Error),
    /// The kernel answered what it can't answer; going on could send datagrams to the wrong peer.
    #[error("unexpected completion: {0}")]
    Unexpected(String),
}

/// A worker's state, used by its own thread only.
struct Worker<'r> {
    ring: Ring<'r>,
    buffers: &'r mut Buffers,
    sockets: Vec<Socket>,
    sends: Sends,
    control: &'r Control,
    wake: &'r OwnedFd,
    awaits_wake: bool,
    /// When receives that rest go on.
    rest_until: Option<Instant>,
    /// Turns of the loop that received something.
    batches: u32,
    spin: Duration,
    drain_timeout: Duration,
    drain: Option<Drain>,
    counters: &'r LiveCounters,
}

/// Runs a worker on the calling thread, which is already pinned, on bound sockets, one for each address.
/// `ready` is called when all is set up; it returns false if the server gives up.
///
/// # Errors
/// If the set-up fails or the ring or a socket break. What a peer or the network does is never an error.
pub(crate) fn run(
    settings: &Settings,
    sockets: Vec<OwnedFd>,
    control: &Control,
    wake: &OwnedFd,
    counters: &LiveCounters,
    ready: impl FnOnce() -> bool,
) -> Result<(), UdpError> {
    let failed = |operation| move |error| UdpError::Start(operation, error, "");
    let size = settings.buffer_size + u32::try_from(HEAD).expect("about a hundred bytes");
    // The pool first, so that it is dropped after the ring.
    let mut buffers = Buffers::map(settings.buffers, size, settings.pages)
        .map_err(|error| UdpError::Start("map the buffer pool", error, settings.pages.hint()))?;
    let sockets = sockets.into_iter().map(|descriptor| Socket::new(descriptor, settings.buffer_size));
    let sockets = sockets.collect::<io::Result<_>>().map_err(failed("set a UDP socket up"))?;
    let mut uring = worker_ring::create()?;
    let ring = Ring::new(&mut uring, buffers.count()).map_err(failed("register the ring's descriptor"))?;
    worker_ring::busy_poll(ring.submitter(), settings.busy_poll)?;
    buffers.register(ring.submitter()).map_err(failed("register the buffer pool"))?;
    if !ready() {
        return Ok(());
    }
    Worker {
        ring,
        sends: Sends::new(buffers.count()),
        buffers: &mut buffers,
        sockets,
        control,
        wake,
        awaits_wake: false,
        rest_until: None,
        batches: 0,
        spin: settings.spin,
        drain_timeout: settings.drain_timeout,
        drain: None,
        counters,
    }
    .run()
}

impl Worker<'_> {
    fn run(mut self) -> Result<(), UdpError> {
        while !self.is_done() {
            self.ask();
            self.buffers.publish();
            let sweeps = self.drain.as_ref().is_some_and(|drain| drain.next_sweep <= Instant::now());
            let (want, timeout) = if sweeps { CATCH_UP } else { self.how_long() };
            self.enter(want, timeout).map_err(UdpError::Enter)?;
            let is_ready = self.ring.may_run_more();
            let taken = self.take_completions()?;
            let caught_up =
                !(is_ready && taken > 0 || self.ring.has_overflowed() || self.ring.has_unsubmitted());
            self.end_sends();
            self.end_rest();
            if sweeps {
                self.sweep(caught_up);
            }
        }
        self.count_overruns();
        Ok(())
    }

    /// Queues the requests that the sockets and the datagrams on their way out want, as far as the submission
    /// queue has room.
    fn ask(&mut self) {
        if !self.awaits_wake && self.ring.has_room() {
            self.ring.poll_wake(self.wake);
            self.awaits_wake = true;
        }
        let count = self.buffers.count();
        let free = count - self.buffers.held();
        for (index, socket) in self.sockets.iter_mut().enumerate() {
            if self.ring.has_room() && socket.receiver.is_to_be_armed(free, count) {
                self.ring.receive(index, socket.descriptor.as_raw_fd());
                socket.receiver.armed();
            }
        }
        while self.ring.has_room()
            && let Some((buffer, echo)) = self.sends.next()
        {
            let socket = self.sockets[echo.socket].descriptor.as_raw_fd();
            let request = self.ring.send(socket, buffer, &echo.message, self.buffers);
            self.sends.started(request);
        }
    }

    /// For how many completions the next enter waits, and how long at most.
    ///
    /// Buffers that are sent from come back only after the enter: with few left it does not sleep, or
    /// receives would fail for want of one.
    fn how_long(&self) -> (u32, Option<Duration>) {
        let is_over = self.drain.as_ref().is_some_and(|drain| drain.is_over);
        let hurry = self.sends.are_queued()
            || self.ring.has_overflowed()
            || self.sends.are_sending() && (is_over || self.buffers.held() > self.buffers.count() / 2);
        let sweep = self.drain.as_ref().map(|drain| drain.next_sweep);
        let until = [self.rest_until, sweep].into_iter().flatten().min();
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        (u32::from(!hurry), timeout)
    }

    /// Enters the kernel: once, unless the worker is to look for completions before it sleeps.
    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        if want == 1 && !self.spin.is_zero() {
            let (start, spin) = (Instant::now(), timeout.map_or(self.spin, |timeout| timeout.min(self.spin)));
            while start.elapsed() < spin {
                self.ring.enter(0, None)?;
                if self.ring.has_completions() {
                    return Ok(());
                }
                while !self.ring.may_run_more() && start.elapsed() < spin {
                    std::hint::spin_loop();
                }
            }
        }
        self.ring.enter(want, timeout)
    }

    /// Gives the buffers of sends back that the kernel has taken. Those that failed were among the
    /// completions just taken, unless some of these are still in the kernel.
    fn end_sends(&mut self) {
        if self.ring.has_overflowed() {
            return;
        }
        while let Some((buffer, message, sent)) = self.sends.end_of_send(self.ring.consumed()) {
            if sent == Sent::All {
                self.counters.datagrams_out.add(message.datagrams());
                self.counters.bytes_out.add(message.payload as u64);
            }
            self.buffers.give_back(buffer);
        }
    }

    /// Lets receives go on whose rest is over.
    fn end_rest(&mut self) {
        if self.rest_until.is_some_and(|until| until <= Instant::now()) {
            self.rest_until = None;
            self.sockets.iter_mut().for_each(|socket| socket.receiver.rested());
        }
    }

    fn count_overruns(&mut self) {
        let overruns = self.sockets.iter_mut().map(|socket| u64::from(socket.new_overruns()));
        self.counters.datagrams_overrun.add(overruns.sum());
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.ring.end_receives(self.sockets.len());
    }
}

#[cfg(test)]
mod tests;
