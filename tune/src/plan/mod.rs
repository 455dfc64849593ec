//! `plan(&Profile, &Host) -> Desired`: what every setting shall hold. Pure.

mod cpus;
mod ethtool;
mod irqbalance;
mod napi_threads;
mod placement;
mod power;
mod queues;
mod sysctls;

use std::collections::{BTreeMap, BTreeSet};

use crate::cpu_set::CpuSet;
use crate::host::names::list;
use crate::host::{Host, InterfaceName, SysctlName};
use crate::profile::Profile;
use crate::setting::{Setting, Value};

/// What every setting that the profile touches shall hold, in the order of writing. The values are those that
/// the kernel will show: RPS without isolated CPUs, table sizes rounded up to a power of two, sysctls never
/// below what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Value by setting.
    pub settings: BTreeMap<Setting, Value>,
    /// Why each of them.
    pub reasons: BTreeMap<Setting, String>,
    /// The sysctls that stay above what the profile asks for, in the order of the profile.
    pub kept: Vec<Kept>,
    /// What the profile asks for and the host, its driver or its kernel does not have.
    pub skipped: Vec<Skipped>,
    /// What who applies the profile should know, as what is not known before it is written: one sentence
    /// each.
    pub notes: Vec<String>,
}

impl Desired {
    /// The setting shall hold this, for this reason.
    pub(crate) fn set(&mut self, setting: Setting, value: Value, reason: impl Into<String>) {
        self.reasons.insert(setting.clone(), reason.into());
        self.settings.insert(setting, value);
    }

    /// Skips a wish that the host cannot have, or refuses the profile where it requires it.
    fn cannot(&mut self, require: bool, wish: String, reason: String) -> Result<(), PlanError> {
        if require {
            return Err(PlanError::Required { wish, reason });
        }
        self.skipped.push(Skipped { wish, reason });
        Ok(())
    }
}

/// A wish that the host cannot have; the rest of the profile can be had without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The key of the profile, and of which interface: `channels.combined of eth0`.
    pub wish: String,
    /// Why, and what could be done.
    pub reason: String,
}

/// A sysctl of which a plain value in the profile, a lower bound, asks less than it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The sysctl.
    pub name: SysctlName,
    /// What it shall hold: what it does, where the profile asks less.
    pub value: Value,
    /// What the profile asks for.
    pub asked: Value,
}

