//! Bytes that say which connection and which place in its stream they belong to.

use std::sync::LazyLock;

use load::pattern::Pattern;

static PATTERN: LazyLock<Pattern> = LazyLock::new(Pattern::default);

/// The bytes of stream `number` from `offset` on: `count` of them, or as many as [`Pattern::bytes`] gives.
pub(crate) fn bytes(number: u32, offset: u64, count: usize) -> &'static [u8] {
    PATTERN.bytes(number, offset, count as u64)
}

/// # Panics
/// If `received` is not what stands at `offset` of stream `number`; says where the first wrong byte is.
pub(crate) fn check(number: u32, offset: u64, received: &[u8]) {
    let expected = bytes(number, offset, received.len());
    assert_eq!(expected.len(), received.len(), "checked in pieces that the pattern gives at once");
    if let Some(wrong) = expected.iter().zip(received).position(|(e, r)| e != r) {
        panic!(
            "byte {} of the stream is {:#04x} instead of {:#04x} ({} bytes from {offset} on were read)",
            offset + wrong as u64,
            received[wrong],
            expected[wrong],
            received.len()
        );
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Numbers {
    state: u64,
}

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let span = (high - low + 1) as u64;
        low + usize::try_from((self.state >> 33) % span).expect("below a usize")
    }
}
