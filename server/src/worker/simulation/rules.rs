//! What a worker may not ask for. A broken rule is a panic.

use std::os::fd::RawFd;

use super::armed::{Armed, Work, connection, token};
use super::kernel::SimulatedKernel;
use super::world::PeerId;
use crate::worker::kernel::Request;
use crate::worker::token::{ConnectionId, Descriptor, Token};

impl SimulatedKernel {
    /// The connection behind a descriptor, which must be open.
    pub(super) fn socket(&self, descriptor: Descriptor) -> PeerId {
        let open = match descriptor {
            Descriptor::Direct(number) => self.direct.get(number as usize).copied().flatten(),
            Descriptor::Plain(number) => self.world().plain.get(number as usize - 1).copied().flatten(),
        };
        open.unwrap_or_else(|| panic!("{descriptor:?} is not open"))
    }

    /// The connection that a request is for; the descriptor must be its own.
    pub(super) fn socket_of(&self, id: ConnectionId, descriptor: Descriptor) -> PeerId {
        let peer = self.socket(descriptor);
        let mut world = self.world();
        let own = Some((self.worker, id));
        if world.sockets[peer].owner.is_none() {
            assert!(world.sockets.iter().all(|socket| socket.owner != own), "{id:?} is used twice");
            world.sockets[peer].owner = own;
        }
        assert_eq!(world.sockets[peer].owner, own, "{descriptor:?} is another connection's");
        peer
    }

    /// Whether a request of this kind is under way, or its completion has not been seen.
    fn is_under_way(&self, matches: impl Fn(Token) -> bool) -> bool {
        self.armed.iter().filter_map(Armed::token).any(&matches)
            || self.unsubmitted().filter_map(Work::token).any(&matches)
            || self.is_unseen(&matches)
    }

    pub(super) fn check_send(&self, id: ConnectionId, descriptor: Descriptor) -> PeerId {
        let two = self.is_under_way(|token| token == Token::Send(id));
        let notified = |armed: &Armed| matches!(armed, Armed::Notification { send, .. } if send.id == id);
        assert!(!two && !self.armed.iter().any(notified), "{id:?}: two sends in flight");
        self.socket_of(id, descriptor)
    }

    /// The connection of a plain descriptor that may be spliced from and to: nothing else is under way that
    /// reads or writes.
    pub(super) fn check_splice(&self, number: u32) -> PeerId {
        let peer = self.socket(Descriptor::Plain(number));
        let (worker, id) = self.world().sockets[peer].owner.expect("a receive was armed before");
        assert_eq!(worker, self.worker, "another worker's");
        let other = self.is_under_way(|token| token == Token::Receive(id) || token == Token::Send(id));
        assert!(!other, "{id:?}: spliced while it is received from or sent to");
        peer
    }

    /// Panics if the worker may not ask for this now.
    pub(super) fn check_request(&self, request: &Request) {
        let same = token(request);
        match *request {
            Request::AcceptOne(_) | Request::HandOver { .. } | Request::TellOfRoom(_) => {}
            Request::Cancel(_, target) => {
                assert!(!self.is_under_way(|token| Some(token) == same), "{request:?} twice");
                assert!(self.is_under_way(|token| token == target), "{request:?}: nothing to cancel");
            }
            Request::Close(id, descriptor) => {
                self.socket_of(id, descriptor);
                let of_it = |token| connection(token) == Some(id);
                assert!(!self.is_under_way(of_it), "{request:?}: requests are in flight");
            }
            Request::Receive(id, descriptor, _)
            | Request::Watch(id, descriptor)
            | Request::Shutdown(id, descriptor) => {
                let peer = self.socket_of(id, descriptor);
                if matches!(request, Request::Shutdown(..)) {
                    self.world().check_shutdown(peer);
                }
                assert!(!self.is_under_way(|token| Some(token) == same), "{request:?} twice");
            }
            Request::LookForCpu(_, id, direct)
            | Request::LookForUnsent(id, direct)
            | Request::ResetOnClose(id, direct)
            | Request::Install(id, direct) => {
                self.socket_of(id, Descriptor::Direct(direct));
            }
            _ => assert!(!self.is_under_way(|token| Some(token) == same), "{request:?} twice"),
        }
    }

    pub(super) fn listener(&self, descriptor: RawFd) -> usize {
        let known = self.listeners.iter().find(|(raw, _)| *raw == descriptor);
        known.expect("a listener of this worker").1
    }
}
