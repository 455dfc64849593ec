//! The worker's connections by slot, with the generation that tells a slot's connections apart. Pure.

use super::connection::Connection;
use super::token::{ConnectionId, Slot};

struct Entry {
    generation: u32,
    connection: Connection,
}

/// Slot `s` is index `s` of the ring's direct descriptor table. Entries are made on a slot's first use, in memory
/// reserved at the start; the kernel gives out the lowest slots first.
pub(crate) struct Connections {
    entries: Vec<Entry>,
    capacity: usize,
    open: usize,
}

impl Connections {
    /// A table of `capacity` free slots.
    pub(crate) fn new(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self { entries: Vec::with_capacity(capacity), capacity, open: 0 }
    }

    /// The kernel put a connection into `slot`. `None` if the slot is beyond the table or holds a connection that is not
    /// being closed, which the kernel never does.
    ///
    /// Kernels before 6.14 may report the accept into a slot before the close that freed it; that close is then found
    /// stale.
    pub(crate) fn open(&mut self, slot: Slot) -> Option<ConnectionId> {
        let index = slot as usize;
        if index >= self.capacity {
            return None;
        }
        while self.entries.len() <= index {
            self.entries.push(Entry { generation: 0, connection: Connection::free() });
        }
        if self.entries[index].connection.is_closing() {
            self.closed(ConnectionId { slot, generation: self.entries[index].generation });
        }
        let entry = &mut self.entries[index];
        if !entry.connection.is_free() {
            return None;
        }
        entry.connection.open();
        self.open += 1;
        Some(ConnectionId { slot, generation: entry.generation })
    }

    /// The present connection of a slot, if it has one.
    pub(crate) fn id_of(&self, slot: Slot) -> Option<ConnectionId> {
        let entry = self.entries.get(slot as usize)?;
        (!entry.connection.is_free()).then_some(ConnectionId { slot, generation: entry.generation })
    }

    /// The connection of this slot and generation; `None` if it is gone.
    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        (entry.generation == id.generation && !entry.connection.is_free()).then_some(&mut entry.connection)
    }

    /// The connection's descriptor is closed: its slot is free, for the next generation. False if it was gone already.
    pub(crate) fn closed(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.get(id) else { return false };
        connection.closed();
        let entry = &mut self.entries[id.slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.open -= 1;
        true
    }

    /// Number of connections.
    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    /// Number of free slots.
    pub(crate) fn free_count(&self) -> usize {
        self.capacity - self.open
    }

    /// All connections.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        (0..)
            .zip(&mut self.entries)
            .filter(|(_, entry)| !entry.connection.is_free())
            .map(|(slot, entry)| (ConnectionId { slot, generation: entry.generation }, &mut entry.connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::connection::Step;

    fn close(connections: &mut Connections, id: ConnectionId) {
        let connection = connections.get(id).unwrap();
        connection.abort(drop);
        assert_eq!(connection.next_step(), Some(Step::Close));
    }

    #[test]
    fn a_slot_used_again_has_another_identity() {
        let mut connections = Connections::new(4);
        let first = connections.open(2).unwrap();
        close(&mut connections, first);
        assert!(connections.closed(first));
        assert_eq!((connections.open_count(), connections.free_count()), (0, 4));
        let second = connections.open(2).unwrap();
        assert_ne!(first, second);
        assert!(connections.get(first).is_none(), "late completions find nothing");
        assert!(!connections.closed(first));
        assert!(connections.get(second).is_some());
    }

    #[test]
    fn an_accept_may_overtake_the_close_that_freed_its_slot() {
        let mut connections = Connections::new(4);
        let first = connections.open(0).unwrap();
        close(&mut connections, first);
        let second = connections.open(0).unwrap();
        assert_eq!(connections.open_count(), 1);
        assert!(!connections.closed(first), "the late close is stale");
        assert!(connections.get(second).is_some());
    }

    #[test]
    fn slots_that_the_kernel_cannot_give_are_refused() {
        let mut connections = Connections::new(4);
        assert!(connections.open(4).is_none());
        assert!(connections.open(1).is_some());
        assert!(connections.open(1).is_none(), "still in use");
    }
}
