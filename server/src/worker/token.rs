//! `user_data` of every request: what was asked, for which connection, of which generation. Pure.
//!
//! A slot of the connection table is used again as soon as it is free. The generation tells a late completion of the
//! slot's former connection from one of its present connection.

/// A connection's index in the worker's connection table.
pub(crate) type Slot = u32;

/// A buffer's index in the worker's pool.
pub(crate) type BufferId = u16;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 32;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const KIND_SHIFT: u32 = SLOT_BITS + GENERATION_BITS;

/// The largest number of connections one worker can hold: a ring's table of direct descriptors has no more
/// (`IORING_MAX_FIXED_FILES` in the kernel's `io_uring/rsrc.c`).
pub(crate) const MAX_SLOTS: u32 = 1 << 20;

const _: () = assert!(MAX_SLOTS <= 1 << SLOT_BITS);

/// One connection of one worker: its slot in the connection table and the slot's generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    /// Index in the connection table.
    pub(crate) slot: Slot,
    /// How many connections this slot had before.
    pub(crate) generation: u32,
}

/// How the kernel knows a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descriptor {
    /// An index into the table of the worker's ring.
    Direct(u32),
    /// An entry of the process's table of open files.
    Plain(u32),
}

/// What a completion answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A connection was accepted by the multishot accept, or that ended.
    Accept,
    /// A connection was accepted, or not, by an accept of one.
    AcceptOne,
    /// The answer to the wish to stop accepting.
    CancelAccept,
    /// The main thread wrote to the worker's eventfd.
    Wake,
    /// Bytes, end of file or an error from a connection.
    Receive(ConnectionId),
    /// Bytes were sent, or not.
    Send(ConnectionId),
    /// The answer to the wish to end a connection's requests.
    Cancel(ConnectionId),
    /// `SO_INCOMING_CPU` of a connection was read, right after it was accepted.
    AcceptSample(ConnectionId),
    /// `SO_INCOMING_CPU` of a connection was read, after bytes were received.
    ReceiveSample(ConnectionId),
    /// The FIN of a connection was sent.
    Shutdown(ConnectionId),
    /// The bytes were counted that a connection's peer has not acknowledged.
    Unsent(ConnectionId),
    /// A connection was closed; its slot is free.
    Close(ConnectionId),
}

impl Token {
    /// The token as `user_data`.
    pub(crate) fn encode(self) -> u64 {
        let (kind, id) = match self {
            Self::Accept => (1, None),
            Self::CancelAccept => (2, None),
            Self::Wake => (3, None),
            Self::Receive(id) => (4, Some(id)),
            Self::Send(id) => (5, Some(id)),
            Self::Cancel(id) => (6, Some(id)),
            Self::AcceptSample(id) => (7, Some(id)),
            Self::ReceiveSample(id) => (8, Some(id)),
            Self::Shutdown(id) => (9, Some(id)),
            Self::Close(id) => (10, Some(id)),
            Self::Unsent(id) => (11, Some(id)),
            Self::AcceptOne => (12, None),
        };
        let id = id.map_or(0, |id| u64::from(id.generation) << SLOT_BITS | u64::from(id.slot));
        kind << KIND_SHIFT | id
    }

    /// The token in `user_data`; `None` for a value that [`Token::encode`] never gives.
    pub(crate) fn decode(user_data: u64) -> Option<Self> {
        let id = || ConnectionId {
            slot: u32::try_from(user_data & SLOT_MASK).expect("24 bits"),
            generation: u32::try_from(user_data >> SLOT_BITS & GENERATION_MASK).expect("32 bits"),
        };
        Some(match user_data >> KIND_SHIFT {
            1 => Self::Accept,
            2 => Self::CancelAccept,
            3 => Self::Wake,
            4 => Self::Receive(id()),
            5 => Self::Send(id()),
            6 => Self::Cancel(id()),
            7 => Self::AcceptSample(id()),
            8 => Self::ReceiveSample(id()),
            9 => Self::Shutdown(id()),
            10 => Self::Close(id()),
            11 => Self::Unsent(id()),
            12 => Self::AcceptOne,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_is_the_inverse_of_encode(kind in 0..12usize, slot in 0..MAX_SLOTS, generation: u32) {
            let id = ConnectionId { slot, generation };
            let token = [
                Token::Accept, Token::CancelAccept, Token::Wake, Token::Receive(id), Token::Send(id),
                Token::Cancel(id), Token::AcceptSample(id), Token::ReceiveSample(id), Token::Shutdown(id),
                Token::Close(id), Token::Unsent(id), Token::AcceptOne,
            ][kind];
            prop_assert_eq!(Token::decode(token.encode()), Some(token));
        }

        #[test]
        fn what_decodes_to_a_connection_encodes_to_the_same(kind in 4..=11u64, rest in 0..1u64 << KIND_SHIFT) {
            let user_data = kind << KIND_SHIFT | rest;
            prop_assert_eq!(Token::decode(user_data).map(Token::encode), Some(user_data));
        }

        #[test]
        fn foreign_user_data_is_refused(kind in 13..=255u64, rest in 0..1u64 << KIND_SHIFT) {
            prop_assert_eq!(Token::decode(kind << KIND_SHIFT | rest), None);
        }
    }
}
