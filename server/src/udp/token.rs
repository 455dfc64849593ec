//! `user_data` of every request: what was asked, for which socket or buffer. Pure.

use super::flight::BufferId;

/// What a completion answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The main thread wrote to the worker's eventfd.
    Wake,
    /// A message on this socket, or the end of its receive.
    Receive(usize),
    /// The send from this buffer, the low 32 bits of its request's number.
    Send(BufferId, u32),
}

impl Token {
    /// The token of a send from this buffer.
    pub(super) fn send(buffer: BufferId, request: u64) -> Self {
        Self::Send(buffer, u32::try_from(request & u64::from(u32::MAX)).expect("32 bits"))
    }

    /// The token as `user_data`.
    pub(super) fn encode(self) -> u64 {
        match self {
            Self::Wake => 1 << 56,
            Self::Receive(socket) => 2 << 56 | socket as u64,
            Self::Send(buffer, request) => 3 << 56 | u64::from(buffer) << 32 | u64::from(request),
        }
    }

    /// The token in `user_data`; `None` for a value that [`Token::encode`] never gives.
    pub(super) fn decode(user_data: u64) -> Option<Self> {
        let low = u32::try_from(user_data & u64::from(u32::MAX)).expect("32 bits");
        let buffer = u16::try_from(user_data >> 32 & 0xffff).expect("16 bits");
        match user_data >> 48 {
            0x100 => Some(Self::Wake),
            0x200 => Some(Self::Receive(low as usize)),
            0x300 => Some(Self::Send(buffer, low)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_is_the_inverse_of_encode(kind in 0..3, socket in 0..1usize << 20, buffer: u16, request: u32) {
            let token =
                [Token::Wake, Token::Receive(socket), Token::Send(buffer, request)][usize::try_from(kind).unwrap()];
            prop_assert_eq!(Token::decode(token.encode()), Some(token));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_kind(user_data: u64) {
            if let Some(token) = Token::decode(user_data) {
                prop_assert_eq!(token.encode() >> 56, user_data >> 56);
            }
        }
    }
}
