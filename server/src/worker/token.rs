//! `user_data` of every request: what was asked, for which connection, of which generation. Pure.
//!
//! A slot of the connection table is used again as soon as it is free. The generation tells a late completion
//! of the slot's former connection from one of its present connection.

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
    /// A connection was accepted by the multishot accept of the worker's listener of this index, or that
    /// ended.
    Accept(u32),
    /// A connection was accepted, or not, by an accept of one.
    AcceptOne(u32),
    /// The answer to the wish to stop accepting.
    CancelAccept(u32),
    /// The main thread wrote to the worker's eventfd.
    Wake,
    /// Bytes, end of file or an error from a connection, or that there is one of them.
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
    /// A connection could not be closed.
    Close(ConnectionId),
    /// The bytes were counted that a connection's peer has not acknowledged.
    Unsent(ConnectionId),
    /// The close of a connection is a reset from now on.
    ResetOnClose(ConnectionId),
    /// A plain descriptor was not given to a member of the crew.
    HandOver {
        /// The descriptor.
        number: u32,
        /// Which member: below 2^24.
        member: u32,
    },
    /// There is a plain descriptor beside a connection's direct one, or not.
    Install(ConnectionId),
    /// Another worker has given a plain descriptor.
    TakeOver,
    /// Another worker has room again; or it could not be told so.
    Room,
}

impl Token {
    /// The token as `user_data`.
    pub(crate) fn encode(self) -> u64 {
        let of = |kind, id: ConnectionId| (kind, u64::from(id.generation) << SLOT_BITS | u64::from(id.slot));
        let (kind, rest): (u64, u64) = match self {
            Self::Accept(listener) => (1, listener.into()),
            Self::CancelAccept(listener) => (2, listener.into()),
            Self::Wake => (3, 0),
            Self::Receive(id) => of(4, id),
            Self::Send(id) => of(5, id),
            Self::Cancel(id) => of(6, id),
            Self::AcceptSample(id) => of(7, id),
            Self::ReceiveSample(id) => of(8, id),
            Self::Shutdown(id) => of(9, id),
            Self::Close(id) => of(10, id),
            Self::Unsent(id) => of(11, id),
            Self::AcceptOne(listener) => (12, listener.into()),
            Self::ResetOnClose(id) => of(13, id),
            Self::HandOver { number, member } => {
                (14, u64::from(number) << SLOT_BITS | u64::from(member) & SLOT_MASK)
            }
            Self::TakeOver => (15, 0),
            Self::Install(id) => of(16, id),
            Self::Room => (17, 0),
        };
        kind << KIND_SHIFT | rest
    }

    /// The token in `user_data`; `None` for a value that [`Token::encode`] never gives.
    pub(crate) fn decode(user_data: u64) -> Option<Self> {
        let rest = user_data & ((1 << KIND_SHIFT) - 1);
        let number = || u32::try_from(rest).ok();
        let id = || ConnectionId {
            slot: u32::try_from(rest & SLOT_MASK).expect("24 bits"),
            generation: u32::try_from(rest >> SLOT_BITS & GENERATION_MASK).expect("32 bits"),
        };
        Some(match user_data >> KIND_SHIFT {
            1 => Self::Accept(number()?),
            2 => Self::CancelAccept(number()?),
            3 if rest == 0 => Self::Wake,
            4 => Self::Receive(id()),
            5 => Self::Send(id()),
            6 => Self::Cancel(id()),
            7 => Self::AcceptSample(id()),
            8 => Self::ReceiveSample(id()),
            9 => Self::Shutdown(id()),
            10 => Self::Close(id()),
            11 => Self::Unsent(id()),
            12 => Self::AcceptOne(number()?),
            13 => Self::ResetOnClose(id()),
            14 => Self::HandOver { number: id().generation, member: id().slot },
            15 if rest == 0 => Self::TakeOver,
            16 => Self::Install(id()),
            17 if rest == 0 => Self::Room,
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
        fn decode_is_the_inverse_of_encode(kind in 0..17usize, slot in 0..MAX_SLOTS, generation: u32) {
            let id = ConnectionId { slot, generation };
            let token = [
                Token::Accept(generation), Token::CancelAccept(generation), Token::Wake, Token::Receive(id),
                Token::Send(id), Token::Cancel(id), Token::AcceptSample(id), Token::ReceiveSample(id),
                Token::Shutdown(id), Token::Close(id), Token::Unsent(id), Token::AcceptOne(generation),
                Token::ResetOnClose(id), Token::HandOver { number: generation, member: slot }, Token::TakeOver,
                Token::Install(id), Token::Room,
            ][kind];
            prop_assert_eq!(Token::decode(token.encode()), Some(token));
        }

        #[test]
        fn what_decodes_encodes_to_the_same(user_data: u64, kind in 0..20u64) {
            let user_data = kind << KIND_SHIFT | user_data >> 8;
            if let Some(token) = Token::decode(user_data) {
                prop_assert_eq!(token.encode(), user_data);
            }
        }

        #[test]
        fn foreign_user_data_is_refused(kind in 17..=255u64, rest in 0..1u64 << KIND_SHIFT) {
            prop_assert_eq!(Token::decode(kind << KIND_SHIFT | rest), None);
        }
    }
}
