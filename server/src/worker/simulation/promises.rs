//! What the server promises to its peers. A broken promise is a panic.

use super::socket::{Life, Wait};
use super::world::{PeerId, World};
use crate::config::{Config, Mode, Overload};

impl World {
    /// Panics if the server may not send its FIN now.
    pub(super) fn check_shutdown(&self, id: PeerId) {
        let socket = &self.sockets[id];
        let owed = owed(&self.config, socket.received);
        assert!(socket.reset || socket.sent == owed, "peer {id}: the FIN before the last byte");
    }

    /// Panics if the server may not close this connection now.
    pub(super) fn check_close(&mut self, id: PeerId) {
        let socket = &self.sockets[id];
        let idle = self.config.idle_timeout.is_some_and(|timeout| socket.was_idle(timeout, self.now));
        if socket.reset_on_close && socket.received == 0 {
            assert_eq!(self.config.overload, Overload::Reset);
            self.refused += 1;
            return;
        }
        if socket.reset_on_close {
            assert!(socket.wait != Wait::No, "peer {id}: reset though it reads");
            self.given_up += 1;
            return;
        }
        if socket.reset || self.cut_off || self.config.mode == Mode::AcceptClose || idle {
            return;
        }
        let crossed = self.draining && socket.shut;
        if !crossed {
            assert!(socket.fin, "peer {id}: closed though it has not finished");
            assert!(socket.incoming.is_empty(), "peer {id}: closed with bytes not received");
            assert_eq!(
                socket.sent,
                owed(&self.config, socket.received),
                "peer {id}: closed with bytes unsent"
            );
        } else if !socket.fin {
            assert_eq!(socket.unacknowledged(), 0, "peer {id}: closed before it had everything");
        }
    }

    /// Panics if something is still owed though nothing happens any more.
    pub(super) fn check_quiet(&self) {
        for (id, (socket, peer)) in self.sockets.iter().zip(&self.peers).enumerate() {
            if socket.life == Life::Open && peer.reads {
                let what = format!("peer {id} waits for ever: {socket:?} {peer:?}");
                assert!(!socket.reset && !socket.fin, "not closed: {what}");
                assert!(socket.incoming.is_empty() && socket.outgoing.is_empty(), "{what}");
                assert!(peer.inbox.is_empty() && peer.sent == socket.received, "{what}");
                assert_eq!(socket.sent, owed(&self.config, socket.received), "{what}");
            }
        }
    }
}

/// Bytes that are owed for this many received.
pub(super) fn owed(config: &Config, received: u64) -> u64 {
    match config.mode {
        Mode::Echo => received,
        Mode::Discard | Mode::AcceptClose => 0,
        Mode::SinkSource => received / u64::from(config.request_size) * u64::from(config.response_size),
    }
}
