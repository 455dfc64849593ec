//! Where the packets of the network interfaces are processed, against the CPUs of the workers. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tune::cpu_set::CpuSet;
use tune::host::{Host, InterfaceChoice, NicHost, QueueIndex};
use tune::profile::{CpuChoice, Profile};
use tune::setting::Setting;
use tune::{diff, plan};

use super::{count, cpus, set_of, steers_by_cpu, worker_cpus};
use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Group, Mark};

const RFS_TABLE: &str = "net.core.rps_sock_flow_entries";

/// An interface with what it is judged against.
struct Case<'a> {
    host: &'a Host,
    on: &'a NicHost,
    /// The CPUs of the workers.
    cores: &'a CpuSet,
    /// How grave it is that a packet arrives elsewhere.
    grave: Mark,
}

/// The shipped profile that sets an interface up: one without a device has no interrupts.
#[derive(Debug, Clone, Copy)]
pub(in crate::doctor) struct Shipped {
    pub(in crate::doctor) path: &'static str,
    text: &'static str,
}

const AUTO: Shipped =
    Shipped { path: "profiles/auto.toml", text: include_str!("../../../../profiles/auto.toml") };
const LAB: Shipped =
    Shipped { path: "profiles/lab.toml", text: include_str!("../../../../profiles/lab.toml") };

/// The profile for an interface with or without a device.
pub(in crate::doctor) fn shipped(has_device: bool) -> Shipped {
    if has_device { AUTO } else { LAB }
}

impl Shipped {
    /// The profile as it was shipped; `None` if it is not understood, which a test excludes.
    pub(in crate::doctor) fn profile(self) -> Option<Profile> {
        Profile::parse(self.text, self.path).ok()
    }
}

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let cores = worker_cpus(config, facts);
    let grave = if steers_by_cpu(config) { Mark::Warning } else { Mark::Note };
    let mut findings: Vec<Finding> = facts.nics.loopback.iter().map(loopback).collect();
    let nics = facts.nics.hosts.iter().flat_map(|host| host.nics.iter().map(move |on| (host, on)));
    for (host, on) in nics.clone() {
        findings.extend(Case { host, on, cores: &cores, grave }.judge());
    }
    let unknown = |error: &String| {
        Finding::new(
            Group::Nic,
            "nic.unknown",
            Mark::Note,
            "interfaces",
            format!("could not be read: {error}"),
        )
    };
    findings.extend(facts.nics.errors.iter().map(unknown));
    if nics.into_iter().any(|(_, on)| !on.queue_irqs.rows.is_empty()) {
        findings.extend(facts.nics.irqbalance.map(|pid| irqbalance(pid, grave)));
    }
    findings
}

fn loopback(address: &SocketAddr) -> Finding {
    let says =
        "loopback: packets are processed on the CPU that sends them, and no interface has a part in it";
    Finding::new(Group::Nic, "nic.none", Mark::Ok, address.to_string(), says)
}

fn irqbalance(pid: u32, grave: Mark) -> Finding {
    let says = format!("runs (pid {pid}): it moves interrupts after they have been placed");
    Finding::new(Group::Nic, "nic.irqbalance", grave, "irqbalance", says).next(
        "systemctl stop irqbalance, or ban the interface's interrupts (IRQBALANCE_BANNED_CPULIST, --banirq)",
    )
}

