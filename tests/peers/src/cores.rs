//! CPU lists on the command line.

use tune::cpu_set::{Cpu, CpuSet, CpuSetError};

/// A CPU list in the order in which it was written.
#[derive(Debug, Clone)]
pub(crate) struct Cores(pub(crate) Vec<Cpu>);

impl Cores {
    /// Reads a list such as `0-3,8`.
    pub(crate) fn parse(text: &str) -> Result<Self, CpuSetError> {
        CpuSet::parse_ordered(text).map(Self)
    }
}
