//! `diff(&Host, &Desired) -> Vec<Change>`: what differs, in the order of writing. Pure; empty is nothing to
//! do.

use crate::host::Host;
use crate::plan::Desired;
use crate::setting::Change;

/// The settings whose value on the host is not the desired one. CPUs are compared as sets and numbers as
/// numbers, never as text. A setting that the host does not have is left out: the plan only names settings it
/// saw there.
#[must_use]
pub fn diff(host: &Host, desired: &Desired) -> Vec<Change> {
    let changed = desired.settings.iter().filter_map(|(setting, after)| {
        let before = host.value(setting)?;
        (before != *after).then(|| Change { setting: setting.clone(), before, after: after.clone() })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::nic_host;
    use crate::plan::plan;
    use crate::profile::Profile;
    use crate::setting::{Setting, Value};

    #[test]
    fn only_what_differs_in_the_order_of_writing() {
        let mut host = nic_host(2, 2);
        host.nics[0].nic.tx_queues[0].xps_cpus = Some("0".parse().unwrap());
        host.nics[0].irqs.values_mut().next().unwrap().affinity = "0".parse().unwrap();
        let profile = Profile::parse("[sysctl]\n\"net.core.somaxconn\" = 128", "p").unwrap();
        let desired = plan(&profile, &host).unwrap();
        let changes = diff(&host, &desired);
        let texts: Vec<String> = changes
            .iter()
            .map(|change| format!("{} {} {}", change.setting.path(), change.before, change.after))
            .collect();
        assert_eq!(
            texts,
            ["/proc/irq/41/smp_affinity_list 0-1 1", "/sys/class/net/eth0/queues/tx-1/xps_cpus 0 2"]
        );
    }

    #[test]
    fn a_host_that_holds_what_is_desired_has_no_changes() {
        let mut host = nic_host(4, 4);
        let desired = plan(&Profile::parse("", "p").unwrap(), &host).unwrap();
        for (setting, value) in &desired.settings {
            match (setting, value) {
                (Setting::IrqAffinity(irq), Value::List(cpus)) => {
                    host.nics[0].irqs.get_mut(irq).unwrap().affinity = cpus.clone();
                }
                (Setting::XpsCpus(_, queue), Value::Mask(cpus)) => {
                    host.nics[0].nic.tx_queues[queue.0 as usize].xps_cpus = Some(cpus.clone());
                }
                _ => {}
            }
        }
        assert_eq!(diff(&host, &desired), []);
    }
}
