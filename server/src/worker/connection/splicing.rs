//! How a connection comes to have its bytes spliced, and from there back to the pool. Pure.
//!
//! Bytes that go through the worker's pipe never lie in the worker's memory, but for those that the socket
//! does not take at once: these are queued, and until they are gone nothing more is spliced.

use std::num::NonZeroU32;

use super::Connection;
use super::state::{State, Way};
use crate::worker::memory::{Memory, PieceId};
use crate::worker::token::Descriptor;

impl Connection {
    /// A receive has brought bytes of a large message: the next are to be spliced.
    pub(crate) fn begins_to_splice(&mut self) {
        if self.state == State::Open && !self.alias_refused {
            self.way = Way::Pipe;
            self.little = false;
        }
    }

    /// The watch has found that bytes wait. They are spliced when it is the connection's turn.
    pub(crate) fn bytes_wait(&mut self) {
        self.ready = true;
    }

    /// It is the connection's turn. Gives the plain descriptor to splice from and to; `None` if that is not
    /// to be done any more.
    pub(crate) fn take_turn(&mut self) -> Option<u32> {
        self.ready = false;
        let free = self.state == State::Open && self.way == Way::Pipe && self.queue.is_empty();
        match (self.descriptor, self.alias) {
            _ if !free => None,
            (Descriptor::Plain(number), _) => Some(number),
            (Descriptor::Direct(_), alias) => alias.map(NonZeroU32::get),
        }
    }

    /// Bytes were spliced, `little` for a large message. The end of one may be; two in a row are not.
    pub(crate) fn spliced(&mut self, little: bool) {
        if little && self.little {
            self.stops_splicing();
        }
        self.little = little;
    }

    /// What comes next is received.
    pub(crate) fn stops_splicing(&mut self) {
        self.way = Way::Pool;
        self.ready = false;
    }

    /// The socket was full, and this is left of what was taken out of it.
    pub(crate) fn left_over(&mut self, piece: PieceId, memory: &mut Memory) {
        self.queue.push(piece, memory);
        self.blocked = true;
    }

    /// There is a plain descriptor beside the direct one, or there is none to be had.
    pub(crate) fn alias_answered(&mut self, number: Option<NonZeroU32>) {
        self.look_ended();
        self.alias = number;
        self.alias_refused = number.is_none();
        if self.alias_refused {
            self.stops_splicing();
        }
    }

    /// The plain descriptor beside a direct one, which is to be closed before it.
    pub(crate) fn take_alias(&mut self) -> Option<u32> {
        self.alias.take().map(NonZeroU32::get)
    }
}
