//! The loop of one thread of the echo mode: open its connections, exchange messages, close.

mod ends;

use std::io;
use std::net::Shutdown;
use std::time::Instant;

use rustix::io::Errno;
use socket2::{SockAddr, Socket};

use crate::arrivals::{Arrivals, Plan};
use crate::echo::{EchoOptions, Transport};
use crate::flow::{Flow, Shape};
use crate::patience::Patience;
use crate::pattern::Pattern;
use crate::ring::{Completion, Operation, Ring};
use crate::stats::ThreadStats;
use crate::threads::{Usage, Worker};
use crate::{Error, Limit};

/// One connection.
struct Connection<F> {
    socket: Socket,
    flow: F,
    established: bool,
    /// Half-closed: the server is to close it, too.
    closing: bool,
}

/// One thread's connections. A slot is `None` once its connection has ended.
pub(crate) struct EchoClient<'a, F> {
    options: &'a EchoOptions,
    server: &'a SockAddr,
    shape: Shape<'a>,
    ring: Ring<'a>,
    connections: Vec<Option<Connection<F>>>,
    /// Numbers of the connections in the run.
    ids: Vec<u32>,
    /// Connections that are being opened.
    opening: usize,
    /// Connections on which messages are under way or to be started.
    busy: usize,
    /// Open loop: the messages that are still to be started.
    arrivals: Option<Arrivals>,
    /// The time when the last completions were taken: one look at the clock for all of them.
    now: Instant,
    worker: &'a Worker<'a>,
    threads: usize,
    stats: ThreadStats,
}

impl<'a, F: Flow> EchoClient<'a, F> {
    pub(crate) fn new(
        options: &'a EchoOptions,
        pattern: &'a Pattern,
        server: &'a SockAddr,
        worker: &'a Worker<'a>,
        threads: usize,
    ) -> Result<Self, Error> {
        let size = options.size as usize;
        let whole = options.transport == Transport::Udp;
        Ok(Self {
            options,
            server,
            shape: Shape { pattern, size: size as u64, depth: options.depth as usize },
            // A datagram that is too long is to be seen as such.
            ring: Ring::new(size + usize::from(whole), whole, options.spin)?,
            connections: Vec::new(),
            ids: (0..options.connections).skip(worker.index).step_by(threads).collect(),
            opening: 0,
            busy: 0,
            arrivals: None,
            now: Instant::now(),
            worker,
            threads: threads.min(options.connections as usize),
            stats: ThreadStats::new(worker.cpu, options.rate.is_some()),
        })
    }

    /// Exchanges messages until the limit, and until everything that was sent came back or nothing has come
    /// for the timeout.
    pub(crate) fn exchange(&mut self, start: Instant) -> Result<(), Error> {
        let usage = Usage::now();
        let idle = self.ring.idle();
        self.now = Instant::now();
        let mut progress = self.now;
        let mut patience = Patience::new(self.options.timeout, self.now);
        let udp = self.options.transport == Transport::Udp;
        let mut expiry = self.now + self.options.timeout / 8;
        let mut deadline = match self.options.limit {
            Limit::Duration(duration) => Some(start + duration),
            Limit::Count(_) => None,
        };
        self.plan_arrivals(start);
        self.busy = self.connections.iter().flatten().filter(|c| !c.flow.messages().is_done()).count();
        for slot in 0..self.connections.len() {
            self.send(slot)?;
        }
        loop {
            self.start_due()?;
            if deadline.is_some_and(|deadline| self.now >= deadline) {
                deadline = None;
                self.stop();
            }
            if self.busy == 0 {
                progress = self.now;
                patience.renew(self.now);
            }
            let next = self.arrivals.as_ref().and_then(Arrivals::peek).map(|arrival| arrival.time);
            if self.busy == 0 && next.is_none() {
                break;
            }
            let until = if udp { expiry } else { patience.next() };
            if self.turn([deadline, next].into_iter().flatten().fold(until, Instant::min))? {
                progress = self.now;
                patience.renew(self.now);
            } else if self.busy > 0 && !udp && patience.is_over(self.now) {
                break;
            }
            if udp && self.now >= expiry {
                self.expire()?;
                expiry = self.now + self.options.timeout / 8;
            }
            self.worker.live.show(&self.stats);
        }
        self.stats.elapsed = progress - start;
        usage.count(&mut self.stats, self.ring.idle() - idle);
        self.give_up_messages();
        Ok(())
    }

    fn plan_arrivals(&mut self, start: Instant) {
        let (Limit::Duration(duration), Some(rate)) = (self.options.limit, self.options.rate) else { return };
        let plan = Plan { start, duration, rate, spacing: self.options.arrivals, threads: self.threads };
        self.arrivals = (self.worker.index < self.threads).then(|| Arrivals::new(&plan, self.worker.index));
    }

