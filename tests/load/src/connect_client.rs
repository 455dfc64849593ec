//! The loop of one thread of the connect mode.

use std::io;
use std::time::{Duration, Instant};

use crate::connect::ConnectOptions;
use crate::echo_connection::{EchoConnection, Shape};
use crate::pattern::Pattern;
use crate::poll::{Poll, Ready};
use crate::socket::{Opening, close_by_reset, opening, start_connect};
use crate::stats::ThreadStats;
use crate::threads::{Worker, cpu_time};
use crate::{Error, Limit};

/// Bytes of the message of `--echo`.
const MESSAGE: u8 = 64;

/// One connection under way. Its pattern stream is the number of the connection on this thread.
struct Attempt {
    connection: EchoConnection,
    started: Instant,
}

/// One thread's connections under way, one per slot.
pub(crate) struct ConnectClient<'a> {
    options: &'a ConnectOptions,
    shape: Shape<'a>,
    poll: Poll,
    attempts: Vec<Option<Attempt>>,
    buffer: [u8; 2 * MESSAGE as usize],
    /// Connections that are still to be started; none: until the time is over.
    left: Option<u64>,
    next_id: u32,
    stats: ThreadStats,
}

impl<'a> ConnectClient<'a> {
    pub(crate) fn new(
        options: &'a ConnectOptions,
        pattern: &'a Pattern,
        worker: &Worker<'_>,
        threads: u64,
    ) -> Result<Self, Error> {
        let left = match options.limit {
            Limit::Duration(_) => None,
            Limit::Count(count) => Some(count / threads + u64::from((worker.index as u64) < count % threads)),
        };
        Ok(Self {
            options,
            shape: Shape { pattern, size: u64::from(MESSAGE), depth: 1, count_messages: false },
            poll: Poll::new(options.spin)?,
            attempts: (0..options.parallel).map(|_| None).collect(),
            buffer: [0; 2 * MESSAGE as usize],
            left,
            next_id: 0,
            stats: ThreadStats::new(worker.cpu),
        })
    }

    pub(crate) fn run(mut self, start: Instant) -> Result<ThreadStats, Error> {
        let cpu_before = cpu_time();
        let mut progress = Instant::now();
        for slot in 0..self.attempts.len() {
            self.start(slot)?;
        }
        while self.attempts.iter().any(Option::is_some) {
            if matches!(self.options.limit, Limit::Duration(duration) if start.elapsed() >= duration) {
                self.left = Some(0);
            }
            let until = progress + self.options.timeout;
            let timeout = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let ready: Vec<Ready> = self.poll.wait(timeout)?.collect();
            if !ready.is_empty() {
                progress = Instant::now();
            } else if progress.elapsed() >= self.options.timeout {
                break;
            }
            for ready in ready {
                self.advance(ready)?;
            }
        }
        self.stats.elapsed = progress - start;
        self.stats.cpu_time = cpu_time() - cpu_before;
        self.give_up();
        Ok(self.stats)
    }

    /// Starts a connection in a free slot, unless enough were started. One that fails at once (no free port, no
    /// descriptor) ends the thread's run: trying again without waiting would only fail again.
    fn start(&mut self, slot: usize) -> Result<(), Error> {
        if self.left == Some(0) {
            return Ok(());
        }
        match start_connect(self.options.address) {
            Ok(socket) => {
                self.left = self.left.map(|left| left - 1);
                self.poll.add(&socket, slot)?;
                let connection = EchoConnection::new(socket, self.next_id, u64::from(self.options.echo));
                self.next_id = self.next_id.wrapping_add(1);
                self.attempts[slot] = Some(Attempt { connection, started: Instant::now() });
            }
            Err(error) => {
                self.stats.count_connect_error(&error);
                self.stats.operations_missing += self.left.replace(0).unwrap_or(0);
            }
        }
        Ok(())
    }

    /// Goes on with the connection of a slot; when it has ended, closes it and starts the next one.
    fn advance(&mut self, Ready { slot, ended }: Ready) -> Result<(), Error> {
        let Some(attempt) = self.attempts[slot].as_mut() else { return Ok(()) };
        let connection = &mut attempt.connection;
        if !connection.is_established() {
            match opening(connection.socket()) {
                Opening::Pending => return Ok(()),
                Opening::Established => {
                    connection.set_established();
                    self.stats.connections += 1;
                }
                Opening::Failed(error) => {
                    self.stats.count_connect_error(&error);
                    self.stats.operations_missing += self.missing();
                    self.attempts[slot] = None;
                    return self.start(slot);
                }
            }
        }
        let result = exchange(connection, &self.shape, &mut self.buffer, ended, &mut self.stats);
        if result.is_ok() && !connection.is_done() {
            return Ok(());
        }
        let attempt = self.attempts[slot].take().expect("looked at above");
        self.stats.bytes_lost += attempt.connection.outstanding();
        let closed = close_by_reset(attempt.connection.into_socket());
        match result.and(closed) {
            Ok(()) => self.stats.count_operation(attempt.started.elapsed()),
            Err(error) => {
                self.stats.count_io_error(&error);
                self.stats.operations_missing += self.missing();
            }
        }
        self.start(slot)
    }

    /// Operations that a connection which has failed leaves missing: only a count asks for a number of them.
    fn missing(&self) -> u64 {
        u64::from(matches!(self.options.limit, Limit::Count(_)))
    }

    fn give_up(&mut self) {
        self.stats.operations_missing += self.left.take().unwrap_or(0);
        let missing = self.missing();
        for attempt in self.attempts.iter_mut().filter_map(Option::take) {
            let error = io::Error::other("no answer");
            if attempt.connection.is_established() {
                self.stats.count_io_error(&error);
                self.stats.bytes_lost += attempt.connection.outstanding();
            } else {
                self.stats.count_connect_error(&error);
            }
            self.stats.operations_missing += missing;
        }
    }
}

fn exchange(
    connection: &mut EchoConnection,
    shape: &Shape<'_>,
    buffer: &mut [u8],
    ended: bool,
    stats: &mut ThreadStats,
) -> io::Result<()> {
    if connection.is_done() {
        return Ok(());
    }
    if connection.read(shape, buffer, ended, stats)? {
        connection.write(shape)
    } else {
        Err(io::Error::other("closed by the peer"))
    }
}
