//! What is in flight: the receive of each socket, and the buffers whose datagrams are on their way out. Pure.
//!
//! A buffer comes with a datagram, waits for room in the submission queue, is sent from, and is given back
//! when the kernel has taken the send. Sends succeed without a completion (`IOSQE_CQE_SKIP_SUCCESS`); one
//! that fails has a completion, which is there right after the enter that submitted it: with `MSG_DONTWAIT`
//! the kernel sends, which for a datagram means it copies, or gives up before that system call returns.

use std::collections::VecDeque;

use super::message::Message;

/// A buffer's index in the worker's pool.
pub(super) type BufferId = u16;

/// How a receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiveEnd {
    /// By an empty datagram, a full completion queue, a cancellation.
    Stopped,
    /// There was no buffer.
    NoBuffers,
    /// By an error.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Idle,
    Armed,
    Starved,
    Resting,
}

/// The multishot receive of one socket.
#[derive(Debug)]
pub(super) struct Receiver {
    state: Receiving,
    /// The last end was an error, and nothing was received since.
    has_failed: bool,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { state: Receiving::Idle, has_failed: false }
    }

    /// True if it is to be armed, with `free` buffers of `count` in the kernel's hands. Without one it would
    /// end at once; a starved receive waits for half of them, so that it lasts.
    pub(super) fn is_to_be_armed(&self, free: usize, count: usize) -> bool {
        match self.state {
            Receiving::Idle => free > 0,
            Receiving::Starved => free >= count.div_ceil(2),
            Receiving::Armed | Receiving::Resting => false,
        }
    }

    pub(super) fn armed(&mut self) {
        debug_assert!(matches!(self.state, Receiving::Idle | Receiving::Starved));
        self.state = Receiving::Armed;
    }

    /// A datagram came.
    pub(super) fn received(&mut self) {
        self.has_failed = false;
    }

    /// It ended. True if it has to rest: it has failed twice with nothing received in between, and armed
    /// again at once it might fail for ever.
    pub(super) fn ended(&mut self, end: ReceiveEnd) -> bool {
        self.state = match end {
            ReceiveEnd::Stopped => Receiving::Idle,
            ReceiveEnd::NoBuffers => Receiving::Starved,
            ReceiveEnd::Failed if std::mem::replace(&mut self.has_failed, true) => Receiving::Resting,
            ReceiveEnd::Failed => Receiving::Idle,
        };
        self.state == Receiving::Resting
    }

    /// The rest is over.
    pub(super) fn rested(&mut self) {
        if self.state == Receiving::Resting {
            self.state = Receiving::Idle;
        }
    }
}

/// A message to be sent back, on the socket that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) socket: usize,
    pub(super) message: Message,
}

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel has it all.
    All,
    /// It failed, which was dealt with then.
    Failed,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Free,
    Queued(Echo),
    Sending { echo: Echo, request: u64, failed: bool },
}

/// The buffers whose datagrams are to be sent. Never allocates after it was made.
#[derive(Debug)]
pub(super) struct Sends {
    slots: Box<[Slot]>,
    queued: VecDeque<BufferId>,
    sending: VecDeque<BufferId>,
}

impl Sends {
    /// For a pool of `buffers`.
    pub(super) fn new(buffers: usize) -> Self {
        Self {
            slots: vec![Slot::Free; buffers].into(),
            queued: VecDeque::with_capacity(buffers),
            sending: VecDeque::with_capacity(buffers),
        }
    }

    /// A buffer holds a message to be sent.
    pub(super) fn queue(&mut self, buffer: BufferId, echo: Echo) {
        let slot = &mut self.slots[usize::from(buffer)];
        debug_assert!(matches!(slot, Slot::Free), "{slot:?}");
        *slot = Slot::Queued(echo);
        self.queued.push_back(buffer);
    }

    /// What is to be sent next.
    pub(super) fn next(&self) -> Option<(BufferId, Echo)> {
        let &buffer = self.queued.front()?;
        match self.slots[usize::from(buffer)] {
            Slot::Queued(echo) => Some((buffer, echo)),
            _ => None,
        }
    }

    /// The send of [`Sends::next`] was given to the ring as the request of this number.
    pub(super) fn started(&mut self, request: u64) {
        let Some(buffer) = self.queued.pop_front() else { return };
        let slot = &mut self.slots[usize::from(buffer)];
        if let Slot::Queued(echo) = *slot {
            *slot = Slot::Sending { echo, request, failed: false };
            self.sending.push_back(buffer);
        }
    }

    /// A completion says that a send has failed: gives what it sent. `None` if no such send is in flight.
    /// `request` is the low 32 bits of its number.
    pub(super) fn failed(&mut self, buffer: BufferId, request: u32) -> Option<Echo> {
        match self.slots.get_mut(usize::from(buffer))? {
            Slot::Sending { echo, request: expected, failed: failed @ false }
                if *expected & u64::from(u32::MAX) == u64::from(request) =>
            {
                *failed = true;
                Some(*echo)
            }
            _ => None,
        }
    }

