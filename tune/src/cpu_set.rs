//! `CpuSet`: a set of CPU numbers, to and from the two forms the kernel uses.
//!
//! * list: `0-3,8` (`smp_affinity_list`, `/sys/devices/system/cpu/online`, `--cores`), also with the
//!   stride `0-31:2/8`; parsed by `bitmap_parselist()` in the kernel's `lib/bitmap-str.c`;
//! * mask: `ff,00000000`, groups of 32 bits in hex, most significant first (`rps_cpus`, `xps_cpus`,
//!   `smp_affinity`); parsed by `bitmap_parse()` there.
//!
//! This is the only mask code in the repository.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A CPU's number as in `/sys/devices/system/cpu/cpuN`.
pub type Cpu = u32;

/// The largest number of CPUs a Linux kernel can be built for (`NR_CPUS` with `MAXSMP` on x86).
pub const MAX_CPUS: u32 = 8192;

const WORD_BITS: u32 = u64::BITS;

/// A set of CPUs. `Display`, `FromStr` and serde use the kernel's list form.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct CpuSet {
    /// Bit `c % 64` of word `c / 64` is CPU `c`; the last word is never 0, so that equal sets are equal.
    words: Vec<u64>,
}

/// Why a text is not a CPU list or a CPU mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuSetError {
    /// Nothing between two commas, or nothing at all where CPUs are needed.
    #[error("\"{0}\" names no CPU; write a list such as 0-3,8")]
    Empty(String),
    /// Not a number where a CPU number should stand.
    #[error("\"{part}\" in \"{text}\" is not a CPU number; write a list such as 0-3,8")]
    NotANumber {
        /// The part that could not be read.
        part: String,
        /// The whole text.
        text: String,
    },
    /// A range whose end lies before its start.
    #[error("range {first}-{last} in \"{text}\" runs backwards; write {last}-{first}")]
    Backwards {
        /// First number as written.
        first: u32,
        /// Last number as written.
        last: u32,
        /// The whole text.
        text: String,
    },
    /// A CPU number that no Linux kernel can have.
    #[error("CPU {cpu} in \"{text}\" is beyond {max}, the largest CPU number a Linux kernel can \
             have", max = MAX_CPUS - 1)]
    TooLarge {
        /// The number as written.
        cpu: String,
        /// The whole text.
        text: String,
    },
    /// A stride `:used/group` with used = 0, group = 0 or used > group.
    #[error("stride \":{used}/{group}\" in \"{text}\" must have 1 <= used <= group")]
    Stride {
        /// CPUs taken from each group.
        used: u32,
        /// Size of a group.
        group: u32,
        /// The whole text.
        text: String,
    },
    /// Not a hexadecimal mask as the kernel reads it.
    #[error("\"{0}\" is not a CPU mask; write groups of up to 8 hex digits such as ff,00000000, without 0x")]
    Mask(String),
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The CPUs of a list, in the order in which they are written, each once: `3,0-1` gives 3, 0, 1.
    ///
    /// # Errors
    /// If a part is not a number or a range, a range runs backwards, or a CPU is not below [`MAX_CPUS`].
    pub fn parse_ordered(text: &str) -> Result<Vec<Cpu>, CpuSetError> {
        let mut seen = Self::new();
        let mut ordered = Vec::new();
        for part in text.trim().split(',') {
            for cpu in parse_range(part.trim(), text)? {
                if seen.insert(cpu) {
                    ordered.push(cpu);
                }
            }
        }
        Ok(ordered)
    }

    /// Reads the kernel's list form; white space around it is ignored. A blank text is the empty set, as in
    /// the kernel's own files (`/sys/devices/system/cpu/offline` on most hosts).
    ///
    /// # Errors
    /// As [`CpuSet::parse_ordered`].
    pub fn parse_list(text: &str) -> Result<Self, CpuSetError> {
        if text.trim().is_empty() {
            return Ok(Self::new());
        }
        Ok(Self::parse_ordered(text)?.into_iter().collect())
    }

    /// Reads the kernel's hexadecimal mask form. Like the kernel it takes a group of fewer than 8 digits,
    /// empty groups at either end and white space around it, and refuses `0x`.
    ///
    /// # Errors
    /// If a group is longer than 8 hex digits or holds anything else, or if there is no digit at all.
    pub fn parse_mask(text: &str) -> Result<Self, CpuSetError> {
        let bad = || CpuSetError::Mask(text.trim().to_owned());
        let trimmed = text.trim().trim_matches(',');
        if trimmed.is_empty() {
            return Err(bad());
        }
        let mut set = Self::new();
        for (group, digits) in (0u32..).zip(trimmed.rsplit(',')) {
            let hex_only = digits.bytes().all(|b| b.is_ascii_hexdigit());
            if digits.is_empty() || digits.len() > 8 || !hex_only || group >= MAX_CPUS / 32 {
                return Err(bad());
            }
            let bits = u32::from_str_radix(digits, 16).map_err(|_| bad())?;
            (0..32).filter(|bit| bits & (1 << bit) != 0).for_each(|bit| {
                set.insert(group * 32 + bit);
            });
        }
        Ok(set)
    }

    /// The mask as the kernel takes it: most significant group first, no `0x`, no leading zeros (extra zero
    /// groups give EOVERFLOW). The empty set is `0`.
    #[must_use]
    pub fn to_mask(&self) -> String {
        let groups: Vec<u64> = self.words.iter().flat_map(|w| [w & u64::from(u32::MAX), w >> 32]).collect();
        let Some(top) = groups.iter().rposition(|&g| g != 0) else { return "0".to_owned() };
        let mut mask = format!("{:x}", groups[top]);
        for group in groups[..top].iter().rev() {
            mask.push_str(&format!(",{group:08x}"));
        }
        mask
    }

    /// Adds a CPU; true if it was not yet there.
    ///
    /// # Panics
    /// If `cpu` is not below [`MAX_CPUS`]; texts are checked while they are parsed.
    pub fn insert(&mut self, cpu: Cpu) -> bool {
        assert!(cpu < MAX_CPUS, "CPU {cpu} is not below {MAX_CPUS}");
        let (word, bit) = position(cpu);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// True if `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: Cpu) -> bool {
        let (word, bit) = position(cpu);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Number of CPUs in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// True if the set holds no CPU.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The smallest CPU of the set.
    #[must_use]
    pub fn first(&self) -> Option<Cpu> {
        self.iter().next()
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Cpu> + '_ {
        (0u32..).zip(&self.words).flat_map(|(index, &word)| {
            (0..WORD_BITS).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * WORD_BITS + bit)
        })
    }

    /// The CPUs of `self` that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| !other.contains(cpu)).collect()
    }

    /// The CPUs that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| other.contains(cpu)).collect()
    }

    /// True if every CPU of `self` is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|cpu| other.contains(cpu))
    }
}

