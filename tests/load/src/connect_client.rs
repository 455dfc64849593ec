//! The loop of one thread of the connect mode.

use std::io;
use std::time::Instant;

use rustix::io::Errno;
use socket2::{SockAddr, Socket};

use crate::connect::{Close, ConnectOptions};
use crate::flow::{Flow, Shape};
use crate::patience::Patience;
use crate::pattern::Pattern;
use crate::ring::{Completion, Operation, Ring};
use crate::socket::{close_by_reset, tcp};
use crate::stats::ThreadStats;
use crate::stream::Stream;
use crate::threads::{Usage, Worker};
use crate::{Error, Limit};

/// Bytes of the message of `--echo`.
const MESSAGE: u8 = 64;

/// One connection under way. Its pattern stream is the number of the connection on this thread.
struct Attempt {
    socket: Socket,
    stream: Stream,
    started: Instant,
    established: bool,
    /// Requests that the kernel has not answered.
    in_flight: u8,
    /// Why it has failed.
    error: Option<io::Error>,
}

/// One thread's connections under way, one per slot.
pub(crate) struct ConnectClient<'a> {
    options: &'a ConnectOptions,
    server: &'a SockAddr,
    shape: Shape<'a>,
    ring: Ring<'a>,
    attempts: Vec<Option<Attempt>>,
    under_way: usize,
    /// Connections that are still to be started; none: until the time is over.
    left: Option<u64>,
    /// Connections started.
    started: u64,
    now: Instant,
    worker: &'a Worker<'a>,
    threads: u64,
    stats: ThreadStats,
}

impl<'a> ConnectClient<'a> {
    pub(crate) fn new(
        options: &'a ConnectOptions,
        pattern: &'a Pattern,
        server: &'a SockAddr,
        worker: &'a Worker<'a>,
        threads: u64,
    ) -> Result<Self, Error> {
        let left = match options.limit {
            Limit::Duration(_) => None,
            Limit::Count(count) => Some(count / threads + u64::from((worker.index as u64) < count % threads)),
        };
        Ok(Self {
            options,
            server,
            shape: Shape { pattern, size: u64::from(MESSAGE), depth: 1 },
            ring: Ring::new(usize::from(MESSAGE), false, options.spin)?,
            attempts: (0..options.parallel).map(|_| None).collect(),
            under_way: 0,
            left,
            started: 0,
            now: Instant::now(),
            worker,
            threads,
            stats: ThreadStats::new(worker.cpu, false),
        })
    }

    pub(crate) fn run(mut self, start: Instant) -> Result<ThreadStats, Error> {
        let usage = Usage::now();
        self.now = Instant::now();
        let mut progress = self.now;
        let mut patience = Patience::new(self.options.timeout, self.now);
        for slot in 0..self.attempts.len() {
            self.start(slot, None)?;
        }
        while self.under_way > 0 {
            if matches!(self.options.limit, Limit::Duration(duration) if self.now - start >= duration) {
                self.left = Some(0);
            }
            self.ring.wait(patience.next())?;
            self.now = Instant::now();
            while let Some(completion) = self.ring.next() {
                progress = self.now;
                patience.renew(self.now);
                self.advance(completion)?;
            }
            if patience.is_over(self.now) {
                break;
            }
            self.worker.live.show(&self.stats);
        }
        // The last resets.
        self.ring.submit()?;
        self.stats.elapsed = progress - start;
        usage.count(&mut self.stats, self.ring.idle());
        self.give_up();
        Ok(self.stats)
    }

    /// Starts a connection in a free slot, unless enough were started; with `socket`, which was used before,
    /// or a new one. One that fails at once (no free port, no descriptor) ends the thread's run: trying again
    /// without waiting would only fail again.
    fn start(&mut self, slot: usize, socket: Option<Socket>) -> Result<(), Error> {
        if self.left == Some(0) {
            return match socket {
                // Its reset is still to be submitted.
                Some(socket) => self.ring.submit().map(|()| drop(socket)),
                None => Ok(()),
            };
        }
        match socket.map_or_else(|| self.open(), Ok) {
            Ok(socket) => {
                self.left = self.left.map(|left| left - 1);
                self.ring.connect(slot, &socket, self.server)?;
                let id = u32::try_from(self.started % u64::from(u32::MAX)).expect("a remainder");
                let stream = Stream::new(id, u64::from(self.options.echo), &self.shape);
                let (started, established, in_flight) = (self.now, false, 1);
                self.attempts[slot] =
                    Some(Attempt { socket, stream, started, established, in_flight, error: None });
                self.started += 1;
                self.under_way += 1;
            }
            Err(error) => {
                self.stats.counts.count_connect_error(&error);
                self.stats.counts.operations_missing += self.left.replace(0).unwrap_or(0);
            }
        }
        Ok(())
    }

    fn open(&self) -> io::Result<Socket> {
        let number = self.started * self.threads + self.worker.index as u64;
        tcp(self.server, self.options.sources.as_ref().map(|sources| sources.nth(number)))
    }

