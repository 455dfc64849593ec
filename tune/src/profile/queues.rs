//! `[queues]`: how queues are laid on CPUs, and what follows for interrupts, XPS and RPS. Pure.

use toml::de::DeValue;

use super::section::{ProfileError, Section};
use crate::cpu_set::CpuSet;

/// The most entries of one RX queue's RFS table that a profile may ask for. The kernel allocates them at
/// once.
const MAX_RPS_FLOW_CNT: u32 = 1 << 20;

/// `[queues]`. The defaults are those of an empty section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// How queues are laid on CPUs.
    pub placement: Placement,
    /// What happens to the interrupts.
    pub irq: IrqPolicy,
    /// What happens to the threads of threaded NAPI.
    pub napi_threads: NapiThreadPolicy,
    /// What happens to `xps_cpus` and `xps_rxqs`.
    pub xps: XpsPolicy,
    /// What happens to `rps_cpus`.
    pub rps: RpsPolicy,
    /// Entries of each RX queue's RFS table; `None` leaves them.
    pub rps_flow_cnt: Option<u32>,
    /// What happens to `net.core.rps_default_mask`.
    pub rps_default: RpsDefault,
    /// Refuse the profile where an interrupt, a thread or a file of these cannot be set.
    pub require: bool,
}

/// `queues.placement`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Placement {
    /// One queue per CPU, the NIC's NUMA node first, there one thread of each core first.
    #[default]
    OnePerCore,
    /// Evenly over nodes and last level caches.
    Spread,
    /// On the CPUs of the NIC's NUMA node only.
    NumaLocal,
    /// On these CPUs only, which need not be those of the workers; never empty.
    Pack(CpuSet),
}

/// `queues.irq`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IrqPolicy {
    /// The interrupts of a queue fire on the queue's CPU.
    #[default]
    QueueCpu,
    /// As they are, and the queues are laid out where they fire.
    Follow,
    /// As they are, and somebody else may move them.
    Keep,
}

/// `queues.napi_threads`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NapiThreadPolicy {
    /// The thread of a queue runs on the queue's CPU.
    #[default]
    QueueCpu,
    /// As they are.
    Keep,
}

/// `queues.xps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum XpsPolicy {
    /// A CPU transmits on the queue that is its own.
    #[default]
    QueueCpu,
    /// A connection transmits on the queue that it is received on; one that has not received, on that of its
    /// CPU.
    RxQueue,
    /// No XPS: the flow's hash chooses the queue.
    Off,
    /// As it is.
    Keep,
}

/// `queues.rps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RpsPolicy {
    /// Off where every CPU has a queue with an interrupt, else over the queue's group of CPUs.
    #[default]
    Auto,
    /// To the queue's CPU.
    QueueCpu,
    /// Off.
    Off,
    /// As it is.
    Keep,
}

/// `queues.rps_default`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RpsDefault {
    /// As it is.
    #[default]
    Keep,
    /// The CPUs of the workers.
    Workers,
    /// Off.
    Off,
}

pub(super) fn parse(section: &Section) -> Result<Queues, ProfileError> {
    section.refuse_unknown(&[
        "placement",
        "irq",
        "napi_threads",
        "xps",
        "rps",
        "rps_flow_cnt",
        "rps_default",
        "require",
    ])?;
    let flows = section.integer("rps_flow_cnt", 0..=i128::from(MAX_RPS_FLOW_CNT))?;
    Ok(Queues {
        placement: parse_placement(section)?,
        irq: section.choice(
            "irq",
            &[("queue-cpu", IrqPolicy::QueueCpu), ("follow", IrqPolicy::Follow), ("keep", IrqPolicy::Keep)],
        )?,
        napi_threads: section.choice(
            "napi_threads",
            &[("queue-cpu", NapiThreadPolicy::QueueCpu), ("keep", NapiThreadPolicy::Keep)],
        )?,
        xps: section.choice(
            "xps",
            &[
                ("queue-cpu", XpsPolicy::QueueCpu),
                ("rx-queue", XpsPolicy::RxQueue),
                ("off", XpsPolicy::Off),
                ("keep", XpsPolicy::Keep),
            ],
        )?,
        rps: section.choice(
            "rps",
            &[
                ("auto", RpsPolicy::Auto),
                ("queue-cpu", RpsPolicy::QueueCpu),
                ("off", RpsPolicy::Off),
                ("keep", RpsPolicy::Keep),
            ],
        )?,
        rps_flow_cnt: flows.and_then(|count| u32::try_from(count).ok()),
        rps_default: section.choice(
            "rps_default",
            &[("keep", RpsDefault::Keep), ("workers", RpsDefault::Workers), ("off", RpsDefault::Off)],
        )?,
        require: section.flag("require")?.unwrap_or(false),
    })
}

/// A name, or a table `{ pack = "LIST" }`.
fn parse_placement(section: &Section) -> Result<Placement, ProfileError> {
    const KEY: &str = "placement";
    const NAMES: &str = "one-per-core, spread, numa-local, { pack = \"0-3\" }";
    let Some(value) = section.get(KEY) else { return Ok(Placement::default()) };
    if let DeValue::Table(table) = value.get_ref() {
        let inner = Section { source: section.source, path: section.key_path(KEY), table };
        inner.refuse_unknown(&["pack"])?;
        let cpus =
            inner.text("pack", |text| CpuSet::parse_ordered(text).map_err(|error| error.to_string()))?;
        let missing = || section.error(KEY, &value.span(), &format!("must be one of: {NAMES}"));
        return cpus.map(|cpus| Placement::Pack(cpus.into_iter().collect())).ok_or_else(missing);
    }
    let choose = |text: &str| match text {
        "one-per-core" => Ok(Placement::OnePerCore),
        "spread" => Ok(Placement::Spread),
        "numa-local" => Ok(Placement::NumaLocal),
        other => Err(format!("\"{}\" is not one of: {NAMES}", other.escape_debug())),
    };
    Ok(section.text(KEY, choose)?.unwrap_or_default())
}
