//! The spill: where bytes lie for peers that do not read, so that these do not keep the receive buffers from
//! those that do.
//!
//! All of it is mapped at the start (`--spill`), so that no client makes the worker ask for memory; a page
//! costs some from its first use until nobody uses the spill any more.
//!
//! While it is [tight](Spill::is_tight), whose peer does not read is not read from at all, and the other half
//! is left for what comes before a send has shown that. Only where that does not do either, and buffers are
//! few, is a connection reset: the one whose bytes are to be put into it. They are in the buffers already,
//! and left there would keep these from the others.

use std::io;

use super::buffers::{Mapping, Pages};
use super::connections::list;

/// Bytes of a piece.
pub(crate) const SPILL_PIECE: usize = 16 * 1024;

/// Each worker's spill has as many bytes, or more.
pub(crate) const LEAST_SPILL: u64 = 1 << 20;

/// Pieces whose pages are kept when nobody uses any: 1 MiB.
const KEPT: u32 = 64;

/// The number of a piece.
pub(super) type SpillPiece = u32;

/// The spill of one worker.
pub(crate) struct Spill {
    /// `None` if it has no piece.
    memory: Option<Mapping>,
    most: u32,
    /// The pieces below this number were used since nobody used any.
    touched: u32,
    /// Those of them that nobody uses; the one given back last is the last.
    free: Vec<SpillPiece>,
}

impl Spill {
    /// A spill of so many bytes, less what is no whole piece.
    ///
    /// # Errors
    /// ENOMEM without memory.
    pub(crate) fn map(bytes: u64) -> io::Result<Self> {
        let most = u32::try_from(bytes / SPILL_PIECE as u64).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory =
            (most > 0).then(|| Mapping::new(most as usize * SPILL_PIECE, Pages::Small)).transpose()?;
        let free = list(most as usize).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, most, touched: 0, free })
    }

    /// Pieces that it has.
    pub(super) fn count(&self) -> usize {
        self.most as usize
    }

    /// Pieces that are used.
    pub(super) fn used(&self) -> usize {
        self.touched as usize - self.free.len()
    }

    /// True if more than half of it is used; never if it has no piece.
    pub(super) fn is_tight(&self) -> bool {
        self.used() > self.count() / 2
    }

    /// A piece that nobody uses; `None` if there is none.
    pub(super) fn take(&mut self) -> Option<SpillPiece> {
        self.free.pop().or_else(|| {
            let fresh = self.touched;
            self.touched += u32::from(fresh < self.most);
            (fresh < self.most).then_some(fresh)
        })
    }

    /// Nobody uses a piece any more. If that was the last one, its memory goes back to the system, but for
    /// that of [`KEPT`] pieces.
    pub(super) fn give_back(&mut self, piece: SpillPiece) {
        debug_assert!(piece < self.touched && !self.free.contains(&piece), "nobody uses it");
        self.free.push(piece);
        if self.used() > 0 {
            return;
        }
        if let Some(memory) = &mut self.memory
            && self.touched > KEPT
        {
            memory.forget(KEPT as usize * SPILL_PIECE, self.touched as usize * SPILL_PIECE);
        }
        self.touched = 0;
        self.free.clear();
    }

    /// A piece's bytes.
    pub(super) fn bytes(&self, piece: SpillPiece) -> &[u8] {
        let start = piece as usize * SPILL_PIECE;
        &self.memory.as_ref().expect("a piece was taken from it").bytes()[start..start + SPILL_PIECE]
    }

    /// As [`Spill::bytes`].
    pub(super) fn bytes_mut(&mut self, piece: SpillPiece) -> &mut [u8] {
        let start = piece as usize * SPILL_PIECE;
        &mut self.memory.as_mut().expect("a piece was taken from it").bytes_mut()[start..start + SPILL_PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_so_many_pieces_and_no_more() {
        let mut spill = Spill::map(3 * SPILL_PIECE as u64 + 1).unwrap();
        let pieces: Vec<SpillPiece> = std::iter::from_fn(|| spill.take()).collect();
        assert_eq!((pieces, spill.used(), spill.count()), (vec![0, 1, 2], 3, 3));
        spill.give_back(1);
        assert_eq!((spill.used(), spill.take(), spill.take()), (2, Some(1), None));
        assert_eq!(Spill::map(SPILL_PIECE as u64 - 1).unwrap().take(), None);
    }

    #[test]
    fn it_is_tight_while_more_than_half_of_it_is_used() {
        for (count, expected) in
            [(0, &[false][..]), (1, &[false, true]), (4, &[false, false, false, true, true])]
        {
            let mut spill = Spill::map(count * SPILL_PIECE as u64).unwrap();
            let mut tight = vec![spill.is_tight()];
            while spill.take().is_some() {
                tight.push(spill.is_tight());
            }
            assert_eq!(tight, expected);
        }
    }

    #[test]
    fn its_memory_goes_back_to_the_system_when_nobody_uses_it() {
        let pieces = KEPT + 10;
        let mut spill = Spill::map(u64::from(pieces) * SPILL_PIECE as u64).unwrap();
        for _ in 0..2 {
            for piece in 0..pieces {
                assert_eq!(spill.take(), Some(piece));
                let expected = if spill.bytes(piece)[0] == 1 { 0..KEPT } else { 0..pieces };
                assert!(expected.contains(&piece), "piece {piece} is as it was left");
                spill.bytes_mut(piece).fill(1);
            }
            assert_eq!(spill.take(), None);
            (0..pieces).rev().for_each(|piece| spill.give_back(piece));
            assert_eq!(spill.used(), 0);
        }
    }

    #[test]
    fn its_lists_never_grow() {
        let mut spill = Spill::map(8 * SPILL_PIECE as u64).unwrap();
        let room = spill.free.capacity();
        for _ in 0..3 {
            let pieces: Vec<SpillPiece> = std::iter::from_fn(|| spill.take()).collect();
            pieces.into_iter().for_each(|piece| spill.give_back(piece));
        }
        assert_eq!(spill.free.capacity(), room);
    }
}
