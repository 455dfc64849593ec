//! How the frequency of each CPU is chosen: `/sys/devices/system/cpu/cpuN/cpufreq/`.

use std::collections::{BTreeMap, BTreeSet};

use super::{HostError, read_optional_as};
use crate::cpu_set::{Cpu, CpuSet};
use crate::kernel_files::KernelFiles;

/// The governor of one CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Governor {
    /// `scaling_governor`.
    pub name: String,
    /// `scaling_available_governors`.
    pub available: BTreeSet<String>,
}

/// The governors by CPU; a CPU without cpufreq (a virtual machine, firmware that keeps it to itself) has
/// none.
///
/// # Errors
/// If a file of a CPU exists and cannot be read.
pub(super) fn read(files: &KernelFiles, cpus: &CpuSet) -> Result<BTreeMap<Cpu, Governor>, HostError> {
    let mut governors = BTreeMap::new();
    let words = |text: &str| Ok::<_, String>(text.split_whitespace().map(str::to_owned).collect());
    for cpu in cpus.iter() {
        let Some(name) = files.read_optional(&path(cpu))? else { continue };
        let available = format!("{DIRECTORY}/cpu{cpu}/cpufreq/scaling_available_governors");
        let available = read_optional_as(files, &available, words)?.unwrap_or_default();
        governors.insert(cpu, Governor { name: name.trim().to_owned(), available });
    }
    Ok(governors)
}

const DIRECTORY: &str = "/sys/devices/system/cpu";
const FILE: &str = "/cpufreq/scaling_governor";

/// The kernel path of a CPU's governor.
#[must_use]
pub fn path(cpu: Cpu) -> String {
    format!("{DIRECTORY}/cpu{cpu}{FILE}")
}

/// The CPU of a path that [`path`] gave.
#[must_use]
pub fn parse_path(path: &str) -> Option<Cpu> {
    path.strip_prefix(DIRECTORY)?.strip_prefix("/cpu")?.strip_suffix(FILE)?.parse().ok()
}
