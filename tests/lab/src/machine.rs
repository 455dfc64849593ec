//! The machine on which was measured.

use std::fmt;
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
    /// How many CPUs there are.
    pub cpu_count: usize,
    /// The CPUs that were used.
    pub cpus: CpuSet,
    /// When: UTC, as in RFC 3339.
    pub date: String,
    /// The same in seconds since 1970.
    pub unix_time: u64,
}

impl Machine {
    /// Asks the machine.
    pub fn read(cpus: CpuSet) -> Self {
        let wanted = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(wanted).ok();
        let cpu_count = system.as_ref().map_or(0, |system| system.cpus().len());
        let cpu_model = system.and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
        let now = SystemTime::now();
        Self {
            kernel: System::kernel_version().unwrap_or_else(|_| "unknown".to_owned()),
            cpu_model: cpu_model.filter(|model| !model.is_empty()).unwrap_or_else(|| "unknown".to_owned()),
            cpu_count,
            cpus,
            date: humantime::format_rfc3339_seconds(now).to_string(),
            unix_time: now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
        }
    }
}

/// The line that stands above results: day, kernel, CPUs.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, kernel, cpu_count, cpu_model, cpus, .. } = self;
        let day = date.split('T').next().unwrap_or(date);
        write!(f, "{day}, Linux {kernel}, {cpu_count} CPUs ({cpu_model}), of which {cpus} were used")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_above_results_has_day_kernel_and_cpus() {
        let machine = Machine {
            kernel: "6.18.44".to_owned(),
            cpu_model: "Model".to_owned(),
            cpu_count: 4,
            cpus: CpuSet::parse_list("0-1").unwrap(),
            date: humantime::format_rfc3339_seconds(UNIX_EPOCH).to_string(),
            unix_time: 0,
        };
        let line = "1970-01-01, Linux 6.18.44, 4 CPUs (Model), of which 0-1 were used";
        assert_eq!(machine.to_string(), line);
        assert!(Machine::read(machine.cpus).cpu_count > 0);
    }
}
