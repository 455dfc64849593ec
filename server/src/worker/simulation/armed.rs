//! What a worker has asked the simulated kernel for, and what of it waits there.

use super::world::PeerId;
use crate::worker::kernel::{Manner, Request, Sample};
use crate::worker::memory::{Memory, Span};
use crate::worker::token::{ConnectionId, Token};

/// What the worker queued.
pub(super) enum Work {
    Request(Request),
    Send(Send),
}

impl Work {
    pub(super) fn token(&self) -> Option<Token> {
        match self {
            Self::Request(request) => token(request),
            Self::Send(send) => Some(Token::Send(send.id)),
        }
    }
}

/// A send: what it reads from, and what was there when it was asked for.
pub(super) struct Send {
    pub(super) id: ConnectionId,
    pub(super) socket: PeerId,
    pub(super) spans: Vec<Span>,
    pub(super) bytes: Vec<u8>,
    pub(super) manner: Manner,
    pub(super) done: usize,
}

impl Send {
    pub(super) fn new(
        id: ConnectionId,
        socket: PeerId,
        spans: Vec<Span>,
        memory: &Memory,
        manner: Manner,
    ) -> Self {
        let bytes = Self::read(&spans, memory);
        assert!(!bytes.is_empty(), "{id:?}: a send of nothing");
        Self { id, socket, spans, bytes, manner, done: 0 }
    }

    fn read(spans: &[Span], memory: &Memory) -> Vec<u8> {
        spans.iter().flat_map(|&span| memory.bytes(span)).copied().collect()
    }

    /// Panics if what the kernel reads is not what it was given.
    pub(super) fn check(&self, memory: &Memory) {
        assert!(Self::read(&self.spans, memory) == self.bytes, "bytes changed while the kernel read them");
    }
}

/// A request that waits in the kernel.
pub(super) enum Armed {
    Accept {
        token: Token,
        listener: usize,
        cancelled: bool,
    },
    Wake,
    /// Not asked for: descriptors that other workers hand over come to any ring.
    Mail,
    Receive {
        id: ConnectionId,
        socket: PeerId,
        /// Bytes that it may still bring.
        credit: usize,
        cancelled: bool,
    },
    /// Until there is something to receive.
    Watch {
        id: ConnectionId,
        socket: PeerId,
        cancelled: bool,
    },
    Send {
        send: Send,
        cancelled: bool,
    },
    /// A zero-copy send that is done, until the peer has the bytes up to this one.
    Notification {
        send: Send,
        position: u64,
    },
    /// Runs on another thread, or later.
    Later(Request),
}

impl Armed {
    pub(super) fn send(&self) -> Option<&Send> {
        match self {
            Self::Send { send, .. } | Self::Notification { send, .. } => Some(send),
            _ => None,
        }
    }

    /// The token by which a cancel finds it.
    pub(super) fn token(&self) -> Option<Token> {
        match self {
            Self::Accept { token, .. } => Some(*token),
            Self::Wake => Some(Token::Wake),
            Self::Receive { id, .. } | Self::Watch { id, .. } => Some(Token::Receive(*id)),
            Self::Send { send, .. } => Some(Token::Send(send.id)),
            Self::Notification { .. } | Self::Mail => None,
            Self::Later(request) => token(request),
        }
    }

    pub(super) fn cancelled(&mut self) -> Option<&mut bool> {
        match self {
            Self::Accept { cancelled, .. }
            | Self::Receive { cancelled, .. }
            | Self::Watch { cancelled, .. }
            | Self::Send { cancelled, .. } => Some(cancelled),
            _ => None,
        }
    }
}

/// What a request's completion carries.
pub(super) fn token(request: &Request) -> Option<Token> {
    Some(match *request {
        Request::AcceptMultishot(listener) => Token::Accept(listener.index),
        Request::AcceptOne(listener) => Token::AcceptOne(listener.index),
        Request::CancelAccepts(listener) => Token::CancelAccept(listener.index),
        Request::PollWake(_) => Token::Wake,
        Request::Receive(id, ..) | Request::Watch(id, _) => Token::Receive(id),
        Request::Install(id, _) => Token::Install(id),
        Request::Cancel(id, _) => Token::Cancel(id),
        Request::Shutdown(id, _) => Token::Shutdown(id),
        Request::ResetOnClose(id, _) => Token::ResetOnClose(id),
        Request::Close(id, _) => Token::Close(id),
        Request::LookForCpu(Sample::Accept, id, _) => Token::AcceptSample(id),
        Request::LookForCpu(Sample::Receive, id, _) => Token::ReceiveSample(id),
        Request::LookForUnsent(id, _) => Token::Unsent(id),
        Request::HandOver { number, member, .. } => Token::HandOver { number, member },
        Request::TellOfRoom(_) => Token::Room,
    })
}

/// The connection that a token is of.
pub(super) fn connection(token: Token) -> Option<ConnectionId> {
    match token {
        Token::Receive(id)
        | Token::Send(id)
        | Token::Cancel(id)
        | Token::AcceptSample(id)
        | Token::ReceiveSample(id)
        | Token::Shutdown(id)
        | Token::Close(id)
        | Token::Unsent(id)
        | Token::Install(id)
        | Token::ResetOnClose(id) => Some(id),
        _ => None,
    }
}
