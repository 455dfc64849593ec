//! RPS and RFS of queues. Pure.

use super::Laid;
use super::irqs::{Fires, fires};
use crate::cpu_set::CpuSet;
use crate::host::{Direction, Host, QueueIndex};
use crate::plan::placement::{Layout, extent_of, for_cpus};
use crate::plan::{Desired, PlanError};
use crate::profile::{Queues, RpsDefault, RpsPolicy};
use crate::setting::{Setting, Value};

impl Laid<'_> {
    pub(super) fn plan_rps(&self, wishes: &Queues, desired: &mut Desired) -> Result<(), PlanError> {
        let nic = &self.on.nic;
        let housekeeping = &self.topology.housekeeping;
        let queues = nic.rx_queues.iter().zip(&self.rx).filter(|(queue, _)| queue.rps_cpus.is_some());
        for (queue, layout) in queues {
            let Some((cpus, reason)) = self.rps_of(wishes, queue.index, layout) else { continue };
            let usable = cpus.intersection(housekeeping);
            if usable.is_empty() && !cpus.is_empty() {
                let interface = nic.name.clone();
                return Err(PlanError::IsolatedCpus { interface, queue: queue.index, cpus });
            }
            let without = cpus.difference(&usable);
            let reason = if without.is_empty() {
                reason
            } else {
                format!("{reason}; without {without}, which are isolated: the kernel takes them out")
            };
            desired.set(Setting::RpsCpus(nic.name.clone(), queue.index), Value::Mask(usable), reason);
        }
        Ok(())
    }

    /// The CPUs of RPS before the kernel takes isolated ones out, and why; `None` to leave it.
    fn rps_of(&self, wishes: &Queues, queue: QueueIndex, layout: &Layout) -> Option<(CpuSet, String)> {
        Some(match wishes.rps {
            RpsPolicy::Auto => self.auto_rps(wishes, queue, layout),
            RpsPolicy::QueueCpu => {
                let reason = format!("queues.rps = \"queue-cpu\": {}", layout.why);
                (CpuSet::from_iter([layout.first_of_group()]), reason)
            }
            RpsPolicy::Off => (CpuSet::new(), "queues.rps = \"off\"".to_owned()),
            RpsPolicy::Keep => return None,
        })
    }

    /// Off where the interrupt fires on the CPU that the packets belong to, else their CPUs.
    fn auto_rps(&self, wishes: &Queues, queue: QueueIndex, layout: &Layout) -> (CpuSet, String) {
        let Layout { cpu, group, why, .. } = layout;
        let counts = for_cpus(self.rx.len(), "RX queue", self.cpus);
        let each = self.has_a_queue_for_each_cpu();
        let fires = fires(wishes.irq, self.on, self.topology, Direction::Rx, queue);
        let how = match fires {
            Some(Fires::Placed) if each => {
                "each has an interrupt on a CPU of its own, and RPS would take new flows away from it"
                    .to_owned()
            }
            Some(Fires::Placed | Fires::Stays(_)) if layout.is_alone() => {
                format!("its group is CPU {cpu} alone, where its interrupt fires")
            }
            _ if !each => {
                let extent = extent_of(self.topology, group);
                return (
                    group.clone(),
                    format!("{counts}: its packets are spread over its group {group} ({extent})"),
                );
            }
            None => {
                let why =
                    format!("{counts}, without an interrupt of its own: RPS takes the packets to {why}");
                return (group.clone(), why);
            }
            Some(_) => {
                let why = format!(
                    "{counts}: its interrupt is not on CPU {group}, which its packets belong to, or may not \
                     be: RPS takes them there"
                );
                return (group.clone(), why);
            }
        };
        (CpuSet::new(), format!("{counts}: {how}"))
    }

    pub(super) fn plan_rps_flow_cnt(&self, count: Option<u32>, desired: &mut Desired) {
        let Some(count) = count else { return };
        let nic = &self.on.nic;
        let rounded = if count == 0 { 0 } else { count.next_power_of_two() };
        let reason = match count {
            0 => "queues.rps_flow_cnt = 0: no RFS".to_owned(),
            _ => format!("queues.rps_flow_cnt = {count}, which the kernel makes a power of two"),
        };
        for rx in nic.rx_queues.iter().filter(|rx| rx.rps_flow_cnt.is_some()) {
            let setting = Setting::RpsFlowCount(nic.name.clone(), rx.index);
            desired.set(setting, Value::Numbers(vec![i128::from(rounded)]), reason.clone());
        }
    }
}

/// What the kernel would refuse is refused here: it parses into the mask that is in force, so that a refused
/// write leaves it empty (`rps_default_mask_sysctl()` in `net/core/sysctl_net_core.c`).
pub(super) fn plan_rps_default(
    wishes: &Queues,
    host: &Host,
    workers: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let topology = &host.topology;
    let wish = wishes.rps_default;
    let (cpus, reason) = match wish {
        RpsDefault::Keep => return Ok(()),
        RpsDefault::Off => (CpuSet::new(), "queues.rps_default = \"off\"".to_owned()),
        RpsDefault::Workers => (
            workers.intersection(&topology.housekeeping),
            format!("queues.rps_default = \"workers\": the workers' CPUs {workers} without isolated ones"),
        ),
    };
    if host.rps_default_mask.is_none() {
        let reason = if topology.prints_whole_mask() {
            "there is no /proc/sys/net/core/rps_default_mask (Linux 6.3 and later have it)".to_owned()
        } else {
            "with more than 448 possible CPUs the kernel prints only the end of it, so that it could not be \
             restored"
                .to_owned()
        };
        return desired.cannot(wishes.require, "queues.rps_default".to_owned(), reason);
    }
    if cpus.is_empty() && wish == RpsDefault::Workers {
        return Err(PlanError::IsolatedDefault(workers.clone()));
    }
    desired.set(Setting::RpsDefaultMask, Value::Mask(cpus), reason);
    Ok(())
}