fn position(cpu: Cpu) -> (usize, u64) {
    ((cpu / WORD_BITS) as usize, 1 << (cpu % WORD_BITS))
}

/// One part of a list: `7`, `0-3` or `0-31:2/8` (the first 2 of every 8).
fn parse_range(part: &str, text: &str) -> Result<impl Iterator<Item = Cpu> + use<>, CpuSetError> {
    let (range, stride) = match part.split_once(':') {
        Some((range, stride)) => (range, Some(stride)),
        None => (part, None),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (parse_cpu(first, text)?, parse_cpu(last, text)?);
    if first > last {
        return Err(CpuSetError::Backwards { first, last, text: text.to_owned() });
    }
    let (used, group) = match stride {
        None => (1, 1),
        Some(stride) => {
            let not_a_number = || CpuSetError::NotANumber { part: part.to_owned(), text: text.to_owned() };
            let (used, group) = stride.split_once('/').ok_or_else(not_a_number)?;
            (parse_cpu(used, text)?, parse_cpu(group, text)?)
        }
    };
    if used == 0 || used > group {
        return Err(CpuSetError::Stride { used, group, text: text.to_owned() });
    }
    Ok((first..=last).filter(move |cpu| (cpu - first) % group < used))
}

fn parse_cpu(digits: &str, text: &str) -> Result<Cpu, CpuSetError> {
    if digits.is_empty() {
        return Err(CpuSetError::Empty(text.to_owned()));
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CpuSetError::NotANumber { part: digits.to_owned(), text: text.to_owned() });
    }
    match digits.parse() {
        Ok(cpu) if cpu < MAX_CPUS => Ok(cpu),
        _ => Err(CpuSetError::TooLarge { cpu: digits.to_owned(), text: text.to_owned() }),
    }
}

impl FromIterator<Cpu> for CpuSet {
    fn from_iter<I: IntoIterator<Item = Cpu>>(cpus: I) -> Self {
        let mut set = Self::new();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;
    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        Self::parse_list(text)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
