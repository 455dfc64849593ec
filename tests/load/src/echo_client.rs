//! The loop of one thread of the echo mode: open its connections, exchange messages, close.

use std::io;
use std::net::Shutdown;
use std::time::Instant;

use crate::arrivals::Arrivals;
use crate::echo::EchoOptions;
use crate::echo_connection::{EchoConnection, Shape};
use crate::pattern::Pattern;
use crate::poll::{Poll, Ready};
use crate::socket::{Opening, opening, start_connect};
use crate::stats::ThreadStats;
use crate::threads::{Worker, cpu_time};
use crate::{Error, Limit};

/// Connections that one thread opens at once: more would overflow a listener's backlog for nothing.
const OPENING_AT_ONCE: usize = 64;

/// Bytes read at once.
const READ_SIZE: usize = 256 * 1024;

/// One thread's connections. A slot is `None` once its connection has ended.
pub(crate) struct EchoClient<'a> {
    options: &'a EchoOptions,
    shape: Shape<'a>,
    poll: Poll,
    connections: Vec<Option<EchoConnection>>,
    /// Numbers of the connections in the run.
    ids: Vec<u32>,
    buffer: Box<[u8]>,
    ready: Vec<Ready>,
    /// Connections on which messages are under way or to be started.
    busy: usize,
    /// Open loop: the messages that are still to be started.
    arrivals: Option<Arrivals>,
    /// Place of this thread among those that have connections, and their number.
    place: (usize, usize),
    stats: ThreadStats,
}

impl<'a> EchoClient<'a> {
    pub(crate) fn new(
        options: &'a EchoOptions,
        pattern: &'a Pattern,
        worker: &Worker<'_>,
        threads: usize,
    ) -> Result<Self, Error> {
        let shape = Shape {
            pattern,
            size: u64::from(options.size),
            depth: options.depth as usize,
            count_messages: true,
        };
        Ok(Self {
            options,
            shape,
            poll: Poll::new(options.spin)?,
            connections: Vec::new(),
            ids: (0..options.connections).skip(worker.index).step_by(threads).collect(),
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            ready: Vec::new(),
            busy: 0,
            arrivals: None,
            place: (worker.index, threads.min(options.connections as usize)),
            stats: ThreadStats::new(worker.cpu),
        })
    }

    /// Opens all connections of this thread; those that fail are counted.
    pub(crate) fn open(&mut self) -> Result<(), Error> {
        let messages = match self.options.limit {
            Limit::Duration(_) if self.options.rate.is_some() => 0,
            Limit::Duration(_) => u64::MAX,
            Limit::Count(count) => count,
        };
        let mut pending = 0;
        let mut progress = Instant::now();
        loop {
            while pending < OPENING_AT_ONCE && self.connections.len() < self.ids.len() {
                let slot = self.connections.len();
                let connection = match start_connect(self.options.address) {
                    Ok(socket) => {
                        self.poll.add(&socket, slot)?;
                        pending += 1;
                        Some(EchoConnection::new(socket, self.ids[slot], messages))
                    }
                    Err(error) => {
                        self.count_failed_opening(&error);
                        None
                    }
                };
                self.connections.push(connection);
            }
            if pending == 0 {
                return Ok(());
            }
            if self.wait(progress + self.options.timeout)? {
                progress = Instant::now();
                pending -= self.settle_openings();
            } else if progress.elapsed() >= self.options.timeout {
                self.give_up_openings();
                pending = 0;
            }
        }
    }

    /// Looks at the openings to which something happened; gives the number of those that have ended.
    fn settle_openings(&mut self) -> usize {
        let mut ended = 0;
        for Ready { slot, .. } in std::mem::take(&mut self.ready) {
            let Some(connection) = self.connections[slot].as_mut().filter(|c| !c.is_established()) else {
                continue;
            };
            match opening(connection.socket()) {
                Opening::Pending => continue,
                Opening::Established => {
                    connection.set_established();
                    self.stats.connections += 1;
                }
                Opening::Failed(error) => {
                    self.connections[slot] = None;
                    self.count_failed_opening(&error);
                }
            }
            ended += 1;
        }
        ended
    }

    fn give_up_openings(&mut self) {
        for slot in 0..self.connections.len() {
            if self.connections[slot].as_ref().is_some_and(|connection| !connection.is_established()) {
                self.connections[slot] = None;
                self.count_failed_opening(&io::Error::other("no answer"));
            }
        }
    }

    fn count_failed_opening(&mut self, error: &io::Error) {
        self.stats.count_connect_error(error);
        if let Limit::Count(count) = self.options.limit {
            self.stats.operations_missing += count;
        }
    }

