//! Addresses from which connections are made, so that their ports never run out. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses and prefixes, such as `127.0.0.0/8` or `10.0.0.1,10.0.0.2`, taken in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(Vec<Range>);

/// Addresses that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    count: u128,
}

impl Sources {
    /// All of 127.0.0.0/8 but its first and last address: from which a server in it can be reached on 16
    /// million times as many ports.
    #[must_use]
    pub fn loopback() -> Self {
        Self(vec![Range { first: Ipv4Addr::new(127, 0, 0, 1).into(), count: (1 << 24) - 2 }])
    }

    /// The address of connection `number`.
    #[must_use]
    pub fn nth(&self, number: u64) -> IpAddr {
        let count: u128 = self.0.iter().map(|range| range.count).sum();
        let mut index = u128::from(number) % count;
        for range in &self.0 {
            if index < range.count {
                return range.nth(index);
            }
            index -= range.count;
        }
        unreachable!("index is below the sum")
    }

    /// True if all addresses are of the family of `address`.
    #[must_use]
    pub fn fit(&self, address: IpAddr) -> bool {
        self.0.iter().all(|range| range.first.is_ipv4() == address.is_ipv4())
    }
}

impl Range {
    fn nth(&self, index: u128) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let index = u32::try_from(index).expect("below the count of a prefix");
                Ipv4Addr::from(u32::from(first) + index).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + index).into(),
        }
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no address and no prefix such as 127.0.0.0/8");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
        let host_bits = bits.checked_sub(length.unwrap_or(bits)).ok_or_else(wrong)?;
        let count = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let value = match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        if value & (count - 1) != 0 {
            return Err(format!("\"{text}\": there are bits behind the prefix"));
        }
        let range = Self { first: address, count };
        // A prefix's first and last addresses are the network and broadcast address.
        let inner = address.is_ipv4() && host_bits > 1;
        Ok(if inner { Self { first: range.nth(1), count: count - 2 } } else { range })
    }
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.0.iter().map(|range| match range.count {
            1 => range.first.to_string(),
            count => format!("{} and the {} after it", range.first, count - 1),
        });
        f.write_str(&ranges.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_and_prefixes_are_taken_in_turn() {
        let sources: Sources = "10.0.0.9,127.1.0.0/30,10.1.0.0/31".parse().unwrap();
        let taken: Vec<String> = (0..6).map(|number| sources.nth(number).to_string()).collect();
        assert_eq!(taken, ["10.0.0.9", "127.1.0.1", "127.1.0.2", "10.1.0.0", "10.1.0.1", "10.0.0.9"]);
        assert_eq!("127.0.0.0/8".parse(), Ok(Sources::loopback()));
        assert_eq!(Sources::loopback().to_string(), "127.0.0.1 and the 16777213 after it");
        let six: Sources = "fd00::/64".parse().unwrap();
        assert_eq!(six.nth(258), "fd00::102".parse::<IpAddr>().unwrap());
        assert!(six.fit("::1".parse().unwrap()) && !six.fit("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in ["", "10.0.0", "10.0.0.1/33", "10.0.0.1/x", "10.0.0.1,,", "127.0.0.0/8 ", "::/129"] {
            let error = text.parse::<Sources>().unwrap_err();
            assert!(error.contains("such as 127.0.0.0/8"), "{text}: {error}");
        }
        assert!("127.0.0.1/8".parse::<Sources>().unwrap_err().contains("behind the prefix"));
    }

    proptest! {
        #[test]
        fn every_address_is_within_its_prefix_and_comes_once(address in any::<u32>(), length in 20..=32u32) {
            let network = address & u32::try_from(u64::from(u32::MAX) << (32 - length) & u64::from(u32::MAX)).unwrap();
            let sources: Sources = format!("{}/{length}", Ipv4Addr::from(network)).parse().unwrap();
            let size = if length > 30 { 1 << (32 - length) } else { (1u64 << (32 - length)) - 2 };
            let all: std::collections::BTreeSet<IpAddr> = (0..size).map(|number| sources.nth(number)).collect();
            prop_assert_eq!(all.len() as u64, size);
            prop_assert_eq!(sources.nth(size), sources.nth(0));
            for address in all {
                let IpAddr::V4(address) = address else { panic!("IPv4 in, IPv4 out") };
                prop_assert_eq!((u64::from(u32::from(address)) ^ u64::from(network)) >> (32 - length), 0);
            }
        }
    }
}
