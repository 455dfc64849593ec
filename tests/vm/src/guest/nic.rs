//! eth0 as the kernel's files show it: queues, interrupts, masks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tune::cpu_set::{Cpu, CpuSet};

use super::{interrupts, programs};

/// The interrupts of eth0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vectors {
    /// Of each queue: one for both directions, or two.
    pub(super) queues: BTreeMap<u32, Vec<u32>>,
    /// The one that belongs to no queue.
    pub(super) config: Option<u32>,
}

/// What the files of one queue say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    /// Its interrupts, and where each may fire. If there are two, the lower number is that of receiving: the
    /// drivers ask for it first.
    pub(super) irqs: BTreeMap<u32, CpuSet>,
    pub(super) xps: CpuSet,
    pub(super) rps: CpuSet,
}

/// Something that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What `tune` names it by: the setting's path, or enough of it.
    pub(super) object: String,
    /// What it is instead.
    found: String,
}

impl Wrong {
    pub(super) fn new(object: impl Into<String>, found: impl std::fmt::Display) -> Self {
        Self { object: object.into(), found: found.to_string() }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.found)
    }
}

/// Reads a file without its last newline.
pub(super) fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    Ok(fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?.trim_end().to_owned())
}

/// The online CPUs.
pub(super) fn online() -> Result<CpuSet> {
    Ok(read("/sys/devices/system/cpu/online")?.parse()?)
}

/// The CPUs of a NUMA node.
pub(super) fn node(number: usize) -> Result<CpuSet> {
    Ok(read(format!("/sys/devices/system/node/node{number}/cpulist"))?.parse()?)
}

fn device() -> Result<String> {
    let link = fs::read_link("/sys/class/net/eth0/device").context("read the link of eth0's device")?;
    let name = link.file_name().and_then(|name| name.to_str());
    Ok(name.context("the name of eth0's device")?.to_owned())
}

/// The driver.
pub(super) fn driver() -> Result<String> {
    let link =
        fs::read_link("/sys/class/net/eth0/device/driver").context("read the link of eth0's driver")?;
    Ok(link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

/// How many receive queues there are.
pub(super) fn queues() -> Result<u32> {
    let directory = fs::read_dir("/sys/class/net/eth0/queues").context("list the queues of eth0")?;
    let names = directory.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<std::io::Result<_>>().context("list the queues of eth0")?;
    Ok(u32::try_from(names.iter().filter(|name| name.to_string_lossy().starts_with("rx-")).count())?)
}

/// Which interrupt serves which queue, by the names that virtio_net and igb give.
pub(super) fn vectors() -> Result<Vectors> {
    let (device, count) = (device()?, queues()?);
    let prefixes = [
        format!("{device}-input."),
        format!("{device}-output."),
        "eth0-TxRx-".to_owned(),
        "eth0-rx-".to_owned(), // igb with 4 queues or fewer
        "eth0-tx-".to_owned(),
    ];
    let queue_of = |name: &str| prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)?.parse().ok());
    let mut vectors = Vectors { queues: BTreeMap::new(), config: None };
    for row in interrupts::read()? {
        if let Some(queue) = queue_of(&row.name) {
            if queue < count {
                vectors.queues.entry(queue).or_default().push(row.irq);
            }
        } else if row.name == format!("{device}-config") || row.name == "eth0" {
            vectors.config = Some(row.irq);
        }
    }
    if vectors.queues.len() != count as usize {
        bail!("{} queues of eth0 have interrupts, of {count}", vectors.queues.len());
    }
    Ok(vectors)
}

/// What the files of every queue say.
pub(super) fn read_queues() -> Result<BTreeMap<u32, Queue>> {
    let irq = |irq: &u32| Ok((*irq, read(affinity(*irq))?.parse()?));
    let queue = |(queue, irqs): (&u32, &Vec<u32>)| {
        let base = "/sys/class/net/eth0/queues";
        let found = Queue {
            irqs: irqs.iter().map(irq).collect::<Result<_>>()?,
            xps: CpuSet::parse_mask(&read(format!("{base}/tx-{queue}/xps_cpus"))?)?,
            rps: CpuSet::parse_mask(&read(format!("{base}/rx-{queue}/rps_cpus"))?)?,
        };
        Ok((*queue, found))
    };
    vectors()?.queues.iter().map(queue).collect()
}

/// The file that says where an interrupt may fire.
fn affinity(irq: u32) -> String {
    format!("/proc/irq/{irq}/smp_affinity_list")
}

/// The interrupts of all queues.
pub(super) fn irqs() -> Result<Vec<u32>> {
    Ok(vectors()?.queues.into_values().flatten().collect())
}

/// The interrupts of the queues that may fire on every CPU.
pub(super) fn spread_irqs() -> Result<Vec<u32>> {
    let all = online()?.to_string();
    let mut spread = Vec::new();
    for irq in irqs()? {
        if read(affinity(irq))? == all {
            spread.push(irq);
        }
    }
    Ok(spread)
}

/// Lets the interrupts of all queues fire on every CPU.
pub(super) fn spread() -> Result<()> {
    let all = online()?.to_string();
    irqs()?.into_iter().try_for_each(|irq| write(&affinity(irq), &all))
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write \"{text}\" to {path}"))
}

/// A set of one CPU.
pub(super) fn only(cpu: Cpu) -> CpuSet {
    [cpu].into_iter().collect()
}

/// Sets the number of channels, as whoever set the NIC up.
pub(super) fn set_channels(count: u32) -> Result<()> {
    programs::run("ethtool", &["-L", "eth0", "combined", &count.to_string()])?.expect(0)?;
    Ok(())
}

/// Sets the queues up as nobody would wish, so that apply has all of them to change: virtio_net and igb are
/// right by themselves after some changes of their channels.
pub(super) fn scatter() -> Result<()> {
    spread()?;
    for queue in 0..queues()? {
        write(&format!("/sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "1")?;
        write(&format!("/sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "3")?;
    }
    Ok(())
}

/// What is wrong with a queue for each CPU: queue q belongs to CPU q, since the first node is the NIC's and
/// no CPU has a sibling.
pub(super) fn wrong_with_a_queue_for_each_cpu() -> Result<Vec<Wrong>> {
    let queues = read_queues()?;
    let mut wrong = Vec::new();
    if queues.len() != online()?.len() {
        wrong.push(Wrong::new("ethtool/eth0/channels", queues.len()));
    }
    for (number, queue) in queues {
        let own = only(number);
        let elsewhere = queue.irqs.iter().filter(|(_, cpus)| **cpus != own);
        wrong.extend(elsewhere.map(|(irq, cpus)| Wrong::new(affinity(*irq), cpus)));
        if queue.xps != own {
            wrong.push(Wrong::new(format!("/tx-{number}/xps_cpus"), queue.xps));
        }
        if !queue.rps.is_empty() {
            wrong.push(Wrong::new(format!("/rx-{number}/rps_cpus"), queue.rps));
        }
    }
    Ok(wrong)
}