    /// Exchanges messages until the limit, and until everything that was sent came back or nothing has come for
    /// the timeout.
    pub(crate) fn exchange(&mut self, start: Instant) -> Result<(), Error> {
        let mut deadline = self.begin(start);
        let cpu_before = cpu_time();
        let mut progress = Instant::now();
        self.count_busy();
        for slot in 0..self.connections.len() {
            // What happened to it while the others were opened has had its event.
            self.handle(Ready { slot, ended: true });
        }
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                deadline = None;
                self.connections.iter_mut().flatten().for_each(EchoConnection::stop);
                self.count_busy();
            }
            if self.busy == 0 {
                progress = now;
            }
            self.start_due();
            let next = self.next_arrival();
            if self.busy == 0 && next.is_none() {
                break;
            }
            let until = progress + self.options.timeout;
            let until = [deadline, next].into_iter().flatten().fold(until, Instant::min);
            if self.wait(until)? {
                self.handle_ready();
                progress = Instant::now();
            } else if self.busy > 0 && progress.elapsed() >= self.options.timeout {
                break;
            }
        }
        self.stats.elapsed = progress - start;
        self.stats.cpu_time = cpu_time() - cpu_before;
        self.give_up_messages();
        Ok(())
    }

    /// Plans the messages of an open loop; gives the time after which a closed loop starts no more.
    fn begin(&mut self, start: Instant) -> Option<Instant> {
        let Limit::Duration(duration) = self.options.limit else { return None };
        let Some(rate) = self.options.rate else { return Some(start + duration) };
        let (index, threads) = self.place;
        self.arrivals = (index < threads).then(|| Arrivals::new(start, duration, rate, index, threads));
        None
    }

    fn count_busy(&mut self) {
        self.busy = self.connections.iter().flatten().filter(|connection| !connection.is_done()).count();
    }

    fn next_arrival(&self) -> Option<Instant> {
        Some(self.arrivals.as_ref()?.peek()?.time)
    }

    /// Open loop: starts the messages whose time has come, or has them wait for a place on their connection.
    fn start_due(&mut self) {
        let (_, threads) = self.place;
        while let Some(arrival) = self.arrivals.as_mut().and_then(|arrivals| arrivals.take(Instant::now())) {
            let turn = arrival.number / threads as u64;
            let slot = usize::try_from(turn % self.connections.len() as u64).expect("below a usize");
            let Some(connection) = self.connections[slot].as_mut() else {
                self.stats.operations_missing += 1;
                continue;
            };
            self.busy += usize::from(connection.is_done());
            if !connection.schedule(&self.shape, arrival.time) {
                self.stats.operations_late += 1;
            } else if let Err(error) = connection.write(&self.shape) {
                self.fail(slot, &error);
            }
        }
    }

    fn handle_ready(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        for &ready in &ready {
            self.handle(ready);
            self.start_due();
        }
        self.ready = ready;
    }

    /// Reads and writes one connection as far as it goes.
    fn handle(&mut self, Ready { slot, ended }: Ready) {
        let Some(connection) = self.connections[slot].as_mut() else { return };
        let was_busy = !connection.is_done();
        let result = match connection.read(&self.shape, &mut self.buffer, ended, &mut self.stats) {
            Ok(true) => connection.write(&self.shape),
            Ok(false) => Err(io::Error::other("closed by the peer")),
            Err(error) => Err(error),
        };
        if was_busy && connection.is_done() {
            self.busy -= 1;
        }
        if let Err(error) = result {
            self.fail(slot, &error);
        }
    }

    /// Counts a connection that has failed and drops it.
    fn fail(&mut self, slot: usize, error: &io::Error) {
        self.stats.count_io_error(error);
        self.busy -=
            usize::from(self.connections[slot].as_ref().is_some_and(|connection| !connection.is_done()));
        self.drop_connection(slot);
    }

    /// Counts what a connection that ends early leaves behind.
    fn drop_connection(&mut self, slot: usize) {
        let Some(connection) = self.connections[slot].take() else { return };
        self.stats.bytes_lost += connection.outstanding();
        if matches!(self.options.limit, Limit::Count(_)) || self.options.rate.is_some() {
            self.stats.operations_missing += connection.unfinished();
        }
    }

    /// Ends the connections on which something is still missing.
    fn give_up_messages(&mut self) {
        for slot in 0..self.connections.len() {
            if self.connections[slot].as_ref().is_some_and(|connection| !connection.is_done()) {
                self.stats.count_io_error(&io::Error::other("no answer"));
                self.drop_connection(slot);
            }
        }
    }

    /// Half-closes every connection and waits for the server to close: bytes that come now were never sent.
    pub(crate) fn close(mut self) -> Result<ThreadStats, Error> {
        let mut open = 0;
        for slot in 0..self.connections.len() {
            let Some(connection) = self.connections[slot].as_ref() else { continue };
            match connection.socket().shutdown(Shutdown::Write) {
                Ok(()) => open += 1,
                Err(error) => {
                    self.stats.count_io_error(&error);
                    self.connections[slot] = None;
                }
            }
        }
        let deadline = Instant::now() + self.options.timeout;
        // A wait that ends early (EINTR after SIGSTOP and SIGCONT, signal(7)) has not seen the deadline.
        while open > 0 && (self.wait(deadline)? || Instant::now() < deadline) {
            for &Ready { slot, ended } in &self.ready {
                let Some(connection) = self.connections[slot].as_mut() else { continue };
                match connection.read(&self.shape, &mut self.buffer, ended, &mut self.stats) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => self.stats.count_io_error(&error),
                }
                self.connections[slot] = None;
                open -= 1;
            }
        }
        for _ in 0..open {
            self.stats.count_io_error(&io::Error::other("not closed by the peer"));
        }
        Ok(self.stats)
    }

    /// Waits until something happens or `until`; true if something happened, and to which slots is in `ready`.
    fn wait(&mut self, until: Instant) -> Result<bool, Error> {
        let timeout = until.saturating_duration_since(Instant::now());
        self.ready.clear();
        self.ready.extend(self.poll.wait(timeout)?);
        Ok(!self.ready.is_empty())
    }
}
