//! Reads what is to be known of the CPUs.

use anyhow::Result;
use tune::cpu_set::CpuSet;
use tune::host::Topology;
use tune::kernel_files::KernelFiles;

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
    places(&text).iter().find_map(|path| list(files, path)).filter(|cpus| !cpus.is_empty())
}

/// The files that may hold the CPUs of a cgroup, from the text of `/proc/self/cgroup`: `ID:CONTROLLERS:PATH`.
fn places(cgroup: &str) -> Vec<String> {
    let rows = cgroup.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_end_matches('/');
        if controllers.is_empty() {
            Some(format!("/sys/fs/cgroup{path}/cpuset.cpus.effective"))
        } else if controllers.split(',').any(|name| name == "cpuset") {
            Some(format!("/sys/fs/cgroup/cpuset{path}/cpuset.effective_cpus"))
        } else {
            None
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpus_of_a_cgroup_are_looked_for_in_both_hierarchies() {
        let text = "9:name=systemd:/\n3:cpuset:/box\n2:cpu,cpuacct:/\n0::/user.slice/a:b\n";
        assert_eq!(
            places(text),
            [
                "/sys/fs/cgroup/cpuset/box/cpuset.effective_cpus",
                "/sys/fs/cgroup/user.slice/a:b/cpuset.cpus.effective"
            ]
        );
        assert_eq!(places("0::/"), ["/sys/fs/cgroup/cpuset.cpus.effective"]);
        assert!(places("nonsense\n1:x\n").is_empty());
    }

    #[test]
    fn a_captured_host_has_its_cpus() {
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hosts/i40e-48cpu");
        let facts = gather(&KernelFiles::open(tree).unwrap()).unwrap();
        assert_eq!(facts.topology.online.len(), 48);
        assert_eq!(facts.cpuset, None, "the tree says nothing of cgroups");
    }
}