    /// The time is over: starts no more messages.
    fn stop(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            let messages = connection.flow.messages_mut();
            let was_busy = !messages.is_done();
            messages.stop();
            messages.abandon(self.now, &mut self.stats);
            self.busy -= usize::from(was_busy && messages.is_done());
        }
    }

    /// Open loop: starts the messages whose time has come, or has them wait for a place on their connection.
    fn start_due(&mut self) -> Result<(), Error> {
        while let Some(arrival) = self.arrivals.as_mut().and_then(|arrivals| arrivals.take(self.now)) {
            let slot =
                usize::try_from(arrival.number % self.connections.len() as u64).expect("below a usize");
            let Some(connection) = self.connections[slot].as_mut() else {
                self.stats.counts.operations_not_started += 1;
                continue;
            };
            let messages = connection.flow.messages_mut();
            self.busy += usize::from(messages.is_done());
            self.stats.counts.operations_late += u64::from(!messages.schedule(arrival.time));
            self.send(slot)?;
        }
        Ok(())
    }

    /// Starts messages that may start, and sends.
    fn send(&mut self, slot: usize) -> Result<(), Error> {
        let Some(connection) = self.connections[slot].as_mut() else { return Ok(()) };
        connection.flow.messages_mut().start(self.now);
        match connection.flow.next_send(&self.shape) {
            Some(bytes) => self.ring.send(slot, &connection.socket, bytes),
            None => Ok(()),
        }
    }

    /// Submits, waits until something happens or `until`, and handles it. False if nothing has happened.
    fn turn(&mut self, until: Instant) -> Result<bool, Error> {
        self.ring.wait(until)?;
        self.now = Instant::now();
        let mut any = false;
        while let Some(completion) = self.ring.next() {
            any = true;
            match completion.operation {
                Operation::Connect | Operation::Disconnect => {
                    self.opened(completion.slot, completion.result)?;
                }
                Operation::Send => self.sent(completion.slot, completion.result)?,
                Operation::Receive => self.received(completion)?,
            }
        }
        Ok(any)
    }

    fn sent(&mut self, slot: usize, result: Result<usize, Errno>) -> Result<(), Error> {
        let Some(connection) = self.connections[slot].as_mut() else { return Ok(()) };
        match result {
            Ok(length) => {
                connection.flow.sent(length);
                self.send(slot)
            }
            Err(errno) => {
                connection.flow.sent(0);
                self.fail(slot, &errno.into());
                Ok(())
            }
        }
    }

    fn received(&mut self, completion: Completion) -> Result<(), Error> {
        let Completion { slot, result, buffer, more, .. } = completion;
        let stream = self.options.transport == Transport::Tcp;
        if let (Some(filled), Some(connection)) = (&buffer, self.connections[slot].as_mut()) {
            let was_busy = !connection.flow.messages().is_done();
            let bytes = self.ring.bytes(filled);
            connection.flow.received(&self.shape, bytes, self.now, &mut self.stats);
            self.busy -= usize::from(was_busy && connection.flow.messages().is_done());
        }
        if let Some(filled) = buffer {
            self.ring.give_back(filled);
        }
        let counted = matches!(self.options.limit, Limit::Count(_));
        if self.options.close_each && counted && self.is_done(slot) {
            self.half_close(slot);
        }
        let Some(connection) = self.connections[slot].as_ref() else { return Ok(()) };
        match result {
            Ok(0) if connection.closing => self.connections[slot] = None,
            Ok(0) if stream => self.fail(slot, &io::Error::other("closed by the peer")),
            Ok(_) | Err(Errno::NOBUFS) if more => return self.send(slot),
            Ok(_) | Err(Errno::NOBUFS) => {
                self.ring.receive(slot, &connection.socket)?;
                return self.send(slot);
            }
            Err(errno) => self.fail(slot, &errno.into()),
        }
        Ok(())
    }

    /// Whether nothing is under way on a connection, or to be started, or it is gone.
    fn is_done(&self, slot: usize) -> bool {
        self.connections[slot].as_ref().is_none_or(|connection| connection.flow.messages().is_done())
    }

    /// Counts a connection that has failed and drops it.
    fn fail(&mut self, slot: usize, error: &io::Error) {
        self.stats.counts.count_io_error(error);
        self.busy -= usize::from(!self.is_done(slot));
        self.drop_connection(slot);
    }

    /// Counts what a connection that ends early leaves behind.
    fn drop_connection(&mut self, slot: usize) {
        let Some(mut connection) = self.connections[slot].take() else { return };
        self.stats.counts.bytes_lost += connection.flow.outstanding(&self.shape);
        let messages = connection.flow.messages_mut();
        messages.abandon(self.now, &mut self.stats);
        if matches!(self.options.limit, Limit::Count(_)) || self.options.rate.is_some() {
            self.stats.counts.operations_missing += messages.unfinished();
        }
        // A receive that is armed would keep the socket open. It fails where the peer has ended the
        // connection.
        let _ = connection.socket.shutdown(Shutdown::Both);
    }

    /// UDP: gives up the datagrams that were not back in time.
    fn expire(&mut self) -> Result<(), Error> {
        let Some(time) = self.now.checked_sub(self.options.timeout) else { return Ok(()) };
        for slot in 0..self.connections.len() {
            let Some(connection) = self.connections[slot].as_mut() else { continue };
            let was_busy = !connection.flow.messages().is_done();
            connection.flow.expire(&self.shape, time, &mut self.stats);
            self.busy -= usize::from(was_busy && connection.flow.messages().is_done());
            self.send(slot)?;
        }
        Ok(())
    }

    /// Ends the connections on which something is still missing.
    fn give_up_messages(&mut self) {
        for slot in 0..self.connections.len() {
            if !self.is_done(slot) {
                self.stats.counts.count_io_error(&io::Error::other("no answer"));
                self.drop_connection(slot);
            }
        }
    }
}
