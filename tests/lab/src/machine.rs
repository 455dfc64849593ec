//! The machine on which was measured.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sysinfo::{CpuRefreshKind, RefreshKind, System};
use tune::cpu_set::CpuSet;

/// Facts that belong to every measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Kernel release as in `uname -r`.
    pub kernel: String,
    /// Model of the CPUs.
    pub cpu_model: String,
    /// The CPUs that were used.
    pub cpus: CpuSet,
    /// When, in seconds since 1970.
    pub unix_time: u64,
}

impl Machine {
    /// Asks the machine.
    pub fn read(cpus: CpuSet) -> Self {
        let wanted = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(wanted).ok();
        let cpu_model = system.and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            kernel: System::kernel_version().unwrap_or_else(|_| "unknown".to_owned()),
            cpu_model: cpu_model.filter(|model| !model.is_empty()).unwrap_or_else(|| "unknown".to_owned()),
            cpus,
            unix_time: now.map_or(0, |now| now.as_secs()),
        }
    }
}
