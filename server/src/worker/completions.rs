//! What each completion does to the worker's state.

use std::os::fd::AsRawFd;
use std::time::Instant;

use rustix::io::Errno;
use tune::cpu_set::Cpu;

use super::acceptor::{Accepted, BACKOFF};
use super::connection::ReceiveEnd;
use super::ring::Completion;
use super::send_queue::{Chunk, Storage};
use super::token::{BufferId, ConnectionId, Descriptor, Token};
use super::{Worker, WorkerError, is_to_be_copied, operations, release};
use crate::control::Phase;
use crate::stats;

impl Worker<'_> {
    /// Takes the completions that the kernel has posted.
    pub(super) fn take_completions(&mut self) -> Result<(), WorkerError> {
        self.ring.sync_completions();
        while let Some(completion) = self.ring.next() {
            self.take(&completion)?;
        }
        self.ring.sync_completions();
        Ok(())
    }

    fn take(&mut self, completion: &Completion) -> Result<(), WorkerError> {
        let Some(token) = completion.token else {
            return Err(WorkerError::Unexpected(format!("{completion:?}")));
        };
        match token {
            Token::Accept | Token::AcceptOne => self.take_accept(token, completion)?,
            Token::CancelAccept => self.acceptor.cancelled(),
            Token::Wake => self.take_wake(),
            Token::Receive(id) => self.take_receive(id, completion)?,
            Token::Send(id) => self.take_send(id, completion.result),
            Token::Cancel(id) => {
                if let Some(connection) = self.connections.get(id) {
                    // The number of requests that it hit.
                    connection.cancel_ended(!matches!(completion.result, Ok(1..)));
                    self.list(id);
                }
            }
            Token::AcceptSample(id) | Token::ReceiveSample(id) => {
                self.take_sample(token, id, completion.result);
            }
            Token::Shutdown(id) => {
                if let Some(connection) = self.connections.get(id) {
                    connection.shutdown_ended();
                    self.list(id);
                }
            }
            Token::Unsent(id) => self.take_unsent(id, completion.result),
            Token::Close(id) => self.connections.closed(id),
        }
        Ok(())
    }

    fn take_accept(&mut self, token: Token, completion: &Completion) -> Result<(), WorkerError> {
        let accepted = match completion.result {
            Ok(descriptor) => Accepted::Connection(descriptor),
            Err(Errno::CANCELED | Errno::AGAIN | Errno::INTR) => Accepted::Nothing,
            // What the peer or the network did to a connection still in the queue: accept(2), "Error handling".
            Err(
                Errno::CONNABORTED
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH,
            ) => Accepted::Nothing,
            Err(errno @ (Errno::BADF | Errno::NOTSOCK | Errno::INVAL)) => {
                return Err(WorkerError::Accept(errno.into()));
            }
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM of a security module, and whatever else may pass.
            Err(_) => Accepted::Exhausted,
        };
        let rest = match token {
            Token::AcceptOne => self.acceptor.single_completed(accepted),
            _ => self.acceptor.multishot_completed(accepted, completion.more),
        };
        if rest {
            self.counters.accept_rests.add(1);
            self.rest_until = Some(Instant::now() + BACKOFF);
        }
        if let Accepted::Connection(number) = accepted {
            self.accepted(self.ring.accepted(number));
        }
        Ok(())
    }

    /// There is a new connection.
    pub(super) fn accepted(&mut self, descriptor: Descriptor) {
        let id = self.connections.open(descriptor);
        self.counters.accepted.add(1);
        let sampled = stats::samples_accept(self.counters.accepted.get());
        if let Some(connection) = self.connections.get(id) {
            connection.sampled = sampled;
        }
        if sampled {
            self.sample(id, Token::AcceptSample(id));
        }
        self.list(id);
    }

    fn take_wake(&mut self) {
        // Empties the eventfd; EAGAIN if it was empty already.
        let _ = rustix::io::read(self.wake, &mut [0u8; 8]);
        if self.control.phase() != Phase::Run {
            self.start_to_drain();
        }
        self.ring.poll_wake(self.wake.as_raw_fd());
    }

    fn take_receive(&mut self, id: ConnectionId, completion: &Completion) -> Result<(), WorkerError> {
        // The buffer first: it is the worker's whatever else the completion says, and nobody's if it is not named.
        let buffer =
            match completion.buffer {
                None => None,
                Some(buffer) => Some(self.buffers.take(buffer).ok_or_else(|| {
                    WorkerError::Unexpected(format!("buffer {buffer} is not of this pool"))
                })?),
            };
        let Some(connection) = self.connections.get(id) else {
            if let Some(buffer) = buffer {
                self.buffers.give_back(buffer);
            }
            return Ok(());
        };
        if !completion.more {
            let end = match completion.result {
                Ok(0) => ReceiveEnd::Eof,
                Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => ReceiveEnd::Stopped,
                Err(Errno::NOBUFS) => ReceiveEnd::NoBuffers,
                Err(_) => ReceiveEnd::Failed,
            };
            connection.receive_ended(end);
            match end {
                ReceiveEnd::NoBuffers if connection.is_starved() => {
                    self.counters.starved.add(1);
                    self.starved.push_back(id);
                }
                ReceiveEnd::Failed => {
                    self.counters.reset.add(1);
                    connection.abort(|chunk| release(self.buffers, chunk));
                }
                _ => {}
            }
        }
        if let Some(buffer) = buffer {
            self.take_bytes(id, buffer, completion.result.unwrap_or(0) as usize);
        }
        self.list(id);
        Ok(())
    }

    /// Bytes of a connection are in a buffer.
    fn take_bytes(&mut self, id: ConnectionId, buffer: BufferId, length: usize) {
        let Some(connection) = self.connections.get(id) else { return self.buffers.give_back(buffer) };
        if length == 0 || connection.discards() {
            return self.buffers.give_back(buffer);
        }
        self.counters.bytes_in.add(length as u64);
        let receives = if connection.is_blocked() && is_to_be_copied(length, self.buffers) {
            self.counters.bytes_copied.add(length as u64);
            let receives = connection.received_copy(self.buffers.bytes(buffer, 0, length));
            self.buffers.give_back(buffer);
            receives
        } else {
            connection.received(Chunk { storage: Storage::Pool(buffer), start: 0, end: length })
        };
        if connection.sampled && stats::samples_receive(receives) {
            self.sample(id, Token::ReceiveSample(id));
        }
    }

    fn take_send(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        let sending = connection.queue().sending_bytes();
        match result {
            Ok(bytes) => {
                self.counters.bytes_out.add(u64::from(bytes));
                connection.sent(bytes as usize, |chunk| release(self.buffers, chunk));
            }
            Err(Errno::AGAIN) => connection.sent(0, |chunk| release(self.buffers, chunk)),
            Err(Errno::INTR | Errno::CANCELED) => {
                connection.send_stopped(|chunk| release(self.buffers, chunk));
            }
            Err(_) => {
                self.counters.reset.add(1);
                connection.send_failed(|chunk| release(self.buffers, chunk));
            }
        }
        let short = result.map_or_else(|errno| errno == Errno::AGAIN, |bytes| (bytes as usize) < sending);
        self.counters.blocked.add(u64::from(short));
        self.list(id);
    }

    /// Ends the silent sends that succeeded: the kernel has taken the request, and a failure would have been among the
    /// completions just taken.
    pub(super) fn confirm_silent_sends(&mut self) {
        if self.ring.has_overflowed() {
            return;
        }
        let consumed = self.ring.consumed();
        while let Some(send) = self.silent_sends.front() {
            if send.request > consumed {
                break;
            }
            let (id, request) = (send.id, send.request);
            self.silent_sends.pop_front();
            let Some(connection) = self.connections.get(id) else { continue };
            let Some(bytes) = connection.bytes_of_send(request) else { continue };
            self.counters.bytes_out.add(bytes as u64);
            let more_to_do = connection.awaits_send();
            connection.sent(bytes, |chunk| release(self.buffers, chunk));
            if more_to_do {
                self.list(id);
            }
        }
    }

    /// Reads `SO_INCOMING_CPU` of a connection: through the ring if only the ring knows its descriptor.
    fn sample(&mut self, id: ConnectionId, token: Token) {
        let Some(connection) = self.connections.get(id) else { return };
        match connection.descriptor() {
            Descriptor::Plain(number) => self.count_sample(token, operations::incoming_cpu(number)),
            Descriptor::Direct(number) => {
                if connection.look_started() {
                    self.ring.look_for_cpu(number, token);
                }
            }
        }
    }

    fn take_sample(&mut self, token: Token, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.look_ended();
        let descriptor = connection.descriptor();
        self.list(id);
        if let (Ok(_), Descriptor::Direct(number)) = (result, descriptor) {
            self.count_sample(token, self.ring.sampled_cpu(number));
        }
    }

    fn count_sample(&mut self, token: Token, incoming: Option<Cpu>) {
        if matches!(token, Token::AcceptSample(_)) {
            self.counters.count_accept_sample(incoming, self.cpu);
        } else {
            self.counters.count_request_sample(incoming, self.cpu);
        }
    }
}
