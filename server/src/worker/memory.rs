//! Where received bytes lie until they have gone back: in receive buffers, or, for a peer that does not read,
//! in the spill. Pure but for the buffers themselves.
//!
//! A connection's queue is a list of pieces, linked by their numbers in one table. A piece is a whole receive
//! buffer that the worker holds, or a piece of the spill, so that queueing never allocates: each place in the
//! table stands for memory that is there.

use std::io;

use rustix::io::Errno;

use super::WorkerError;
use super::buffers::{Buffers, Mapping, Pages};
use super::connections::list;
use super::spill::{SPILL_PIECE, Spill, SpillPiece};
use super::token::BufferId;

/// A place in the table of pieces: first the buffers of the pool, from there on pieces of the spill.
pub(crate) type PieceId = u32;

/// The end of a list of pieces.
pub(crate) const NO_PIECE: PieceId = PieceId::MAX;

/// The piece that [`Memory::source`] is.
const SOURCE_PIECE: PieceId = PieceId::MAX - 1;

/// The bytes that a connection of `--mode sink-source` gets repeat after this many: the byte at offset `i` of
/// the stream is `i % 251`.
pub(crate) const SOURCE_PERIOD: usize = 251;

/// Bytes of the source that one send takes at most.
pub(crate) const SOURCE_BYTES: usize = 1024 * SOURCE_PERIOD;

/// Bytes that are to be sent: `start..end` of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The piece.
    pub(crate) piece: PieceId,
    /// Index of the first byte.
    pub(crate) start: u32,
    /// Index behind the last byte.
    pub(crate) end: u32,
}

impl Span {
    /// Bytes `start..end` of the source.
    pub(crate) fn of_source(start: u32, end: u32) -> Self {
        Self { piece: SOURCE_PIECE, start, end }
    }

    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// What the table knows of a piece that is in a list.
#[derive(Debug, Clone, Copy)]
struct Piece {
    next: PieceId,
    /// Bytes not yet sent.
    start: u32,
    end: u32,
}

const UNUSED: Piece = Piece { next: NO_PIECE, start: 0, end: 0 };

/// The memory of one worker for bytes on their way.
pub(crate) struct Memory {
    /// The receive buffers.
    pool: Buffers,
    spill: Spill,
    /// As many as were ever used: untouched memory costs nothing, and the table never grows beyond its room.
    pieces: Vec<Piece>,
    source: Option<Mapping>,
}

impl Memory {
    /// `count` buffers of `size` bytes as the pool, this spill, and with `source` the bytes of `--mode
    /// sink-source`.
    ///
    /// # Errors
    /// ENOMEM without memory, or without as many huge pages.
    pub(crate) fn map(
        count: u16,
        size: u32,
        pages: Pages,
        source: bool,
        spill: Spill,
    ) -> Result<Self, WorkerError> {
        let pool = Buffers::map(count, size, pages)
            .map_err(|error| WorkerError::Start("map the buffers", error, pages.hint()))?;
        let mut pieces = list(pool.count() + spill.count()).map_err(|_| {
            let hint = "; take a lower --spill or fewer --buffers";
            WorkerError::Start("allocate the table of pieces", Errno::NOMEM.into(), hint)
        })?;
        pieces.resize(pool.count(), UNUSED);
        let source = source.then(map_source).transpose();
        let source = source.map_err(|error| WorkerError::Start("map the bytes to answer with", error, ""))?;
        Ok(Self { pool, spill, pieces, source })
    }

    /// The receive buffers.
    pub(crate) fn pool(&self) -> &Buffers {
        &self.pool
    }

    /// Lets the kernel have the buffers that were given back.
    pub(crate) fn publish(&mut self) {
        self.pool.publish();
    }

    /// The bytes of a span.
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        let (start, end) = (span.start as usize, span.end as usize);
        match self.place(span.piece) {
            Place::Buffer(id) => self.pool.bytes(id, start, end),
            Place::Spill(piece) => &self.spill.bytes(piece)[start..end],
            Place::Source => &self.source.as_ref().expect("a source to send from").bytes()[start..end],
        }
    }

    /// The piece after this one in its list.
    pub(super) fn next(&self, piece: PieceId) -> PieceId {
        self.pieces[piece as usize].next
    }

    pub(super) fn set_next(&mut self, piece: PieceId, next: PieceId) {
        self.pieces[piece as usize].next = next;
    }

    /// What of a piece is not yet sent.
    pub(super) fn span(&self, piece: PieceId) -> Span {
        let Piece { start, end, .. } = self.pieces[piece as usize];
        Span { piece, start, end }
    }

    /// The first `bytes` unsent bytes of a piece were sent.
    pub(super) fn skip(&mut self, piece: PieceId, bytes: usize) {
        let piece = &mut self.pieces[piece as usize];
        piece.start += u32::try_from(bytes).expect("no more than the piece has");
        debug_assert!(piece.start <= piece.end);
    }

    /// A completion named this buffer, into which `length` bytes were received: it is a piece now. `None` as
    /// [`Buffers::take`].
    pub(crate) fn take(&mut self, buffer: BufferId, length: u32) -> Option<PieceId> {
        let piece = PieceId::from(self.pool.take(buffer)?);
        self.pool.filled(length);
        self.pieces[piece as usize] = Piece { end: length, ..UNUSED };
        Some(piece)
    }

    /// A piece is in no list any more.
    pub(crate) fn give_back(&mut self, piece: PieceId) {
        match self.place(piece) {
            Place::Buffer(id) => self.pool.give_back(id),
            Place::Spill(piece) => self.spill.give_back(piece),
            Place::Source => {}
        }
    }

