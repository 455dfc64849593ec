//! What the simulated kernel and the peers do where they are free to choose: a stream of numbers from
//! proptest.
//!
//! 0 is always the kindest choice, and what is chosen when the stream has run dry: so a case shrinks to the
//! unkind choices that make it fail, and every case comes to an end.

use std::vec::IntoIter;

/// The stream.
#[derive(Debug)]
pub(super) struct Choices(IntoIter<u32>);

impl Choices {
    pub(super) fn new(stream: Vec<u32>) -> Self {
        Self(stream.into_iter())
    }

    /// True once every choice is kind.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn next(&mut self) -> usize {
        self.0.next().unwrap_or(0) as usize
    }

    /// A number below `n`; 0 if kind.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }

    /// True once in `n` times; false if kind.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.next() % n == n - 1
    }

    /// A number from 1 to `most`, often one of the smallest; `most` if kind.
    pub(super) fn up_to(&mut self, most: usize) -> usize {
        let next = self.next();
        if next % 4 == 3 { most.min(1 + next / 4 % 3) } else { most - next / 4 % most }
    }
}
