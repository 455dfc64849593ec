//! Which byte stands at which offset of which connection. Pure.
//!
//! All streams are windows into one table of [`PERIOD`] pseudo-random bytes, repeated: stream `c` starts at
//! `c * STRIDE mod PERIOD`. The period is prime, so the first [`PERIOD`] connections all start at different
//! places and a stream shifted by any number of bytes that is not a multiple of the period differs from
//! itself in all but about 1/256 of its bytes. A lost, repeated, swapped or foreign run of bytes is therefore
//! seen by comparing, and both making and checking a message is a slice of the table: no byte is computed,
//! and nothing is copied before it goes to the kernel.

/// Length after which a stream repeats, bytes: the largest prime below 2^16.
pub const PERIOD: usize = 65_521;

/// Longest slice that [`Pattern::bytes`] gives at once.
pub const WINDOW: usize = 256 * 1024;

/// How far apart the streams of neighbouring connections start; not a multiple of the period.
const STRIDE: u64 = 40_503;

/// The table; one per process is enough, threads share it.
#[derive(Debug)]
pub struct Pattern {
    /// `PERIOD + WINDOW` bytes: from each of the `PERIOD` starts a whole window can be read.
    table: Box<[u8]>,
}

impl Default for Pattern {
    fn default() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let period: Vec<u8> =
            std::iter::repeat_with(|| next_random(&mut state).to_le_bytes()[0]).take(PERIOD).collect();
        Self { table: period.iter().copied().cycle().take(PERIOD + WINDOW).collect() }
    }
}

impl Pattern {
    /// The bytes of stream `connection` from `offset` on: `length` of them, or [`WINDOW`] if that is less.
    #[must_use]
    pub fn bytes(&self, connection: u32, offset: u64, length: u64) -> &[u8] {
        let period = PERIOD as u64;
        let start = (u64::from(connection) * STRIDE + offset % period) % period;
        let start = usize::try_from(start).expect("below PERIOD");
        let length = usize::try_from(length).unwrap_or(WINDOW).min(WINDOW);
        &self.table[start..start + length]
    }

    /// Number of bytes of `received` that are not the bytes of stream `connection` from `offset` on.
    #[must_use]
    pub fn count_wrong(&self, connection: u32, mut offset: u64, received: &[u8]) -> u64 {
        let mut wrong = 0;
        for chunk in received.chunks(WINDOW) {
            let expected = self.bytes(connection, offset, chunk.len() as u64);
            if chunk != expected {
                wrong += chunk.iter().zip(expected).filter(|(got, want)| got != want).count() as u64;
            }
            offset += chunk.len() as u64;
        }
        wrong
    }
}

/// splitmix64 (Steele, Lea, Flood 2014).
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbouring_connections_and_shifted_streams_differ() {
        let pattern = Pattern::default();
        let own = pattern.bytes(7, 100, 4096).to_vec();
        assert_eq!(pattern.count_wrong(7, 100, &own), 0);
        for (connection, offset) in [(7, 101), (7, 99), (8, 100), (7, 100 + 4096), (7, 100 + 65_536)] {
            let wrong = pattern.count_wrong(connection, offset, &own);
            assert!(wrong > 4000, "{connection} {offset}: only {wrong} of 4096 bytes differ");
        }
    }

    #[test]
    fn one_wrong_byte_is_one_wrong_byte() {
        let pattern = Pattern::default();
        let mut got = pattern.bytes(1, 0, WINDOW as u64).to_vec();
        got.extend(pattern.bytes(1, WINDOW as u64, 1000));
        assert_eq!(pattern.count_wrong(1, 0, &got), 0);
        let last = got.len() - 1;
        got[last] ^= 1;
        assert_eq!(pattern.count_wrong(1, 0, &got), 1);
    }

    proptest! {
        #[test]
        fn a_stream_does_not_depend_on_how_it_is_cut(
            connection in any::<u32>(), offset in 0..u64::MAX / 2, cut in 1..4000u64,
        ) {
            let pattern = Pattern::default();
            let whole = pattern.bytes(connection, offset, 4000);
            let (head, tail) = whole.split_at(usize::try_from(cut).unwrap());
            prop_assert_eq!(pattern.bytes(connection, offset, cut), head);
            prop_assert_eq!(pattern.bytes(connection, offset + cut, 4000 - cut), tail);
        }
    }
}
