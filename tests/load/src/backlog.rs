//! Connections that wait, each with a message, while the server does not accept, and are then worked off.
//!
//! Who calls this holds the server, as by SIGSTOP: the kernel makes the connections all the same and has them
//! wait in the accept queue, which must be long enough. At [`Moment::Start`] all of them wait, and the
//! observer lets the server go. At [`Moment::End`] each has got its message back, and has been reset.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Socket;
use tune::cpu_set::Cpu;

use crate::patience::Patience;
use crate::pattern::Pattern;
use crate::report::Report;
use crate::socket::{close_by_reset, tcp};
use crate::stats::ThreadStats;
use crate::threads::{Usage, run_pinned};
use crate::{Error, Moment, Observer, limits};

/// Bytes of a message.
const MESSAGE: usize = 64;

/// What to do.
#[derive(Debug, Clone)]
pub struct BacklogOptions {
    /// The server.
    pub address: SocketAddr,
    /// How many connections wait; [`limits::CONNECTIONS`].
    pub connections: u32,
    /// The CPU to which the client is pinned.
    pub core: Cpu,
    /// How long a connection may take to be made, and how long nothing may come back.
    pub timeout: Duration,
}

/// Makes the connections, and waits for all messages. The time of an operation is from when the server was
/// let go to when the message was back. The client asks for each in turn and does not sleep.
///
/// # Errors
/// If an option is out of its range, or the thread cannot be pinned. What goes wrong on a connection is in
/// the report: see [`Report::failure`].
pub fn run_observed(options: &BacklogOptions, observer: &Observer<'_>) -> Result<Report, Error> {
    limits::check("--connections", options.connections, &limits::CONNECTIONS)?;
    limits::check_time("--timeout", options.timeout)?;
    let pattern = Pattern::default();
    let threads = run_pinned(&[options.core], false, |worker| {
        let mut stats = ThreadStats::new(worker.cpu, false);
        let waiting = open(options, &pattern, &mut stats);
        let start = worker.observe(observer, Moment::Start)?;
        let usage = Usage::now();
        let mut patience = Patience::new(options.timeout, Instant::now());
        for (id, socket) in &waiting {
            match receive(socket, &mut patience) {
                Ok(received) => {
                    let (echo, extra) = received.split_at(MESSAGE);
                    stats.counts.bytes += echo.len() as u64;
                    stats.counts.bytes_extra += extra.len() as u64;
                    stats.counts.bytes_wrong += pattern.count_wrong(*id, 0, echo);
                    stats.count_operation(start.elapsed(), Duration::ZERO);
                }
                Err(error) => {
                    stats.counts.count_io_error(&error);
                    stats.counts.bytes_lost += MESSAGE as u64;
                    stats.counts.operations_missing += 1;
                }
            }
        }
        stats.elapsed = start.elapsed();
        usage.count(&mut stats, Duration::ZERO);
        for (_, socket) in waiting {
            close_by_reset(socket).unwrap_or_else(|error| stats.counts.count_io_error(&error));
        }
        worker.observe(observer, Moment::End)?;
        Ok(stats)
    })?;
    Ok(Report::new("backlog", options.address, threads))
}

/// Makes the connections and sends a message on each; gives those that were made, each with its number.
fn open(options: &BacklogOptions, pattern: &Pattern, stats: &mut ThreadStats) -> Vec<(u32, Socket)> {
    let server = options.address.into();
    let mut waiting = Vec::new();
    for id in 0..options.connections {
        let open = || -> io::Result<Socket> {
            let socket = tcp(&server, None)?;
            socket.connect_timeout(&server, options.timeout)?;
            // An empty socket takes so few bytes at once.
            socket.send(pattern.bytes(id, 0, MESSAGE as u64))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => waiting.push((id, socket)),
            Err(error) => {
                stats.counts.count_connect_error(&error);
                stats.counts.operations_missing += 1;
            }
        }
    }
    stats.counts.connections = waiting.len() as u64;
    waiting
}

/// A message, and what has come beyond it.
fn receive(mut socket: &Socket, patience: &mut Patience) -> io::Result<Vec<u8>> {
    let (mut buffer, mut length) = ([0; 2 * MESSAGE], 0);
    while length < MESSAGE {
        match socket.read(&mut buffer[length..]) {
            Ok(0) => return Err(io::Error::other("closed by the peer")),
            Ok(received) => {
                length += received;
                patience.renew(Instant::now());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if patience.is_over(Instant::now()) {
                    return Err(io::Error::other("no answer"));
                }
                std::hint::spin_loop();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(buffer[..length].to_vec())
}
