//! What is simulated, as data, and what it is made of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kernel::{FIRST_RING, Limits};
use super::peer::{Action, Peer};
use super::socket::Socket;
use super::world::{AcceptQueue, World};
use crate::config::{Config, Mode, Overload};
use crate::stats::LiveCounters;
use crate::worker::accepting::reserve;
use crate::worker::spill::SPILL_PIECE;
use crate::worker::{Crew, Features, Settings};

/// What is simulated.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) mode: Mode,
    pub(super) overload: Overload,
    pub(super) max_connections: u32,
    pub(super) backlog: usize,
    pub(super) listeners: usize,
    pub(super) buffers: u16,
    pub(super) buffer_size: u32,
    /// Pieces of each worker's spill.
    pub(super) spill: usize,
    /// Bytes that are spliced at a time, if they are.
    pub(super) splice: Option<usize>,
    /// Numbers that plain descriptors beside direct ones may have.
    pub(super) aliases_below: u32,
    pub(super) submissions: usize,
    pub(super) completions: usize,
    pub(super) direct: bool,
    pub(super) credit: Option<usize>,
    /// Bytes of a socket's receive buffer, of its send buffer, and of the peer's receive buffer.
    pub(super) windows: [usize; 3],
    pub(super) idle_timeout: Option<Duration>,
    pub(super) zerocopy_threshold: Option<u32>,
    pub(super) spin: Duration,
    /// With more than one the first accepts and hands over.
    pub(super) workers: usize,
    pub(super) peers: Vec<Vec<Action>>,
    pub(super) choices: Vec<u32>,
    /// In which turn the server is told to stop, if before all peers are served; and how many turns later
    /// again.
    pub(super) drain_at: Option<usize>,
    pub(super) stop_after: Option<usize>,
    /// In which turn the last worker fails.
    pub(super) fails_at: Option<usize>,
}

impl Default for Case {
    /// Ample, kind, and empty.
    fn default() -> Self {
        Self {
            mode: Mode::Echo,
            overload: Overload::Queue,
            max_connections: 8,
            backlog: 4,
            listeners: 1,
            buffers: 8,
            buffer_size: 64,
            spill: 64,
            splice: Some(256),
            aliases_below: 1000,
            submissions: 64,
            completions: 64,
            direct: true,
            credit: None,
            windows: [4096; 3],
            idle_timeout: None,
            zerocopy_threshold: None,
            spin: Duration::ZERO,
            workers: 1,
            peers: Vec::new(),
            choices: Vec::new(),
            drain_at: None,
            stop_after: None,
            fails_at: None,
        }
    }
}

impl Case {
    fn config(&self) -> Config {
        Config {
            mode: self.mode,
            request_size: 10,
            response_size: 25,
            overload: self.overload,
            idle_timeout: self.idle_timeout,
            zerocopy_threshold: self.zerocopy_threshold,
            spin: self.spin,
            ..Config::default()
        }
    }

    pub(super) fn world(&self) -> World {
        let now = Instant::now();
        let mut world = World::new(self.config(), self.choices.clone(), now, self.workers);
        let [receive, send, peer] = self.windows;
        for (index, script) in self.peers.iter().enumerate() {
            world.sockets.push(Socket::new(receive, send, now));
            world.peers.push(Peer::new(script.clone(), index % self.listeners, peer));
        }
        for _ in 0..self.listeners {
            world.listeners.push(AcceptQueue {
                waiting: [].into(),
                backlog: self.backlog,
                closed: false,
                about_to_close: false,
            });
        }
        world
    }

    /// Bytes of each worker's spill.
    pub(super) fn spill_bytes(&self) -> u64 {
        (self.spill * SPILL_PIECE) as u64
    }

    pub(super) fn limits(&self) -> Limits {
        let reserve = reserve(self.overload, self.listeners);
        Limits {
            submissions: self.submissions,
            completions: self.completions,
            direct: self.direct.then_some((self.max_connections + reserve) as usize),
            credit: self.credit,
            splice: self.splice.filter(|_| self.config().splices()).unwrap_or(0),
        }
    }

    pub(super) fn settings(&self, counters: &[Arc<LiveCounters>]) -> Vec<Settings> {
        let members = counters.iter().map(|counters| (self.max_connections, Arc::clone(counters)));
        let crew = (self.workers > 1).then(|| Arc::new(Crew::new(members)));
        let settings = (0..self.workers).map(|index| {
            if let Some(crew) = &crew {
                crew.set_ring(index, FIRST_RING + i32::try_from(index).unwrap());
            }
            Settings {
                cpu: 0,
                features: Features {
                    direct_descriptors: self.direct,
                    receive_credit: self.credit.is_some(),
                    splice: self.splice.is_some() && self.config().splices(),
                },
                max_connections: self.max_connections,
                backlog: self.backlog,
                spill: self.spill_bytes(),
                aliases_below: self.aliases_below,
                counts_drops: true,
                config: Arc::new(self.config()),
                crew: crew.as_ref().map(|crew| (Arc::clone(crew), index)),
            }
        });
        settings.collect()
    }
}
