//! What `server doctor` knows of the kernel, the process and the host, as plain data. Pure.
//!
//! What could not be read is `None` or an error's text, never a value that was not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tune::cpu_set::{Cpu, CpuSet};
use tune::host::{Host, Topology};

use crate::worker::Capability;
use crate::worker_plan::{Offer, PlanError, PlannedWorker};

/// All that is judged.
#[derive(Debug)]
pub(super) struct Facts {
    /// `uname -r`.
    pub(super) kernel: String,
    /// What io_uring has here, or why there is none.
    pub(super) capabilities: Result<BTreeSet<Capability>, Refusal>,
    /// CPUs and open files.
    pub(super) offer: Offer,
    /// Connections are direct descriptors: the kernel has them and the configuration does not do without.
    pub(super) direct_descriptors: bool,
    /// The workers that the configuration gives here.
    pub(super) plan: Result<Vec<PlannedWorker>, PlanError>,
    /// A ring for each of them, if there is io_uring.
    pub(super) rings: Option<Rings>,
    /// The process.
    pub(super) process: Process,
    /// `MemAvailable` of `/proc/meminfo`, bytes.
    pub(super) memory: Option<u64>,
    /// Huge pages of the default size.
    pub(super) huge_pages: Option<HugePages>,
    /// Whether the process may become `--user` and `--group`, and why not, in the words of the server's own
    /// start.
    pub(super) privileges: Result<(), String>,
    /// Sysctls that exist, by name.
    pub(super) sysctls: BTreeMap<&'static str, String>,
    /// The addresses of `--listen`, then that of `--metrics`.
    pub(super) addresses: Vec<AddressFacts>,
    /// The CPUs.
    pub(super) cpus: CpuFacts,
    /// The network interfaces.
    pub(super) nics: NicFacts,
}

/// Why there is no io_uring, or not as much as is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In the words of the server's own start.
    pub(super) text: String,
    /// What is behind it.
    pub(super) cause: Cause,
}

/// What is behind a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A sysctl, a seccomp filter, or a kernel built without io_uring: EPERM, EACCES or ENOSYS.
    Forbidden,
    /// A kernel before 6.1.
    TooOld,
    /// Locked memory: ENOMEM.
    Memory,
    /// Anything else.
    Other,
}

/// What came of making a ring for each worker at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rings {
    /// Rings asked for.
    pub(super) asked: usize,
    /// Rings made, each with its buffer ring and its table of direct descriptors.
    pub(super) made: usize,
    /// Why not more.
    pub(super) refusal: Option<Refusal>,
}

/// What the process may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// RLIMIT_MEMLOCK in bytes; `None`: no limit.
    pub(super) memlock: Option<u64>,
    /// Effective capabilities, `CapEff` of `/proc/self/status`.
    pub(super) capabilities: u64,
    /// A seccomp filter is installed.
    pub(super) has_seccomp: bool,
}

/// CAP_NET_ADMIN and CAP_IPC_LOCK of `linux/capability.h`.
pub(super) const CAP_NET_ADMIN: u32 = 12;
pub(super) const CAP_IPC_LOCK: u32 = 14;

impl Process {
    /// Whether it has this capability.
    pub(super) fn may(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }

    /// `CapEff` and `Seccomp` of the text of `/proc/self/status`.
    pub(super) fn parse(status: &str, memlock: Option<u64>) -> Self {
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        Self {
            memlock,
            capabilities: field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0),
            has_seccomp: field("Seccomp:").is_some_and(|mode| mode != "0"),
        }
    }
}

/// Huge pages of the default size, of `/proc/meminfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HugePages {
    /// `Hugepagesize`, bytes.
    pub(super) size: u64,
    /// `HugePages_Free` without `HugePages_Rsvd`: what a mapping can still have.
    pub(super) free: u64,
    /// `HugePages_Total`
    pub(super) total: u64,
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `--listen`
    Listen,
    /// `--metrics`
    Metrics,
}

/// An address that the server is to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressFacts {
    /// The address.
    pub(super) address: SocketAddr,
    /// The option that names it.
    pub(super) purpose: Purpose,
    /// Why it can't be bound, in the words of the server's own start.
    pub(super) error: Option<String>,
    /// Who has the port, if that is why.
    pub(super) holders: Vec<Holder>,
}

/// A socket that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its address.
    pub(super) address: SocketAddr,
    /// Its owner.
    pub(super) uid: u32,
    /// Process number and name of who has it open, if this process may see that.
    pub(super) process: Option<(u32, String)>,
}

/// The CPUs.
#[derive(Debug)]
pub(super) struct CpuFacts {
    /// Cores, siblings, NUMA nodes.
    pub(super) topology: Topology,
    /// `cpuset.cpus.effective` of the process's cgroup.
    pub(super) cpuset: Option<CpuSet>,
    /// `isolated`: `isolcpus=` and isolated partitions.
    pub(super) isolated: CpuSet,
    /// `nohz_full`
    pub(super) nohz_full: CpuSet,
    /// `scaling_governor` by CPU, where there is one.
    pub(super) governors: BTreeMap<Cpu, String>,
}

/// The network interfaces under the addresses of `--listen`.
#[derive(Debug)]
pub(super) struct NicFacts {
    /// The interfaces on which packets for them arrive.
    pub(super) hosts: Vec<Host>,
    /// What could not be read.
    pub(super) errors: Vec<String>,
    /// Addresses of which no packet comes from an interface: loopback.
    pub(super) loopback: Vec<SocketAddr>,
    /// irqbalance runs: its process number.
    pub(super) irqbalance: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_status_file() {
        let status = "Name:\tserver\nCapEff:\t0000000000001000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let process = Process::parse(status, None);
        assert!(process.may(CAP_NET_ADMIN) && !process.may(CAP_IPC_LOCK) && process.has_seccomp);
        let process = Process::parse("CapEff:\t000001ffffffffff\nSeccomp:\t0\n", Some(1));
        assert!(process.may(CAP_IPC_LOCK) && !process.has_seccomp);
        assert_eq!(Process::parse("", None), Process::default(), "what is not said is not granted");
    }
}