    /// Goes on with the connection of a slot; when it has ended, closes it and starts the next one.
    fn advance(&mut self, completion: Completion) -> Result<(), Error> {
        let Completion { operation, slot, result, buffer, .. } = completion;
        let attempt = self.attempts[slot].as_mut();
        if let (Some(filled), Some(attempt)) = (&buffer, attempt) {
            let bytes = self.ring.bytes(filled);
            attempt.stream.received(&self.shape, bytes, self.now, &mut self.stats);
        }
        if let Some(filled) = buffer {
            self.ring.give_back(filled);
        }
        let Some(attempt) = self.attempts[slot].as_mut() else { return Ok(()) };
        attempt.in_flight -= u8::from(operation != Operation::Disconnect);
        match (operation, result) {
            (Operation::Connect, result) if made(result, self.options.echo) => {
                attempt.established = true;
                self.stats.counts.connections += 1;
                // The operation is the whole connection.
                attempt.stream.messages_mut().start(attempt.started);
            }
            (Operation::Send, Ok(length)) => attempt.stream.sent(length),
            (Operation::Receive, Ok(0)) => {
                attempt.error.get_or_insert_with(|| io::Error::other("closed by the peer"));
            }
            (Operation::Receive, Err(Errno::NOBUFS)) | (_, Ok(_)) => {}
            (_, Err(errno)) => {
                attempt.error.get_or_insert_with(|| errno.into());
            }
        }
        self.go_on(slot, operation)
    }

    /// Asks for what comes next on a connection, or ends it.
    fn go_on(&mut self, slot: usize, after: Operation) -> Result<(), Error> {
        let Some(attempt) = self.attempts[slot].as_mut() else { return Ok(()) };
        let done = attempt.error.is_some() || attempt.stream.messages().is_done();
        if done && attempt.in_flight > 0 {
            if attempt.error.is_some() {
                // What is in flight ends with it. It fails where the peer has ended the connection.
                let _ = attempt.socket.shutdown(std::net::Shutdown::Both);
            }
            return Ok(());
        }
        if done {
            return self.end(slot);
        }
        if let Some(bytes) = attempt.stream.next_send(&self.shape) {
            attempt.in_flight += 1;
            self.ring.send(slot, &attempt.socket, bytes)?;
        }
        if matches!(after, Operation::Connect | Operation::Receive) {
            attempt.in_flight += 1;
            self.ring.receive_once(slot, &attempt.socket)?;
        }
        Ok(())
    }

    /// Counts and closes a connection, and starts the next one.
    fn end(&mut self, slot: usize) -> Result<(), Error> {
        let Some(attempt) = self.attempts[slot].take() else { return Ok(()) };
        self.under_way -= 1;
        self.stats.counts.bytes_lost += attempt.stream.outstanding(&self.shape);
        if let Some(error) = &attempt.error {
            self.count_failure(error, attempt.established);
            // Closed by reset, whatever was asked for: a failed connection leaves nothing behind.
            let _ = close_by_reset(attempt.socket);
            return self.start(slot, None);
        }
        let time = self.now - attempt.started;
        if !self.options.echo {
            self.stats.count_operation(time, time);
        }
        match (self.options.close, &self.options.sources) {
            (Close::Reset, None) => {
                self.ring.disconnect(slot, &attempt.socket)?;
                return self.start(slot, Some(attempt.socket));
            }
            (Close::Reset, Some(_)) => {
                if let Err(error) = close_by_reset(attempt.socket) {
                    self.stats.counts.count_io_error(&error);
                }
            }
            (Close::Fin, _) => drop(attempt.socket),
        }
        self.start(slot, None)
    }

    fn count_failure(&mut self, error: &io::Error, established: bool) {
        if established {
            self.stats.counts.count_io_error(error);
        } else {
            self.stats.counts.count_connect_error(error);
        }
        self.stats.counts.operations_missing += self.missing();
    }

    /// Operations that a connection which has failed leaves missing: only a count asks for a number of them.
    fn missing(&self) -> u64 {
        u64::from(matches!(self.options.limit, Limit::Count(_)))
    }

    fn give_up(&mut self) {
        self.stats.counts.operations_missing += self.left.take().unwrap_or(0);
        for slot in 0..self.attempts.len() {
            if let Some(attempt) = self.attempts[slot].take() {
                self.stats.counts.bytes_lost += attempt.stream.outstanding(&self.shape);
                self.count_failure(&io::Error::other("no answer"), attempt.established);
            }
        }
    }
}

/// Whether the connection was made. One that the server has reset already was, as by a server that accepts
/// and closes: before that a reset is ECONNREFUSED (`tcp_reset` in the kernel's `net/ipv4/tcp_input.c`). It
/// counts unless a message is to follow.
fn made(result: Result<usize, Errno>, echo: bool) -> bool {
    match result {
        Ok(_) => true,
        Err(Errno::CONNRESET | Errno::PIPE) => !echo,
        Err(_) => false,
    }
}