impl Case<'_> {
    fn judge(&self) -> Vec<Finding> {
        if self.on.nic.rx_queues.is_empty() {
            return vec![self.finding("nic.interrupts", Mark::Note, "has no receive queues")];
        }
        let mut findings = vec![self.interrupts()];
        findings.push(self.coverage());
        findings.extend(self.rps());
        findings.extend(self.rfs());
        findings.extend(self.node());
        findings.push(self.tune());
        findings
    }

    fn finding(&self, check: &'static str, mark: Mark, says: impl Into<String>) -> Finding {
        Finding::new(Group::Nic, check, mark, self.on.nic.name.as_str(), says)
    }

    /// The command that sets this interface up for these cores.
    fn command(&self) -> String {
        let profile = shipped(self.on.nic.device.is_some()).path;
        format!("tune apply {profile} --interface {} --cpus {}", self.on.nic.name, self.cores)
    }

    /// The CPUs on which a queue's interrupt fires; `None` if that is not known.
    fn fires_on(&self, queue: QueueIndex) -> Option<CpuSet> {
        let state = self.on.irqs.get(&self.on.queue_irqs.rx(queue)?.irq)?;
        // While the interface is down the controller is programmed with nothing; without interrupt remapping
        // a new affinity waits for the next interrupt.
        let settled = |cpus: &CpuSet| !cpus.is_empty() && cpus.is_subset(&state.affinity);
        Some(state.effective.clone().filter(settled).unwrap_or_else(|| state.affinity.clone()))
    }

    /// The CPUs on which a queue's packets go through TCP: those of RPS, else that of the interrupt.
    fn processed_on(&self, queue: QueueIndex) -> Option<CpuSet> {
        let rps = self.on.nic.rx_queue(&self.on.nic.name, queue)?.rps_cpus.clone();
        rps.filter(|cpus| !cpus.is_empty()).or_else(|| self.fires_on(queue))
    }

    fn queues(&self) -> impl Iterator<Item = QueueIndex> + '_ {
        self.on.nic.rx_queues.iter().map(|queue| queue.index)
    }

    /// Whether every receive interrupt fires on one CPU, that of a worker.
    fn interrupts(&self) -> Finding {
        let check = "nic.interrupts";
        if self.on.nic.device.is_none() {
            let says = "is virtual: it has no interrupts; packets come on the CPU that sends them, or where \
                        RPS says";
            return self.finding(check, Mark::Ok, says);
        }
        if let Some(doubt) = &self.on.queue_irqs.doubt {
            return self.finding(
                check,
                Mark::Note,
                format!("its interrupts are not known for certain: {doubt}"),
            );
        }
        let known: Vec<(QueueIndex, CpuSet)> =
            self.queues().filter_map(|queue| Some((queue, self.fires_on(queue)?))).collect();
        let total = count(self.on.nic.rx_queues.len(), "receive queue");
        let outside = known.iter().filter(|(_, cpus)| !cpus.is_subset(self.cores));
        let outside: Vec<_> = outside.map(|(queue, cpus)| format!("{queue} on {cpus}")).collect();
        let wide = known.iter().filter(|(_, cpus)| cpus.len() > 1).count();
        if known.len() < self.on.nic.rx_queues.len() {
            let says = format!("{total}, the interrupts of {} known", known.len());
            self.finding(check, Mark::Note, says)
        } else if !outside.is_empty() {
            let says = format!(
                "of {total}, {} interrupt outside of --cores: {}; what arrives there is served elsewhere",
                outside.len(),
                some_of(&outside)
            );
            self.finding(check, self.grave, says).next(self.command())
        } else if wide > 0 {
            let says = format!("of {total}, {wide} may interrupt several CPUs, one after the other");
            self.finding(check, self.grave, says).next(self.command())
        } else {
            self.finding(check, Mark::Ok, format!("interrupts of {total} each on one CPU of --cores"))
        }
    }

    /// Whether packets are processed on every core, and on no other CPU.
    fn coverage(&self) -> Finding {
        let check = "nic.coverage";
        let queues = count(self.on.nic.rx_queues.len(), "receive queue");
        let cores = count(self.cores.len(), "core");
        let mut reached = CpuSet::new();
        for queue in self.queues() {
            match self.processed_on(queue) {
                Some(cpus) => reached = set_of(reached.iter().chain(cpus.iter())),
                None => {
                    let says = format!("{queues} for {cores}; where packets are processed is not known here");
                    return self.finding(check, Mark::Note, says);
                }
            }
        }
        let (missed, outside) = (self.cores.difference(&reached), reached.difference(self.cores));
        if !missed.is_empty() {
            let says = format!(
                "{queues} for {cores}: no packet is processed on {}, so that with --steer cpu no connection \
                 is accepted there",
                cpus(&missed)
            );
            self.finding(check, self.grave, says).next(self.command())
        } else if !outside.is_empty() {
            let says = format!(
                "{queues} for {cores}: packets are processed on {}, too, where no worker is: the hash \
                 chooses one",
                cpus(&outside)
            );
            self.finding(check, self.grave, says).next(self.command())
        } else {
            self.finding(check, Mark::Ok, format!("{queues} for {cores}: packets are processed on every one"))
        }
    }

    /// RPS that takes packets away from the CPU of their interrupt, though there is a queue for each core.
    fn rps(&self) -> Option<Finding> {
        let moved: Vec<String> = self
            .on
            .nic
            .rx_queues
            .iter()
            .filter_map(|queue| {
                let cpus = queue.rps_cpus.as_ref().filter(|cpus| !cpus.is_empty())?;
                let own = self.fires_on(queue.index)?;
                (*cpus != own).then(|| format!("{} to {cpus}", queue.index))
            })
            .collect();
        if moved.is_empty() {
            return None;
        }
        let enough = self.on.nic.rx_queues.len() >= self.cores.len();
        let says =
            format!("RPS moves packets of {}: {}", count(moved.len(), "receive queue"), some_of(&moved));
        Some(if enough {
            let says = format!("{says}; with a queue for each core it only takes them from their core");
            self.finding("nic.rps", self.grave, says).next(self.command())
        } else {
            self.finding("nic.rps", Mark::Ok, format!("{says}; with fewer queues than cores it spreads them"))
        })
    }

    /// RFS sends packets to where the application ran last.
    fn rfs(&self) -> Option<Finding> {
        let table = self.host.sysctls.iter().find(|(name, _)| name.as_str() == RFS_TABLE)?.1.to_string();
        let flows =
            self.on.nic.rx_queues.iter().filter(|queue| queue.rps_flow_cnt.is_some_and(|count| count > 0));
        let flows = flows.count();
        if flows == 0 || table == "0" {
            return None;
        }
        let says = format!(
            "RFS is on for {}: workers do not move, so that it finds out at a cost what the listener has \
             chosen",
            count(flows, "receive queue")
        );
        let off = format!(
            "for q in /sys/class/net/{}/queues/rx-*/rps_flow_cnt; do echo 0 > $q; done",
            self.on.nic.name
        );
        Some(self.finding("nic.rfs", Mark::Note, says).next(off))
    }

    /// The interface's NUMA node against those of the cores.
    fn node(&self) -> Option<Finding> {
        let node = self.on.nic.numa_node?;
        let topology = &self.host.topology;
        let is_far = |cpu: &tune::host::CpuPlace| cpu.node.is_some_and(|other| other != node);
        let places = topology.cpus.iter().filter(|place| self.cores.contains(place.cpu));
        let far: CpuSet = places.filter(|place| is_far(place)).map(|place| place.cpu).collect();
        if far.is_empty() {
            return None;
        }
        let near: CpuSet = topology.cpus.iter().filter(|p| p.node == Some(node)).map(|p| p.cpu).collect();
        let says = format!("is on NUMA node {node}, {} of --cores are not", cpus(&far));
        Some(self.finding("nic.numa", Mark::Note, says).next(format!("to compare: --cores {near}")))
    }

    /// What `tune` would change, by its own plan.
    fn tune(&self) -> Finding {
        let check = "nic.tune";
        let Some(mut profile) = shipped(self.on.nic.device.is_some()).profile() else {
            return self.finding(check, Mark::Note, "the shipped profile is not understood");
        };
        profile.interface = InterfaceChoice::Named(self.on.nic.name.clone());
        profile.cpus = CpuChoice::List(self.cores.clone());
        let desired = match plan::plan(&profile, self.host) {
            Ok(desired) => desired,
            Err(error) => return self.finding(check, Mark::Note, format!("tune can't set it up: {error}")),
        };
        let mut changes: BTreeMap<&str, usize> = BTreeMap::new();
        for change in diff::diff(self.host, &desired) {
            *changes.entry(kind(&change.setting)).or_default() += 1;
        }
        if changes.is_empty() {
            return self.finding(check, Mark::Ok, "is as tune would set it up for these cores");
        }
        let list: Vec<String> = changes.iter().map(|(kind, number)| count(*number, kind)).collect();
        let says = format!("tune would change {}", list.join(", "));
        self.finding(check, Mark::Note, says).next(self.command().replacen("apply", "plan", 1))
    }
}

fn kind(setting: &Setting) -> &'static str {
    match setting {
        Setting::IrqbalanceBan => "irqbalance ban list",
        Setting::IrqAffinity(_) => "interrupt affinity setting",
        Setting::NapiThread(..) => "NAPI thread affinity",
        Setting::XpsCpus(..) | Setting::XpsRxqs(..) => "XPS map",
        Setting::RpsCpus(..) => "RPS map",
        Setting::RpsFlowCount(..) => "RFS table",
        Setting::Napi(..) => "NAPI setting",
        Setting::Governor(_) => "CPU governor",
        Setting::RpsDefaultMask | Setting::Sysctl(_) => "sysctl",
        Setting::Ethtool(..) => "ethtool setting",
    }
}

/// The first few of a list.
fn some_of(list: &[String]) -> String {
    const MOST: usize = 4;
    let shown = list.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if list.len() > MOST { format!("{shown} and {} more", list.len() - MOST) } else { shown }
}

#[cfg(test)]
mod tests;
