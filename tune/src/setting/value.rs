//! `Value`: what a setting holds. Pure.

use std::collections::BTreeSet;
use std::fmt;

use crate::cpu_set::CpuSet;
use crate::host::Irq;

/// What a setting holds. Values are compared as what they mean: `Display` is the kernel's own syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// CPUs in a file that takes a list.
    List(CpuSet),
    /// CPUs in a file that takes a hexadecimal mask.
    Mask(CpuSet),
    /// Queues in a file that takes a hexadecimal mask.
    Queues(CpuSet),
    /// One or several integers, signed or unsigned 64-bit ones (`kernel.shmmax`).
    Numbers(Vec<i128>),
    /// Anything else, as words with single spaces.
    Words(String),
}

impl Value {
    /// Interrupts in ascending order.
    #[must_use]
    pub fn from_irqs(irqs: &BTreeSet<Irq>) -> Self {
        Self::Numbers(irqs.iter().map(|irq| i128::from(irq.0)).collect())
    }

    /// The interrupts that [`Value::from_irqs`] was given; a number that is none is left out.
    #[must_use]
    pub fn irqs(&self) -> BTreeSet<Irq> {
        let Self::Numbers(numbers) = self else { return BTreeSet::new() };
        numbers.iter().filter_map(|&number| u32::try_from(number).ok()).map(Irq).collect()
    }

    /// Integers if every word is one, else words. White space between words does not count: the kernel prints
    /// tabs between the three numbers of `tcp_rmem` and takes spaces.
    #[must_use]
    pub fn from_sysctl(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.iter().map(|word| word.parse()).collect() {
            Ok(numbers) if !words.is_empty() => Self::Numbers(numbers),
            _ => Self::Words(words.join(" ")),
        }
    }

    /// As it is written in a profile: a number alone is one, the rest a string.
    #[must_use]
    pub fn in_toml(&self) -> String {
        match self {
            Self::Numbers(numbers) if numbers.len() == 1 => self.to_string(),
            _ => format!("\"{self}\""),
        }
    }

    /// The CPUs of a list or a mask.
    #[must_use]
    pub fn cpus(&self) -> Option<&CpuSet> {
        match self {
            Self::List(cpus) | Self::Mask(cpus) => Some(cpus),
            Self::Queues(_) | Self::Numbers(_) | Self::Words(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(cpus) => cpus.fmt(f),
            Self::Mask(bits) | Self::Queues(bits) => f.write_str(&bits.to_mask()),
            Self::Numbers(numbers) => {
                let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" "))
            }
            Self::Words(words) => f.write_str(words),
        }
    }
}
