//! The fields of a packet that RSS hashes, as text. Pure.
//!
//! The letters are those of `ethtool -N IF rx-flow-hash`: `sdfn` is source and destination address, source
//! and destination port.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Letter and bit (`RXH_*`, `include/uapi/linux/ethtool.h`), in the order in which they are written.
const LETTERS: [(char, u32); 10] = [
    ('m', 1 << 1), // destination address of Ethernet
    ('v', 1 << 2), // VLAN
    ('t', 1 << 3), // protocol
    ('s', 1 << 4),
    ('d', 1 << 5),
    ('f', 1 << 6),
    ('n', 1 << 7),
    ('e', 1 << 8), // tunnel of GTP
    ('l', 1 << 9), // flow label of IPv6
    DISCARD,
];

const DISCARD: (char, u32) = ('r', 1 << 31);

/// A kind of flow whose fields can be chosen: those that a server has connections of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowType {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

impl FlowType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Udp4, Self::Udp6];

    /// Its key in a profile, in JSON and in ethtool(8).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "tcp4",
            Self::Tcp6 => "tcp6",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
        }
    }

    /// The kernel's number (`TCP_V4_FLOW`).
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Tcp4 => 1,
            Self::Udp4 => 2,
            Self::Tcp6 => 5,
            Self::Udp6 => 6,
        }
    }
}

/// The fields that are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HashFields(u32);

impl HashFields {
    /// Of the kernel's bits; `None` if one of them is not known.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let known = LETTERS.iter().fold(0, |known, (_, bit)| known | bit);
        u32::try_from(bits).ok().filter(|bits| bits & !known == 0).map(Self)
    }

    /// The kernel's bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0.into()
    }

    /// True if packets are hashed: not by nothing, and not thrown away.
    #[must_use]
    pub fn spreads(self) -> bool {
        self.0 != 0 && self.0 & DISCARD.1 == 0
    }
}

impl fmt::Display for HashFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let set = LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0);
        f.write_str(&set.map(|(letter, _)| letter).collect::<String>())
    }
}

impl FromStr for HashFields {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "none" {
            return Ok(Self(0));
        }
        let bit = |letter| LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bit);
        let bits = text.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?));
        bits.filter(|bits| *bits != 0).map(Self).ok_or_else(|| {
            let letters: String = LETTERS.iter().map(|(letter, _)| letter).collect();
            format!("\"{}\" is not \"none\" or some of the letters {letters}", text.escape_debug())
        })
    }
}

impl TryFrom<String> for HashFields {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HashFields> for String {
    fn from(fields: HashFields) -> Self {
        fields.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_the_letters_of_ethtool() {
        for (bits, text) in [(0xf0, "sdfn"), (0x30, "sd"), (0, "none"), (1 << 31, "r"), (0x230, "sdl")] {
            let fields = HashFields::from_bits(bits).unwrap();
            assert_eq!((fields.to_string().as_str(), fields.bits()), (text, bits));
            assert_eq!(text.parse::<HashFields>(), Ok(fields));
        }
        assert_eq!("nfds".parse::<HashFields>().unwrap().to_string(), "sdfn");
        assert_eq!(HashFields::from_bits(1), None, "a bit that is not known");
        assert_eq!(HashFields::from_bits(1 << 32), None);
        let error = "sdx".parse::<HashFields>().unwrap_err();
        assert_eq!(error, "\"sdx\" is not \"none\" or some of the letters mvtsdfnelr");
        assert!("".parse::<HashFields>().is_err());
        let spreads = |text: &str| text.parse::<HashFields>().unwrap().spreads();
        assert_eq!(["sd", "none", "r", "sdr"].map(spreads), [true, false, false, false]);
    }

    proptest! {
        #[test]
        fn known_bits_are_read_back_from_their_own_text(bits in any::<u32>()) {
            if let Some(fields) = HashFields::from_bits(bits.into()) {
                prop_assert_eq!(fields.to_string().parse::<HashFields>(), Ok(fields));
            }
        }
    }
}
