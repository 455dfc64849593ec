//! Interrupts by number, and what `/proc/irq/N/` says of one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HostError, parse_node, read_as, read_optional_as};
use crate::cpu_set::{Cpu, CpuSet};
use crate::kernel_files::KernelFiles;

/// A Linux interrupt number as in `/proc/interrupts` and `/proc/irq/N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Irq(pub u32);

impl fmt::Display for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Irq {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Where one interrupt may fire and where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IrqState {
    /// `smp_affinity_list`: the CPUs that were set, also while the move to them is still pending.
    pub affinity: CpuSet,
    /// `effective_affinity_list`: the CPUs that the interrupt controller was programmed with. It may lag
    /// behind `affinity` until the next interrupt. `None` where the kernel does not say.
    pub effective: Option<CpuSet>,
    /// `node`: the NUMA node of the device.
    pub node: Option<u32>,
    /// The kernel manages it: since Linux 6.12 `smp_affinity_list` can then not be written
    /// (`irq_set_affinity` gives EPERM), and its mode says so. Before that only a write tells.
    pub managed: bool,
}

impl IrqState {
    /// The one CPU on which it may fire, or, where it is set to several, does; `None` if that is not known.
    #[must_use]
    pub fn cpu(&self) -> Option<Cpu> {
        let one = |cpus: &CpuSet| cpus.first().filter(|_| cpus.len() == 1);
        one(&self.affinity).or_else(|| one(self.effective.as_ref()?))
    }

    /// Reads `/proc/irq/N/`.
    ///
    /// # Errors
    /// If `smp_affinity_list` cannot be read or one of the files not be understood.
    pub fn read(files: &KernelFiles, irq: Irq) -> Result<Self, HostError> {
        let path = |file: &str| format!("/proc/irq/{irq}/{file}");
        let affinity = path("smp_affinity_list");
        Ok(Self {
            affinity: read_as(files, &affinity, CpuSet::parse_list)?,
            managed: files.is_read_only(&affinity),
            effective: read_optional_as(files, &path("effective_affinity_list"), CpuSet::parse_list)?,
            node: read_optional_as(files, &path("node"), parse_node)?.flatten(),
        })
    }
}
