//! What may have changed a setting, as far as it can be known. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::cpu_set::CpuSet;
use crate::host::ethtool::Knob;
use crate::host::{Host, InterfaceName, Irq};
use crate::setting::Setting;

/// What of a host explains that settings changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Online CPUs.
    pub(super) online: CpuSet,
    /// Of each interface.
    pub(super) nics: BTreeMap<InterfaceName, NicFacts>,
}

/// What of an interface does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NicFacts {
    /// Number of RX and TX queues.
    pub(super) queues: (usize, usize),
    /// Sizes of its rings: a driver that is told others makes its queues anew.
    pub(super) rings: Option<String>,
    /// Its queues' interrupts.
    pub(super) irqs: BTreeSet<Irq>,
}

impl Facts {
    pub(super) fn of(host: &Host) -> Self {
        let nics = host.nics.iter().map(|on| {
            let queues = (on.nic.rx_queues.len(), on.nic.tx_queues.len());
            let (rings, irqs) = (on.ethtool.text(Knob::Rings), on.irqs.keys().copied().collect());
            (on.nic.name.clone(), NicFacts { queues, rings, irqs })
        });
        Self { online: host.topology.online.clone(), nics: nics.collect() }
    }

    /// What is different now, in words.
    pub(super) fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (cpus, what) in [
            (self.online.difference(&now.online), "went offline"),
            (now.online.difference(&self.online), "came online"),
        ] {
            if !cpus.is_empty() {
                changes.push(format!("CPU {cpus} {what}"));
            }
        }
        for (name, now) in &now.nics {
            let Some(before) = self.nics.get(name) else { continue };
            if before.queues != now.queues {
                let ((rx, tx), (rx_now, tx_now)) = (before.queues, now.queues);
                changes.push(format!("{name} has {rx_now} RX and {tx_now} TX queues, before {rx} and {tx}"));
            }
            if let (Some(before), Some(now)) = (&before.rings, &now.rings)
                && before != now
            {
                changes.push(format!("{name} has rings of {now}, before {before}"));
            }
            let new: Vec<String> = now.irqs.difference(&before.irqs).map(ToString::to_string).collect();
            if !new.is_empty() {
                changes.push(format!("{name} was reset: it has new interrupts {}", new.join(", ")));
            }
        }
        changes
    }
}

/// Who or what may have changed this setting; `changes` are what became of the host since the look before,
/// `None` at the first one; `irqbalance` is its process.
pub(super) fn causes(setting: &Setting, changes: Option<&[String]>, irqbalance: Option<u32>) -> Vec<String> {
    let mut causes = Vec::new();
    match changes {
        None => causes.push("before the watch began".to_owned()),
        // A sysctl is of no interface, queue or CPU: nothing but a write changes it.
        Some(changes) if setting.interface().is_some() || matches!(setting, Setting::IrqAffinity(_)) => {
            causes.extend_from_slice(changes);
        }
        Some(_) => {}
    }
    if let (Setting::IrqAffinity(_), Some(process)) = (setting, irqbalance) {
        causes.push(format!("irqbalance runs, process {process}"));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::nic_host;

    #[test]
    fn what_changed_is_said_and_what_did_not_is_not() {
        let mut before = Facts::of(&nic_host(4, 4));
        before.nics.values_mut().next().unwrap().rings = Some("rx 256 tx 256".into());
        assert_eq!(before.changes(&before), Vec::<String>::new());
        let mut now = Facts::of(&nic_host(4, 2));
        now.online = "0-2,5".parse().unwrap();
        let eth0 = now.nics.values_mut().next().unwrap();
        eth0.rings = Some("rx 512 tx 256".into());
        eth0.irqs = BTreeSet::from([Irq(40), Irq(60), Irq(61)]);
        assert_eq!(
            before.changes(&now),
            [
                "CPU 3 went offline",
                "CPU 5 came online",
                "eth0 has 2 RX and 2 TX queues, before 4 and 4",
                "eth0 has rings of rx 512 tx 256, before rx 256 tx 256",
                "eth0 was reset: it has new interrupts 60, 61"
            ]
        );
    }

    #[test]
    fn irqbalance_is_named_for_interrupts_and_the_host_for_what_belongs_to_an_interface() {
        let changes = ["eth0 came up".to_owned()];
        let of = |path: &str| causes(&Setting::from_path(path).unwrap(), Some(&changes), Some(7));
        assert_eq!(of("/proc/irq/40/smp_affinity_list"), ["eth0 came up", "irqbalance runs, process 7"]);
        assert_eq!(of("/sys/class/net/eth0/queues/rx-0/rps_cpus"), ["eth0 came up"]);
        let somaxconn = "/proc/sys/net/core/somaxconn";
        assert_eq!(of(somaxconn), Vec::<String>::new());
        let first = causes(&Setting::from_path(somaxconn).unwrap(), None, Some(7));
        assert_eq!(first, ["before the watch began"], "nobody knows since when");
    }
}
