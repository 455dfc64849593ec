//! Reads what is to be known of the CPUs.

use anyhow::Result;
use tune::cpu_set::CpuSet;
use tune::host::Topology;
use tune::kernel_files::KernelFiles;

use crate::cgroup;
use crate::doctor::facts::CpuFacts;

const CPU: &str = "/sys/devices/system/cpu";

/// The CPUs of this host.
pub(super) fn gather(files: &KernelFiles) -> Result<CpuFacts> {
    let topology = Topology::read(files)?;
    let governor = |cpu| {
        let text = files.read(&format!("{CPU}/cpu{cpu}/cpufreq/scaling_governor")).ok()?;
        Some((cpu, text.trim().to_owned()))
    };
    Ok(CpuFacts {
        governors: topology.online.iter().filter_map(governor).collect(),
        topology,
        cpuset: cpuset(files),
        isolated: list(files, &format!("{CPU}/isolated")).unwrap_or_default(),
        nohz_full: list(files, &format!("{CPU}/nohz_full")).unwrap_or_default(),
    })
}

/// A list of CPUs; older kernels write `(null)` for none.
fn list(files: &KernelFiles, path: &str) -> Option<CpuSet> {
    let text = files.read(path).ok()?;
    let text = text.trim();
    CpuSet::parse_list(if text == "(null)" { "" } else { text }).ok()
}

/// The CPUs of this process's cgroup, in the hierarchy of version 2 or the `cpuset` one of version 1.
fn cpuset(files: &KernelFiles) -> Option<CpuSet> {
    let text = files.read("/proc/self/cgroup").ok()?;
    let places = cgroup::files(&text, "cpuset", ["cpuset.cpus.effective", "cpuset.effective_cpus"]);
    places.iter().find_map(|path| list(files, path)).filter(|cpus| !cpus.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_host_has_its_cpus() {
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hosts/i40e-48cpu");
        let facts = gather(&KernelFiles::open(tree).unwrap()).unwrap();
        assert_eq!(facts.topology.online.len(), 48);
        assert_eq!(facts.cpuset, None, "the tree says nothing of cgroups");
    }
}