/// Why a profile cannot be had on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The profile names CPUs that are not online.
    #[error(
        "the profile's CPUs {asked} are not all on this host: {missing} missing, online are {online}; \
         choose others with --cpus {online}"
    )]
    MissingCpus {
        /// `cpus` of the profile.
        asked: CpuSet,
        /// Those that are not online.
        missing: CpuSet,
        /// The host's.
        online: CpuSet,
    },
    /// `cpus = "online"`, and none is left.
    #[error(
        "cpus = \"online\" leaves no CPU: online are {online}, isolated {isolated}, allowed {allowed}; name \
         the workers' CPUs with --cpus"
    )]
    NoWorkerCpus {
        /// Those that are online.
        online: CpuSet,
        /// Those that are isolated or `nohz_full`.
        isolated: CpuSet,
        /// Those that this process may use.
        allowed: CpuSet,
    },
    /// `placement = "numa-local"` on a host with several nodes, of which the NIC's is not known.
    #[error(
        "queues.placement = \"numa-local\": the NUMA node of {interface} is not known, and this host has \
         {nodes} nodes; name the CPUs: placement = {{ pack = \"LIST\" }}"
    )]
    UnknownNode {
        /// The interface.
        interface: InterfaceName,
        /// How many nodes there are.
        nodes: usize,
    },
    /// `placement = "numa-local"`, and no worker is there.
    #[error(
        "queues.placement = \"numa-local\": {interface} is on node {nodes}, and none of the workers' CPUs \
         {workers} is on node {nodes}; choose others with --cpus"
    )]
    NoLocalCpus {
        /// The interface.
        interface: InterfaceName,
        /// Its node; several where it stands on several PCI functions.
        nodes: String,
        /// The CPUs of the workers.
        workers: CpuSet,
    },
    /// `placement = { pack = … }` with CPUs that are not online.
    #[error("queues.placement.pack: CPUs {asked} are not all online: {missing} missing, online are {online}")]
    PackedOffline {
        /// The CPUs of the profile.
        asked: CpuSet,
        /// Those that are not online.
        missing: CpuSet,
        /// The host's.
        online: CpuSet,
    },
    /// The interface stands on others, which have the queues and interrupts.
    #[error(
        "interface {interface} stands on {}", match list(lower).as_str() {
            "" => "others, of which none has a device: there is nothing to tune".to_owned(),
            lower => format!("{lower}: their queues and interrupts carry its packets; tune each of them with \
                              --interface"),
        }
    )]
    Stacked {
        /// The interface.
        interface: InterfaceName,
        /// The lowest interfaces under it.
        lower: BTreeSet<InterfaceName>,
    },
    /// The interface has no queues in sysfs.
    #[error("interface {0} has no RX and TX queues in /sys/class/net/{0}/queues")]
    NoQueues(InterfaceName),
    /// The queue map is ambiguous or incomplete.
    #[error(
        "the interrupts of {interface} cannot be placed: {reason}; set queues.irq = \"keep\" to leave them \
         alone and, where it has a queue for each CPU, queues.rps to a fixed choice"
    )]
    QueueMap {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        reason: String,
    },
    /// `--map` and another number of channels.
    #[error(
        "--map tells the interrupts that {0} has now, and for another number of channels its driver asks for \
         others: set channels.count first, without --map and with queues.irq = \"keep\", and then map those \
         that are there"
    )]
    MapOfOtherChannels(InterfaceName),
    /// With a queue for each CPU `rps = "auto"` asks whether the interrupts fire there, and `irq = "keep"`
    /// leaves that to whoever placed them.
    #[error(
        "queues.rps = \"auto\" follows from where tune places the interrupts of {0}, which has a queue for \
         each CPU, and queues.irq = \"keep\" leaves them; set queues.rps to \"queue-cpu\", \"off\" \
         or \"keep\", or queues.irq to \"follow\""
    )]
    AutoRpsOfKeptIrqs(InterfaceName),
    /// No housekeeping CPU is left to receive packets through RPS.
    #[error(
        "RPS of {interface} rx-{queue} would go to CPUs {cpus}, all of them isolated (isolcpus, nohz_full): \
         the kernel refuses that; set queues.rps = \"off\" or choose other CPUs with --cpus"
    )]
    IsolatedCpus {
        /// The interface.
        interface: InterfaceName,
        /// The RX queue.
        queue: crate::host::QueueIndex,
        /// The CPUs.
        cpus: CpuSet,
    },
    /// A section says `require = true`, and the host cannot have what it asks for.
    #[error("{wish}: {reason}; the profile requires it: leave out require = true to go without")]
    Required {
        /// The key of the profile, and of which interface.
        wish: String,
        /// Why not.
        reason: String,
    },
    /// `rps_default = "workers"`, and the kernel would take all of them out.
    #[error(
        "queues.rps_default = \"workers\": the workers' CPUs {0} are all isolated (isolcpus, nohz_full), and \
         the kernel refuses that; write \"off\" or \"keep\""
    )]
    IsolatedDefault(CpuSet),
    /// A sysctl holds another number of fields, or words where numbers are asked for.
    #[error(
        "sysctl {name} holds \"{found}\" here, to which \"{asked}\" cannot be compared; give a value of that \
         form"
    )]
    SysctlShape {
        /// The sysctl.
        name: SysctlName,
        /// What it holds.
        found: Value,
        /// What the profile asks for.
        asked: Value,
    },
}

/// Plans a profile on a host.
///
/// # Errors
/// If the host lacks CPUs or sysctls that the profile names, or the profile wants interrupts set whose queues
/// are not known for certain.
pub fn plan(profile: &Profile, host: &Host) -> Result<Desired, PlanError> {
    let mut desired = Desired::default();
    let cpus = cpus::workers(&profile.cpus, &host.topology, &mut desired)?;
    ethtool::plan(profile, host, &cpus, &mut desired)?;
    let predicted = ethtool::predicted(profile, host, &mut desired)?;
    queues::plan(profile, predicted.as_ref().unwrap_or(host), &cpus, &mut desired)?;
    power::plan_napi(profile, host, &mut desired)?;
    power::plan_governor(profile, host, &cpus, &mut desired)?;
    irqbalance::plan(profile.irqbalance, &host.irqbalance, &mut desired)?;
    sysctls::plan(profile, host, &mut desired)?;
    Ok(desired)
}