    /// An empty piece of the spill; `None` if that is full.
    pub(super) fn spill_piece(&mut self) -> Option<PieceId> {
        let id = self.pool.count() + self.spill.take()? as usize;
        if id == self.pieces.len() {
            self.pieces.push(UNUSED);
        } else {
            self.pieces[id] = UNUSED;
        }
        Some(PieceId::try_from(id).expect("a spill has fewer than 2^31 pieces"))
    }

    /// As [`Spill::is_tight`].
    pub(super) fn spill_is_tight(&self) -> bool {
        self.spill.is_tight()
    }

    /// Bytes that the spill has room for, in whole pieces.
    pub(super) fn spill_room(&self) -> usize {
        (self.spill.count() - self.spill.used()) * SPILL_PIECE
    }

    /// Bytes of the spill that are used, in whole pieces.
    pub(super) fn spill_bytes(&self) -> usize {
        self.spill.used() * SPILL_PIECE
    }

    /// How many bytes may be put behind those of a piece: none if it is a receive buffer.
    pub(super) fn room(&self, piece: PieceId) -> usize {
        match self.place(piece) {
            Place::Spill(_) => SPILL_PIECE - self.pieces[piece as usize].end as usize,
            Place::Buffer(_) | Place::Source => 0,
        }
    }

    /// A piece of the spill, which has [room](Memory::spill_room), with bytes that `fill` writes to it, at
    /// most [`SPILL_PIECE`]; it says how many.
    pub(super) fn spill(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> PieceId {
        let piece = self.spill_piece().expect("there was room");
        let Place::Spill(place) = self.place(piece) else { unreachable!("just taken from there") };
        let length = fill(self.spill.bytes_mut(place));
        self.pieces[piece as usize].end = u32::try_from(length).expect("no more than the piece has");
        piece
    }

    /// Copies bytes behind those of a piece of the spill, which has [room](Memory::room) for them.
    pub(super) fn append(&mut self, piece: PieceId, from: Span) {
        let Place::Spill(place) = self.place(piece) else { unreachable!("only the spill is written to") };
        let Place::Buffer(id) = self.place(from.piece) else { unreachable!("only buffers are copied from") };
        let bytes = self.pool.bytes(id, from.start as usize, from.end as usize);
        let end = self.pieces[piece as usize].end as usize;
        self.spill.bytes_mut(place)[end..end + bytes.len()].copy_from_slice(bytes);
        self.pieces[piece as usize].end += from.end - from.start;
    }

    /// Whether what is left in a piece is to be copied out of it, for a peer that does not read: so that such
    /// peers can't keep the buffers from those that read, and that no peer can hold one for a few bytes.
    pub(super) fn is_to_be_copied(&self, piece: PieceId) -> bool {
        match self.place(piece) {
            Place::Buffer(_) => self.span(piece).len() < self.pool.size() / 2 || self.pool.few_left(),
            Place::Spill(_) | Place::Source => false,
        }
    }

    /// As [`Buffers::receive`].
    #[cfg(test)]
    pub(crate) fn receive(&mut self, head: u16, bytes: &[u8]) -> Option<BufferId> {
        self.pool.receive(head, bytes)
    }

    fn place(&self, piece: PieceId) -> Place {
        match (piece as usize).checked_sub(self.pool.count()) {
            _ if piece == SOURCE_PIECE => Place::Source,
            None => Place::Buffer(BufferId::try_from(piece).expect("a pool has at most 32768 buffers")),
            Some(index) => Place::Spill(SpillPiece::try_from(index).expect("a piece of the spill")),
        }
    }
}

/// The source, in memory that zero-copy sends may read from.
fn map_source() -> io::Result<Mapping> {
    let mut source = Mapping::new(SOURCE_BYTES, Pages::Small)?;
    let bytes = (0..SOURCE_PERIOD).map(|i| u8::try_from(i).expect("below 251")).cycle();
    source.bytes_mut().iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    Ok(source)
}

/// Where a piece's bytes lie.
enum Place {
    Buffer(BufferId),
    Spill(SpillPiece),
    Source,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(count: u16, size: u32, source: bool) -> Memory {
        Memory::map(count, size, Pages::Small, source, Spill::map(3 * SPILL_PIECE as u64).unwrap()).unwrap()
    }

    #[test]
    fn pieces_of_the_spill_are_no_buffers_and_end_at_its_bound() {
        let mut memory = memory(2, 64, false);
        let room = memory.pieces.capacity();
        for _ in 0..2 {
            let pieces: Vec<PieceId> = std::iter::from_fn(|| memory.spill_piece()).collect();
            assert_eq!(pieces, [2, 3, 4]);
            assert_eq!((memory.spill_bytes(), memory.spill_room()), (3 * SPILL_PIECE, 0));
            pieces.into_iter().for_each(|piece| memory.give_back(piece));
            assert_eq!((memory.spill_bytes(), memory.spill_room()), (0, 3 * SPILL_PIECE));
        }
        assert_eq!(memory.pieces.capacity(), room, "the table never grows");
    }

    #[test]
    fn bytes_are_copied_behind_each_other() {
        let mut memory = memory(2, 64, false);
        let full = memory.take(1, 64).unwrap();
        let piece = memory.spill_piece().unwrap();
        assert_eq!((memory.room(full), memory.room(piece)), (0, SPILL_PIECE));
        memory.append(piece, memory.span(full));
        memory.skip(full, 60);
        memory.append(piece, memory.span(full));
        assert_eq!((memory.room(piece), memory.span(piece).len()), (SPILL_PIECE - 68, 68));
        assert_eq!(memory.bytes(memory.span(piece)), [0; 68]);
    }

    #[test]
    fn the_source_says_where_its_bytes_are() {
        let memory = memory(1, 64, true);
        assert_eq!(memory.bytes(Span::of_source(250, 253)), [250, 0, 1]);
    }
}
