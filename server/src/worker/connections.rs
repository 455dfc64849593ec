//! The worker's connections by slot, with the generation that tells a slot's connections apart. Pure.

use std::collections::{TryReserveError, VecDeque};

use super::connection::Connection;
use super::token::{ConnectionId, Descriptor, Slot};

struct Entry {
    generation: u32,
    connection: Connection,
}

/// What an idle connection costs, beside 4 bytes in each of two lists and, with direct descriptors, 4 for its
/// CPU.
const _: () = assert!(size_of::<Entry>() <= 128);

/// Entries are made on a slot's first use. The slot freed last is used next: its entry is in the cache.
pub(crate) struct Connections {
    entries: Vec<Entry>,
    free: Vec<Slot>,
    capacity: usize,
}

impl Connections {
    /// A table for `capacity` connections, and memory for `reserve` more.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn new(capacity: u32, reserve: u32) -> Result<Self, TryReserveError> {
        let most = (capacity + reserve) as usize;
        // Untouched memory costs nothing; growing on the way would stop the worker to move it.
        Ok(Self { entries: list(most)?, free: list(most)?, capacity: capacity as usize })
    }

    /// A connection with this descriptor was accepted. It gets a slot even beyond the capacity, which the
    /// acceptor keeps to: it is there and must be served.
    pub(crate) fn open(&mut self, descriptor: Descriptor) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, connection: Connection::free() });
            Slot::try_from(self.entries.len() - 1).expect("descriptors are numbered in 31 bits")
        });
        let entry = &mut self.entries[slot as usize];
        entry.connection.open(descriptor);
        ConnectionId { slot, generation: entry.generation }
    }

    /// A slot was taken from the worker's list. Gives its present connection, if it has one.
    pub(crate) fn unlisted(&mut self, slot: Slot) -> Option<ConnectionId> {
        let entry = self.entries.get_mut(slot as usize)?;
        entry.connection.listed = false;
        (!entry.connection.is_free()).then_some(ConnectionId { slot, generation: entry.generation })
    }

    /// The connection of this slot and generation; `None` if it is gone.
    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        (entry.generation == id.generation && !entry.connection.is_free()).then_some(&mut entry.connection)
    }

    /// The connection was asked to be closed, or the kernel reads no more from what it has sent: after both
    /// its slot is free for the next generation.
    pub(crate) fn ended(&mut self, id: ConnectionId) {
        if self.get(id).is_some_and(Connection::is_over) {
            let entry = &mut self.entries[id.slot as usize];
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(id.slot);
        }
    }

    /// Puts a connection that waits for its turn at the end of a queue, which has room for twice as many as
    /// there may be: where it is full, half of it or more are gone, and are taken out.
    pub(crate) fn queue_up(&mut self, queue: &mut VecDeque<ConnectionId>, id: ConnectionId) {
        if queue.len() == queue.capacity() {
            queue.retain(|&id| self.get(id).is_some());
        }
        queue.push_back(id);
    }

    /// Number of connections.
    pub(crate) fn open_count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// How many more there may be.
    pub(crate) fn free_count(&self) -> usize {
        self.capacity.saturating_sub(self.open_count())
    }

    /// How many there may be before the lists grow.
    #[cfg(test)]
    pub(super) fn rooms(&self) -> [usize; 2] {
        [self.entries.capacity(), self.free.capacity()]
    }

    /// All connections.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        (0..)
            .zip(&mut self.entries)
            .filter(|(_, entry)| !entry.connection.is_free())
            .map(|(slot, entry)| (ConnectionId { slot, generation: entry.generation }, &mut entry.connection))
    }
}

/// Notes in the worker's list that the connection of this slot is to be asked for its next steps.
pub(super) fn note(listed: &mut Vec<Slot>, slot: Slot, connection: &mut Connection) {
    if !std::mem::replace(&mut connection.listed, true) {
        listed.push(slot);
    }
}

/// An empty list with room for this many.
///
/// # Errors
/// If there is no memory for it.
pub(super) fn list<T>(room: usize) -> Result<Vec<T>, TryReserveError> {
    let mut list = Vec::new();
    list.try_reserve_exact(room)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::connection::Step;

    fn close(connections: &mut Connections, id: ConnectionId) {
        let connection = connections.get(id).unwrap();
        connection.refuse(true);
        assert_eq!(connection.next_step(false), Some(Step::Close));
        connections.ended(id);
    }

    #[test]
    fn a_slot_used_again_has_another_identity() {
        let mut connections = Connections::new(4, 0).unwrap();
        let first = connections.open(Descriptor::Direct(7));
        assert_eq!((connections.open_count(), connections.free_count()), (1, 3));
        close(&mut connections, first);
        assert_eq!((connections.open_count(), connections.free_count()), (0, 4));
        let second = connections.open(Descriptor::Plain(8));
        assert_eq!(first.slot, second.slot);
        assert!(connections.get(first).is_none(), "late completions find nothing");
        connections.ended(first);
        assert_eq!(
            connections.get(second).map(|connection| connection.descriptor()),
            Some(Descriptor::Plain(8))
        );
    }

    /// One that waits may go, and its slot be used again while it is queued.
    #[test]
    fn a_queue_of_connections_that_wait_never_grows() {
        let mut connections = Connections::new(2, 0).unwrap();
        let mut queue = VecDeque::from(list(4).unwrap());
        let waiting = connections.open(Descriptor::Plain(1));
        connections.queue_up(&mut queue, waiting);
        for number in 2..100 {
            let gone = connections.open(Descriptor::Plain(number));
            connections.queue_up(&mut queue, gone);
            close(&mut connections, gone);
        }
        assert_eq!((queue.capacity(), queue.front()), (4, Some(&waiting)));
    }

    #[test]
    fn a_connection_beyond_the_capacity_is_kept() {
        let mut connections = Connections::new(1, 1).unwrap();
        let first = connections.open(Descriptor::Plain(1));
        let second = connections.open(Descriptor::Plain(2));
        assert_eq!((connections.open_count(), connections.free_count()), (2, 0));
        close(&mut connections, first);
        assert_eq!(connections.free_count(), 0);
        close(&mut connections, second);
        assert_eq!(connections.free_count(), 1);
    }
}
