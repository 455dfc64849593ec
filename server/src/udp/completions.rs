//! What each completion does to the worker's state.

use std::os::fd::AsRawFd;
use std::time::Instant;

use rustix::io::Errno;

use super::flight::{BufferId, Echo, ReceiveEnd};
use super::message::{HEAD, Message};
use super::operations::{self, Completion};
use super::token::Token;
use super::{BACKOFF, UdpError, Worker};
use crate::control::Phase;
use crate::stats;

impl Worker<'_> {
    /// Takes the completions that the kernel has posted; gives how many.
    pub(super) fn take_completions(&mut self) -> Result<u32, UdpError> {
        let mut taken = 0;
        let before = self.counters.datagrams_in.get();
        self.ring.sync_completions();
        while let Some(completion) = self.ring.next() {
            taken += 1;
            match completion.token {
                Some(Token::Wake) => self.take_wake(),
                Some(Token::Receive(socket)) => self.take_receive(socket, &completion)?,
                Some(Token::Send(buffer, request)) => self.take_send(buffer, request, &completion)?,
                None => return Err(unexpected(&completion)),
            }
        }
        self.ring.sync_completions();
        if self.counters.datagrams_in.get() != before {
            self.batches = self.batches.wrapping_add(1);
            if stats::samples_receive(self.batches) {
                self.count_overruns();
            }
            if let Some(drain) = &mut self.drain {
                drain.has_heard = true;
            }
        }
        Ok(taken)
    }

    fn take_wake(&mut self) {
        // Empties the eventfd; EAGAIN if it was empty already.
        let _ = rustix::io::read(self.wake, &mut [0u8; 8]);
        self.awaits_wake = false;
        if self.control.phase() != Phase::Run {
            self.start_to_drain();
        }
    }

    fn take_receive(&mut self, index: usize, completion: &Completion) -> Result<(), UdpError> {
        // The buffer first: it is the worker's whatever else the completion says, and nobody's if it is not
        // named.
        let buffer = match completion.buffer {
            None => None,
            Some(buffer) => Some(self.buffers.take(buffer).ok_or_else(|| unexpected(completion))?),
        };
        let socket = self.sockets.get_mut(index).ok_or_else(|| unexpected(completion))?;
        if !completion.more {
            let end = match completion.result {
                Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => ReceiveEnd::Stopped,
                Err(Errno::NOBUFS) => {
                    self.counters.starved.add(1);
                    ReceiveEnd::NoBuffers
                }
                Err(
                    errno @ (Errno::BADF | Errno::NOTSOCK | Errno::INVAL | Errno::FAULT | Errno::OPNOTSUPP),
                ) => return Err(UdpError::Receive(errno.into())),
                // What ICMP messages say of earlier answers, or memory is short.
                Err(_) => {
                    self.counters.reset.add(1);
                    ReceiveEnd::Failed
                }
            };
            if socket.receiver.ended(end) {
                self.rest_until = Some(Instant::now() + BACKOFF);
            }
        }
        match (buffer, completion.result) {
            (Some(buffer), Ok(length)) => self.take_message(index, buffer, length)?,
            (Some(buffer), Err(_)) => self.buffers.give_back(buffer),
            (None, _) => {}
        }
        Ok(())
    }

    /// A message of so many bytes, its head among them, is in a buffer.
    fn take_message(&mut self, socket: usize, buffer: BufferId, length: usize) -> Result<(), UdpError> {
        let message = Message::parse(self.buffers.bytes(buffer, 0, length))
            .ok_or_else(|| UdpError::Unexpected(format!("a message of {length} bytes that is none")))?;
        self.sockets[socket].receiver.received();
        let datagrams = message.datagrams();
        self.counters.datagrams_in.add(datagrams);
        self.counters.bytes_in.add(message.payload as u64);
        let is_over = self.drain.as_ref().is_some_and(|drain| drain.is_over);
        if message.is_truncated {
            self.counters.datagrams_truncated.add(datagrams);
            self.buffers.give_back(buffer);
        } else if is_over || self.sockets.iter().any(|socket| socket.port == message.port) {
            self.counters.datagrams_dropped.add(datagrams);
            self.buffers.give_back(buffer);
        } else {
            self.sends.queue(buffer, Echo { socket, message });
        }
        Ok(())
    }

    /// A send has failed. A train that the kernel does not take apart (EINVAL, EIO, EMSGSIZE: `udp_send_skb`
    /// in its `net/ipv4/udp.c`) is taken apart here.
    fn take_send(&mut self, buffer: BufferId, request: u32, completion: &Completion) -> Result<(), UdpError> {
        let Err(errno) = completion.result else { return Ok(()) };
        let echo = self.sends.failed(buffer, request).ok_or_else(|| unexpected(completion))?;
        let message = &echo.message;
        let is_refused = matches!(errno, Errno::INVAL | Errno::IO | Errno::MSGSIZE);
        let (datagrams, bytes) = if message.segment.is_some() && is_refused {
            let socket = self.sockets[echo.socket].descriptor.as_raw_fd();
            operations::send_segments(socket, self.buffers.bytes(buffer, 0, HEAD + message.payload), message)
        } else {
            (0, 0)
        };
        self.counters.datagrams_out.add(datagrams);
        self.counters.bytes_out.add(bytes);
        self.counters.datagrams_dropped.add(message.datagrams() - datagrams);
        Ok(())
    }
}

fn unexpected(completion: &Completion) -> UdpError {
    UdpError::Unexpected(format!("{completion:?}"))
}
