//! What each completion does to the worker's state.

use std::os::fd::AsFd;

use rustix::io::Errno;
use tune::cpu_set::Cpu;

use super::connection::{Connection, ReceiveEnd, Way};
use super::kernel::{Completion, Kernel, Request, Sample};
use super::memory::PieceId;
use super::send_queue::SpillFull;
use super::token::{ConnectionId, Descriptor, Token};
use super::{SilentSend, Worker, WorkerError};
use crate::config::Mode;
use crate::control::Phase;
use crate::stats;

impl<K: Kernel> Worker<'_, K> {
    /// Takes the completions that the kernel has posted.
    pub(super) fn take_completions(&mut self) -> Result<(), WorkerError> {
        self.kernel.sync_completions();
        while let Some(completion) = self.kernel.next() {
            self.take(&completion)?;
        }
        self.kernel.sync_completions();
        Ok(())
    }

    fn take(&mut self, completion: &Completion) -> Result<(), WorkerError> {
        let Some(token) = completion.token else {
            return Err(WorkerError::Unexpected(format!("{completion:?}")));
        };
        match token {
            Token::Accept(_) | Token::AcceptOne(_) => self.take_accept(token, completion)?,
            Token::CancelAccept(index) => {
                if let Some(acceptor) = self.acceptor(index) {
                    acceptor.cancelled();
                }
            }
            Token::Wake => self.take_wake(),
            Token::Receive(id) => self.take_receive(id, completion)?,
            Token::Send(id) => self.take_send_completion(id, completion),
            Token::Cancel(id) => {
                if let Some(connection) = self.connections.get(id) {
                    // The number of requests that it hit.
                    connection.cancel_ended(!matches!(completion.result, Ok(1..)));
                    self.list(id);
                }
            }
            Token::AcceptSample(id) => self.take_sample(Sample::Accept, id, completion.result),
            Token::ReceiveSample(id) => self.take_sample(Sample::Receive, id, completion.result),
            Token::ResetOnClose(id) => {
                if let Some(connection) = self.connections.get(id) {
                    connection.look_ended();
                    self.list(id);
                }
            }
            Token::Shutdown(id) => {
                if let Some(connection) = self.connections.get(id) {
                    connection.shutdown_ended();
                    self.list(id);
                }
            }
            Token::Unsent(id) => {
                self.take_unsent(id, completion.result);
                self.list(id);
            }
            Token::Install(id) => self.take_alias(id, completion.result),
            Token::Close(_) => return Err(WorkerError::Unexpected(format!("{completion:?}"))),
            Token::HandOver { number, member } => self.came_back(number, member),
            Token::Room => {
                if completion.result.is_err()
                    && let Some((crew, _)) = &self.settings.crew
                {
                    crew.was_not_told();
                }
            }
            Token::TakeOver => {
                if let Ok(number) = completion.result {
                    self.take_over(number);
                }
            }
        }
        Ok(())
    }

    fn take_wake(&mut self) {
        self.kernel.take_wake(self.wake.as_fd());
        if self.control.phase() != Phase::Run {
            self.start_to_drain();
        }
        self.poll_wake = true;
    }

    /// Bytes came, or the receive has ended, or both.
    fn take_receive(&mut self, id: ConnectionId, completion: &Completion) -> Result<(), WorkerError> {
        let unexpected = || WorkerError::Unexpected(format!("{completion:?}"));
        // The descriptor is not closed, nor the slot free, before the last completion.
        let way = self.connections.get(id).and_then(|connection| connection.receives_by());
        if way.ok_or_else(unexpected)? == Way::Pipe {
            self.take_watch(id, completion.result);
            return Ok(());
        }
        if !completion.more {
            self.receive_ended(id, completion.result);
        }
        let length = completion.result.unwrap_or(0);
        // The buffer is the worker's whatever else the completion says, and nobody's if none is named.
        if let Some(buffer) = completion.buffer {
            let piece = self.memory.take(buffer, length).ok_or_else(unexpected)?;
            self.take_bytes(id, piece, length);
        }
        if self.is_to_be_spliced(length, completion.left_some) {
            self.connections.get(id).into_iter().for_each(Connection::begins_to_splice);
        }
        self.list(id);
        Ok(())
    }

    fn receive_ended(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        let end = match result {
            Ok(0) => ReceiveEnd::Eof,
            Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => ReceiveEnd::Stopped,
            Err(Errno::NOBUFS) => ReceiveEnd::NoBuffers,
            Err(_) => ReceiveEnd::Failed,
        };
        connection.receive_ended(end);
        if connection.starves() {
            self.counters.starved.add(1);
            self.connections.queue_up(&mut self.starved, id);
        } else if end == ReceiveEnd::Failed {
            self.failed(id);
        }
    }

    /// The connection is broken.
    pub(super) fn failed(&mut self, id: ConnectionId) {
        self.counters.reset.add(1);
        if let Some(connection) = self.connections.get(id) {
            connection.abort(self.memory);
        }
    }

    /// Bytes of a connection are in a buffer.
    fn take_bytes(&mut self, id: ConnectionId, piece: PieceId, length: u32) {
        let connection = self.connections.get(id).filter(|connection| length > 0 && !connection.discards());
        let Some(connection) = connection else { return self.memory.give_back(piece) };
        self.counters.bytes_in.add(length.into());
        self.counters.requests.add(1);
        match self.mode {
            Mode::Echo => {
                let copied = connection.echo(piece, self.memory);
                self.copied(id, copied);
            }
            Mode::SinkSource => {
                let config = &self.settings.config;
                connection.answer(length, config.request_size, config.response_size);
                self.memory.give_back(piece);
            }
            Mode::Discard | Mode::AcceptClose => self.memory.give_back(piece),
        }
        self.heard(id);
    }

    /// Bytes of a connection were copied to the spill. False if that had no place for them: the connection
    /// is reset, whose peer has not been reading.
    pub(super) fn copied(&mut self, id: ConnectionId, copied: Result<u64, SpillFull>) -> bool {
        let (Ok(bytes) | Err(SpillFull { copied: bytes })) = copied;
        self.counters.bytes_copied.add(bytes);
        self.counters.spill_full.add(copied.is_err().into());
        if copied.is_err()
            && let Some(connection) = self.connections.get(id)
        {
            connection.give_up(self.memory);
        }
        copied.is_ok()
    }

    /// A receive has brought bytes.
    pub(super) fn heard(&mut self, id: ConnectionId) {
        let tick = self.tick();
        let Some(connection) = self.connections.get(id) else { return };
        let receives = connection.heard(tick);
        if connection.sampled && stats::samples_receive(receives) {
            self.sample(id, Sample::Receive);
        }
    }

    fn take_send_completion(&mut self, id: ConnectionId, completion: &Completion) {
        let Some(connection) = self.connections.get(id) else { return };
        if completion.notification {
            self.counters.zerocopy_copied.add(completion.result.map_or(0, u64::from));
            let result = connection.notified();
            self.take_send(id, result);
            self.connections.ended(id);
        } else if completion.more {
            connection.notification_follows(completion.result);
            self.list(id);
        } else {
            self.take_send(id, completion.result);
        }
    }

    fn take_send(&mut self, id: ConnectionId, result: Result<u32, Errno>) {
        let tick = self.tick();
        let Some(connection) = self.connections.get(id) else { return };
        let sending = connection.queue().sending_bytes();
        // If it was a silent one, nothing is left to confirm.
        let request = connection.send_request();
        if let Ok(index) = self.silent_sends.binary_search_by_key(&request, |send| send.request) {
            self.silent_sends.remove(index);
        }
        match result {
            Ok(bytes) => {
                self.counters.bytes_out.add(bytes.into());
                connection.sent(bytes.into(), tick, self.memory);
            }
            Err(Errno::AGAIN) => connection.sent(0, tick, self.memory),
            Err(Errno::INTR | Errno::CANCELED) => connection.send_stopped(self.memory),
            // The pages that zero-copy sends pin count as locked memory of the user (`io_notif_account_mem`
            // in the kernel's `io_uring/notif.h`), and their notifications as option memory of the socket.
            Err(Errno::NOMEM | Errno::NOBUFS)
                if self.settings.config.zerocopy_threshold.is_some() && !connection.must_copy() =>
            {
                connection.zero_copy_refused(self.memory);
            }
            Err(_) => {
                self.counters.reset.add(1);
                connection.send_failed(self.memory);
            }
        }
        let short = result.map_or_else(|errno| errno == Errno::AGAIN, |bytes| u64::from(bytes) < sending);
        self.counters.blocked.add(u64::from(short));
        self.list(id);
    }

    /// Ends the silent sends that succeeded: the kernel has taken the request, and a failure would have been
    /// among the completions just taken.
    pub(super) fn confirm_silent_sends(&mut self) {
        if self.kernel.has_overflowed() {
            return;
        }
        let consumed = self.kernel.consumed();
        let tick = self.tick();
        let taken = self.silent_sends.partition_point(|send| send.request <= consumed);
        for index in 0..taken {
            let SilentSend { id, .. } = self.silent_sends[index];
            let Some(connection) = self.connections.get(id) else { continue };
            let bytes = connection.queue().sending_bytes();
            self.counters.bytes_out.add(bytes);
            let more_to_do = connection.awaits_send();
            connection.sent(bytes, tick, self.memory);
            if more_to_do {
                self.list(id);
            }
        }
        self.silent_sends.drain(..taken);
    }

    /// Reads `SO_INCOMING_CPU` of a connection: through the ring if only the ring knows its descriptor, and
    /// then only if there is room.
    pub(super) fn sample(&mut self, id: ConnectionId, sample: Sample) {
        let Some(connection) = self.connections.get(id) else { return };
        match connection.descriptor() {
            Descriptor::Plain(number) => self.count_sample(sample, self.kernel.incoming_cpu(number)),
            Descriptor::Direct(number) => {
                if self.kernel.room() > 0 && connection.look_started() {
                    self.kernel.ask(Request::LookForCpu(sample, id, number));
                }
            }
        }
    }

    fn take_sample(&mut self, sample: Sample, id: ConnectionId, result: Result<u32, Errno>) {
        let Some(connection) = self.connections.get(id) else { return };
        connection.look_ended();
        let descriptor = connection.descriptor();
        self.list(id);
        if let (Ok(_), Descriptor::Direct(number)) = (result, descriptor) {
            self.count_sample(sample, self.kernel.sampled_cpu(number));
        }
    }

    fn count_sample(&mut self, sample: Sample, incoming: Option<Cpu>) {
        match sample {
            Sample::Accept => self.counters.count_accept_sample(incoming, self.settings.cpu),
            Sample::Receive => self.counters.count_request_sample(incoming, self.settings.cpu),
        }
    }
}
