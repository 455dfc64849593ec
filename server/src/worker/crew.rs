//! `--accept single`: one worker accepts and hands connections to all in turn. What the workers of such a
//! server know of each other.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering, fence};

use crate::stats::LiveCounters;

/// A worker that connections are handed to.
#[derive(Debug)]
struct Member {
    /// Its ring; -1 while it has none.
    ring: AtomicI32,
    max_connections: u32,
    counters: Arc<LiveCounters>,
    /// Connections handed to it so far.
    handed: AtomicU64,
}

impl Member {
    /// How many more connections it may have.
    fn room(&self) -> usize {
        let under_way = self.handed.load(Ordering::Relaxed).saturating_sub(self.counters.taken_over.get());
        let load = self.counters.open.get() + under_way;
        usize::try_from(u64::from(self.max_connections).saturating_sub(load)).expect("a u32")
    }
}

/// All workers of the server, in the order of `--cores`. The first accepts.
#[derive(Debug)]
pub(crate) struct Crew {
    members: Box<[Member]>,
    /// The first is to be told when there is more room.
    waits: AtomicBool,
    /// The first hands nothing over any more.
    closed: AtomicBool,
}

impl Crew {
    /// Workers with these limits and counters.
    pub(crate) fn new(members: impl Iterator<Item = (u32, Arc<LiveCounters>)>) -> Self {
        let members = members
            .map(|(max_connections, counters)| Member {
                ring: AtomicI32::new(-1),
                max_connections,
                counters,
                handed: AtomicU64::new(0),
            })
            .collect();
        Self { members, waits: AtomicBool::new(false), closed: AtomicBool::new(false) }
    }

    /// A worker's ring is there, or, with -1, about to go.
    pub(super) fn set_ring(&self, member: usize, ring: RawFd) {
        self.members[member].ring.store(ring, Ordering::SeqCst);
    }

    /// How many more connections the workers may have, together.
    pub(super) fn room(&self) -> usize {
        self.members.iter().map(Member::room).sum()
    }

    /// The first wants more room than it has found, and is [told](Crew::has_room) of it. It is to look once
    /// more before it sleeps: either it sees what another makes meanwhile, or he sees that it waits.
    pub(super) fn await_room(&self) {
        self.waits.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// This member may have room now. Gives the ring of the first if that is to be told.
    pub(super) fn has_room(&self, member: usize) -> Option<RawFd> {
        fence(Ordering::SeqCst);
        let waits = member > 0 && self.waits.load(Ordering::Relaxed) && self.members[member].room() > 0;
        if !waits || !self.waits.swap(false, Ordering::Relaxed) {
            return None;
        }
        Some(self.members[0].ring.load(Ordering::SeqCst)).filter(|&ring| ring >= 0)
    }

    /// The first was not told, and waits on.
    pub(super) fn was_not_told(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    /// The member whose turn it is among those with room, from `turn` on.
    pub(super) fn next(&self, turn: usize) -> Option<usize> {
        let count = self.members.len();
        (0..count).map(|i| (turn + i) % count).find(|&member| self.members[member].room() > 0)
    }

    /// A connection is handed to this member; `None` if it has no ring.
    pub(super) fn hand_to(&self, member: usize) -> Option<RawFd> {
        let Member { ring, handed, .. } = &self.members[member];
        // Counted first: a member that takes its ring away and then looks for what is under way sees this
        // one, or else its ring was not seen here.
        handed.fetch_add(1, Ordering::SeqCst);
        let ring = ring.load(Ordering::SeqCst);
        if ring < 0 {
            self.came_back(member);
            return None;
        }
        Some(ring)
    }

    /// What was handed to this member did not reach it.
    pub(super) fn came_back(&self, member: usize) {
        self.members[member].handed.fetch_sub(1, Ordering::Release);
    }

    /// Nothing is handed over any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// True if connections were handed to this member that it has not taken over.
    pub(super) fn is_awaiting(&self, member: usize) -> bool {
        let Member { handed, counters, .. } = &self.members[member];
        handed.load(Ordering::SeqCst) > counters.taken_over.get()
    }

    /// True once nothing more comes to this member; for the first once all that it has handed over has come.
    pub(super) fn is_over_for(&self, member: usize) -> bool {
        let mut awaited = if member == 0 { 0..self.members.len() } else { member..member + 1 };
        self.closed.load(Ordering::Acquire) && !awaited.any(|member| self.is_awaiting(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_in_turn_to_those_with_room() {
        let counters: Vec<Arc<LiveCounters>> = (0..3).map(|_| Arc::default()).collect();
        let crew = Crew::new([1, 2, 0].into_iter().zip(counters.iter().cloned()));
        (0..3).for_each(|member| crew.set_ring(member, 10 + i32::try_from(member).unwrap()));
        assert_eq!(crew.room(), 3);
        assert_eq!((crew.next(0), crew.next(1), crew.next(2)), (Some(0), Some(1), Some(0)));
        assert_eq!(crew.hand_to(1), Some(11));
        assert_eq!(crew.room(), 2, "one is on its way");
        counters[1].taken_over.add(1);
        counters[1].open.set(1);
        assert_eq!(crew.room(), 2);
        counters[0].open.set(1);
        assert_eq!((crew.next(0), crew.next(2)), (Some(1), Some(1)));
        assert!(crew.hand_to(1).is_some());
        assert_eq!(crew.next(0), None);
        crew.close();
        assert!(crew.is_over_for(2) && !crew.is_over_for(1));
        assert!(!crew.is_over_for(0), "it has handed over what has not come");
        crew.came_back(1);
        assert!(crew.is_over_for(1) && crew.is_over_for(0));
        crew.set_ring(1, -1);
        assert!(
            crew.hand_to(1).is_none() && !crew.is_awaiting(1),
            "nothing is on its way to a member without a ring"
        );
    }
}