    /// The next send that has ended, given that the kernel has taken all requests up to `consumed` and that
    /// the completions of those that failed were taken. The buffer is free.
    pub(super) fn end_of_send(&mut self, consumed: u64) -> Option<(BufferId, Message, Sent)> {
        let &buffer = self.sending.front()?;
        let slot = &mut self.slots[usize::from(buffer)];
        match *slot {
            Slot::Sending { echo, request, failed } if request <= consumed => {
                *slot = Slot::Free;
                self.sending.pop_front();
                Some((buffer, echo.message, if failed { Sent::Failed } else { Sent::All }))
            }
            _ => None,
        }
    }

    /// True while sends are with the kernel, or have ended unnoticed.
    pub(super) fn are_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// True while sends wait for room in the submission queue.
    pub(super) fn are_queued(&self) -> bool {
        !self.queued.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::message::HEAD;
    use super::*;

    fn echo(payload: u8) -> Echo {
        let mut bytes = vec![0; HEAD + usize::from(payload)];
        bytes[0..4].copy_from_slice(&16u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&u32::from(payload).to_ne_bytes());
        Echo { socket: 0, message: Message::parse(&bytes).unwrap() }
    }

    #[test]
    fn a_starved_receive_waits_for_half_of_the_pool() {
        let mut receiver = Receiver::new();
        assert!(receiver.is_to_be_armed(1, 8));
        receiver.armed();
        assert!(!receiver.is_to_be_armed(8, 8));
        assert!(!receiver.ended(ReceiveEnd::NoBuffers));
        assert_eq!([0, 3, 4].map(|free| receiver.is_to_be_armed(free, 8)), [false, false, true]);
        assert_eq!([0, 1].map(|free| receiver.is_to_be_armed(free, 1)), [false, true]);
    }

    #[test]
    fn an_error_is_forgiven_once_until_something_is_received() {
        let mut receiver = Receiver::new();
        let mut fails = |receives| {
            receiver.rested();
            receiver.armed();
            if receives {
                receiver.received();
            }
            receiver.ended(ReceiveEnd::Failed)
        };
        assert_eq!([false, true, false, false].map(&mut fails), [false, false, true, true]);
        assert!(!receiver.is_to_be_armed(8, 8), "it rests");
        receiver.rested();
        assert!(receiver.is_to_be_armed(8, 8));
    }

    #[test]
    fn a_failure_of_another_request_is_not_taken_for_this_ones() {
        let mut sends = Sends::new(2);
        sends.queue(1, echo(3));
        sends.started(7);
        assert_eq!(sends.failed(1, 6), None);
        assert_eq!(sends.failed(0, 7), None);
        assert_eq!(sends.failed(9, 7), None);
        assert_eq!(sends.failed(1, 7), Some(echo(3)));
        assert_eq!(sends.failed(1, 7), None, "once");
        assert_eq!(sends.end_of_send(7), Some((1, echo(3).message, Sent::Failed)));
        assert_eq!(sends.failed(1, 7), None, "the buffer is free");
    }

    proptest! {
        /// Buffers come in any order, the kernel takes some of the requests, some fail: each buffer is given
        /// back exactly once, never before the kernel has taken its request, and its failure is known then.
        #[test]
        fn every_buffer_comes_back_once(
            turns in prop::collection::vec((0..6usize, 0..6usize, 0..6u64, any::<u16>()), 1..80)
        ) {
            const BUFFERS: u16 = 8;
            let mut sends = Sends::new(BUFFERS.into());
            let mut free: Vec<BufferId> = (0..BUFFERS).collect();
            let (mut requests, mut consumed) = (0, 0);
            let (mut with_kernel, mut failed) = (Vec::new(), HashSet::new());
            let drained = std::iter::repeat_n((0, 8, 8, 0), 4);
            for (arrivals, room, taken, failures) in turns.into_iter().chain(drained) {
                for _ in 0..arrivals.min(free.len()) {
                    let buffer = free.remove(0);
                    sends.queue(buffer, echo(u8::try_from(buffer).unwrap()));
                }
                for _ in 0..room {
                    let Some((buffer, sent)) = sends.next() else { break };
                    prop_assert_eq!(sent.message.payload, usize::from(buffer));
                    requests += 1;
                    sends.started(requests);
                    with_kernel.push((requests, buffer));
                }
                let before = consumed;
                consumed = requests.min(consumed + taken);
                for &(request, buffer) in &with_kernel {
                    if request > before && request <= consumed && failures & (1 << buffer) != 0 {
                        prop_assert!(sends.failed(buffer, u32::try_from(request).unwrap()).is_some());
                        failed.insert(request);
                    }
                }
                while let Some((buffer, message, sent)) = sends.end_of_send(consumed) {
                    prop_assert_eq!(message.payload, usize::from(buffer));
                    let (request, oldest) = with_kernel.remove(0);
                    prop_assert_eq!(oldest, buffer, "in order");
                    prop_assert!(request <= consumed, "still with the kernel");
                    prop_assert_eq!(sent == Sent::Failed, failed.contains(&request));
                    prop_assert!(!free.contains(&buffer), "given back twice");
                    free.push(buffer);
                }
            }
            prop_assert_eq!(free.len(), usize::from(BUFFERS));
            prop_assert!(!sends.are_queued() && !sends.are_sending());
        }
    }
}
