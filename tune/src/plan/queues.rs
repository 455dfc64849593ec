//! Interrupts, XPS and RPS of the interface's queues. Pure.

use super::placement::{Layout, fold, layout};
use super::{Desired, PlanError};
use crate::cpu_set::CpuSet;
use crate::host::{Host, NicHost, QueueIrq, Serves, Topology};
use crate::profile::{IrqPolicy, Placement, Profile, RpsPolicy, XpsPolicy};
use crate::setting::{Setting, Value};

/// The layouts of the RX queues and of the TX queues, by position in `Nic::rx_queues` and `Nic::tx_queues`.
struct Layouts {
    rx: Vec<Layout>,
    tx: Vec<Layout>,
    /// Number of CPUs that the queues are laid on.
    cpus: usize,
}

pub(super) fn plan(
    profile: &Profile,
    host: &Host,
    cpus: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    host.nics.iter().try_for_each(|on| plan_nic(profile, on, &host.topology, cpus, desired))
}

fn plan_nic(
    profile: &Profile,
    host: &NicHost,
    topology: &Topology,
    cpus: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let nic = &host.nic;
    if let Some(lower) = nic.lower.clone() {
        return Err(PlanError::Stacked { interface: nic.name.clone(), lower });
    }
    if nic.rx_queues.is_empty() || nic.tx_queues.is_empty() {
        return Err(PlanError::NoQueues(nic.name.clone()));
    }
    let queues = profile.queues;
    let layouts = match queues.placement {
        Placement::OnePerCore => lay_out(host, topology, cpus),
    };
    match queues.irq {
        IrqPolicy::QueueCpu => {
            if let Some(reason) = host.queue_irqs.doubt.clone() {
                return Err(PlanError::QueueMap { interface: nic.name.clone(), reason });
            }
            plan_irqs(host, &layouts, desired);
        }
        // Fewer queues than CPUs spread over their groups wherever their interrupts fire.
        IrqPolicy::Keep
            if queues.rps == RpsPolicy::Auto
                && nic.device.is_some()
                && nic.rx_queues.len() >= layouts.cpus =>
        {
            return Err(PlanError::AutoRpsOfKeptIrqs(nic.name.clone()));
        }
        IrqPolicy::Keep => {}
    }
    super::napi_threads::plan(queues.napi_threads, host, &layouts.rx, &layouts.tx, desired);
    plan_xps(queues.xps, host, &layouts, desired);
    plan_rps(queues.rps, host, topology, &layouts, desired)?;
    if let Some(count) = queues.rps_flow_cnt {
        let rounded = if count == 0 { 0 } else { count.next_power_of_two() };
        let value = Value::Numbers(vec![i128::from(rounded)]);
        for rx in nic.rx_queues.iter().filter(|rx| rx.rps_flow_cnt.is_some()) {
            let setting = Setting::RpsFlowCount(nic.name.clone(), rx.index);
            desired.set(setting, value.clone(), format!("queues.rps_flow_cnt = {count}"));
        }
    }
    Ok(())
}

/// RX and TX queues are laid out each for themselves, except where one interrupt serves both of a number: then they
/// must agree, the larger number of queues decides, and the fewer queues of the other direction share its CPUs.
fn lay_out(host: &NicHost, topology: &Topology, cpus: &CpuSet) -> Layouts {
    let (rx, tx) = (host.nic.rx_queues.len(), host.nic.tx_queues.len());
    let lay = |queues| layout(topology, host.nic.numa_node, cpus, queues);
    let combined = host.queue_irqs.rows.iter().any(|row| matches!(row.serves, Serves::Both(_)));
    let (rx, tx) = if combined {
        let both = lay(rx.max(tx));
        (fold(&both, rx), fold(&both, tx))
    } else {
        (lay(rx), lay(tx))
    };
    Layouts { rx, tx, cpus: cpus.len() }
}

fn plan_irqs(host: &NicHost, layouts: &Layouts, desired: &mut Desired) {
    let rx = host.nic.rx_queues.iter().zip(&layouts.rx);
    let rx = rx.filter_map(|(queue, layout)| Some((host.queue_irqs.rx(queue.index)?, layout)));
    let tx = host.nic.tx_queues.iter().zip(&layouts.tx);
    let tx = tx.filter_map(|(queue, layout)| Some((host.queue_irqs.tx(queue.index)?, layout)));
    for (QueueIrq { irq, .. }, layout) in rx.chain(tx) {
        let setting = Setting::IrqAffinity(*irq);
        // An interrupt of all queues stays with the first.
        if !desired.settings.contains_key(&setting) {
            let own = Value::List(CpuSet::from_iter([layout.cpu]));
            desired.set(setting, own, format!("the CPU of its queue, {}", layout.cpu));
        }
    }
}

/// A device with one TX queue has no XPS.
fn plan_xps(policy: XpsPolicy, host: &NicHost, layouts: &Layouts, desired: &mut Desired) {
    let nic = &host.nic;
    for (queue, layout) in nic.tx_queues.iter().zip(&layouts.tx).filter(|(queue, _)| queue.xps_cpus.is_some())
    {
        let (cpus, reason) = match policy {
            XpsPolicy::QueueCpu => (layout.group.clone(), "the CPUs of the queue transmit on it"),
            XpsPolicy::Off => (CpuSet::new(), "queues.xps = \"off\""),
            XpsPolicy::Keep => continue,
        };
        desired.set(Setting::XpsCpus(nic.name.clone(), queue.index), Value::Mask(cpus), reason);
    }
}

fn plan_rps(
    policy: RpsPolicy,
    host: &NicHost,
    topology: &Topology,
    layouts: &Layouts,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let nic = &host.nic;
    for (queue, layout) in nic.rx_queues.iter().zip(&layouts.rx).filter(|(queue, _)| queue.rps_cpus.is_some())
    {
        let own_irq = host.queue_irqs.rx(queue.index).is_some_and(|row| row.serves != Serves::All);
        let (cpus, reason) = match policy {
            RpsPolicy::Auto if own_irq && nic.rx_queues.len() >= layouts.cpus => {
                (CpuSet::new(), "every CPU has a queue with an interrupt: RPS would only move packets away")
            }
            RpsPolicy::Auto => {
                (layout.group.clone(), "the queue's packets are spread over its group of CPUs")
            }
            RpsPolicy::QueueCpu => (CpuSet::from_iter([layout.cpu]), "queues.rps = \"queue-cpu\""),
            RpsPolicy::Off => (CpuSet::new(), "queues.rps = \"off\""),
            RpsPolicy::Keep => continue,
        };
        let allowed = cpus.intersection(&topology.housekeeping);
        if allowed.is_empty() && !cpus.is_empty() {
            return Err(PlanError::IsolatedCpus { interface: nic.name.clone(), queue: queue.index, cpus });
        }
        desired.set(Setting::RpsCpus(nic.name.clone(), queue.index), Value::Mask(allowed), reason);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;
    use crate::host::fixture::{nic_host, veth_host};
    use crate::host::{QueueIndex, QueueIrqs};

    /// The planned values of all files of this name, in order.
    fn values(host: &Host, profile: &str, file: &str) -> Vec<String> {
        let desired = plan(&Profile::parse(profile, "p").unwrap(), host).unwrap();
        let of_file = desired.settings.iter().filter(|(setting, _)| setting.path().ends_with(file));
        of_file.map(|(_, value)| value.to_string()).collect()
    }

    fn refusal(host: &Host, profile: &str) -> String {
        plan(&Profile::parse(profile, "p").unwrap(), host).unwrap_err().to_string()
    }

    #[test]
    fn a_queue_for_each_cpu_needs_no_rps() {
        let host = nic_host(4, 4);
        assert_eq!(values(&host, "", "smp_affinity_list"), ["0", "1", "2", "3"]);
        assert_eq!(values(&host, "", "xps_cpus"), ["1", "2", "4", "8"]);
        assert_eq!(values(&host, "", "rps_cpus"), ["0", "0", "0", "0"]);
    }

    #[test]
    fn more_queues_than_cpus_begin_again_and_fewer_have_groups() {
        let host = nic_host(4, 6);
        assert_eq!(values(&host, "", "smp_affinity_list"), ["0", "1", "2", "3", "0", "1"]);
        assert_eq!(values(&host, "", "rps_cpus"), ["0"; 6]);
        let host = nic_host(8, 2);
        assert_eq!(values(&host, "", "smp_affinity_list"), ["0", "4"]);
        assert_eq!(values(&host, "", "xps_cpus"), ["f", "f0"]);
        assert_eq!(values(&host, "", "rps_cpus"), ["f", "f0"]);
        assert_eq!(values(&host, "[queues]\nrps = \"queue-cpu\"", "rps_cpus"), ["1", "10"]);
        assert_eq!(values(&host, "cpus = \"2,5\"", "smp_affinity_list"), ["2", "5"]);
    }

    #[test]
    fn queues_without_interrupts_are_moved_by_rps() {
        let host = veth_host(4, 4);
        assert_eq!(values(&host, "", "rps_cpus"), ["1", "2", "4", "8"]);
        assert_eq!(values(&host, "", "smp_affinity_list"), [""; 0]);
        assert_eq!(values(&host, "[queues]\nrps = \"off\"\nxps = \"off\"", "ps_cpus"), ["0"; 8]);
        assert_eq!(values(&host, "[queues]\nrps = \"keep\"\nxps = \"keep\"", "ps_cpus"), [""; 0]);
    }

    #[test]
    fn one_tx_queue_has_no_xps() {
        assert_eq!(values(&nic_host(2, 1), "", "xps_cpus"), [""; 0]);
    }

    #[test]
    fn one_interrupt_for_all_queues_leaves_their_cpus_to_rps() {
        let mut host = nic_host(2, 2);
        host.nics[0].queue_irqs.rows.truncate(1);
        host.nics[0].queue_irqs.rows[0].serves = Serves::All;
        assert_eq!(values(&host, "", "smp_affinity_list"), ["0"]);
        assert_eq!(values(&host, "", "rps_cpus"), ["1", "2"]);
    }

    #[test]
    fn rps_leaves_isolated_cpus_out_and_needs_one_that_is_not() {
        let mut host = veth_host(4, 2);
        host.topology.housekeeping = "0-1,3".parse().unwrap();
        assert_eq!(values(&host, "", "rps_cpus"), ["3", "8"]);
        host.topology.housekeeping = "0-1".parse().unwrap();
        let error = refusal(&host, "");
        assert!(error.contains("RPS of eth0 rx-1 would go to CPUs 2-3"), "{error}");
    }

    #[test]
    fn rps_flow_cnt_is_planned_as_the_kernel_rounds_it() {
        let profile = |count| format!("[queues]\nrps_flow_cnt = {count}");
        let host = veth_host(2, 2);
        assert_eq!(values(&host, &profile(683), "rps_flow_cnt"), ["1024"; 2]);
        assert_eq!(values(&host, &profile(0), "rps_flow_cnt"), ["0"; 2]);
        assert_eq!(values(&host, "", "rps_flow_cnt"), [""; 0]);
    }

    #[test]
    fn a_map_in_doubt_is_refused_unless_it_does_not_matter() {
        let mut host = nic_host(2, 2);
        host.nics[0].queue_irqs.doubt = Some("two say so".into());
        assert!(refusal(&host, "").contains("two say so"));
        assert_eq!(values(&host, "[queues]\nirq = \"keep\"\nrps = \"off\"", "smp_affinity_list"), [""; 0]);
    }

    #[test]
    fn rps_auto_is_refused_where_the_interrupts_of_a_queue_for_each_cpu_are_kept() {
        let keep = |rps: &str| format!("[queues]\nirq = \"keep\"\nrps = \"{rps}\"");
        let host = nic_host(2, 2);
        let error = refusal(&host, &keep("auto"));
        assert!(error.contains("queues.irq = \"keep\" leaves them; set queues.rps to"), "{error}");
        assert_eq!(values(&host, &keep("queue-cpu"), "rps_cpus"), ["1", "2"]);
        // With fewer queues the groups do not depend on the interrupts, known or not.
        let mut fewer = nic_host(4, 2);
        assert_eq!(values(&fewer, &keep("auto"), "rps_cpus"), ["3", "c"]);
        fewer.nics[0].queue_irqs = QueueIrqs { doubt: Some("USB".into()), ..QueueIrqs::default() };
        assert_eq!(values(&fewer, &keep("auto"), "rps_cpus"), ["3", "c"]);
        assert_eq!(values(&nic_host(4, 1), &keep("auto"), "rps_cpus"), ["f"]);
        assert_eq!(values(&veth_host(2, 2), &keep("auto"), "rps_cpus"), ["1", "2"], "no interrupts to keep");
    }

    #[test]
    fn fewer_tx_than_rx_queues_on_the_same_interrupts_still_serve_every_cpu() {
        let mut host = nic_host(8, 8);
        host.nics[0].nic.tx_queues.truncate(6);
        for row in &mut host.nics[0].queue_irqs.rows[6..] {
            row.serves = Serves::Rx(QueueIndex(row.irq.0 - 40));
        }
        assert_eq!(values(&host, "", "xps_cpus"), ["41", "82", "4", "8", "10", "20"]);
        assert_eq!(values(&host, "", "smp_affinity_list"), ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(values(&host, "", "rps_cpus"), ["0"; 8]);
    }

    #[test]
    fn an_interface_on_others_is_refused_with_their_names() {
        let mut host = veth_host(2, 2);
        host.nics[0].nic.name = "bond0".parse().unwrap();
        host.nics[0].nic.lower = Some(["eth0", "eth1"].map(|name| name.parse().unwrap()).into());
        let error = refusal(&host, "");
        assert!(error.starts_with("interface bond0 stands on eth0, eth1: "), "{error}");
        host.nics[0].nic.lower = Some(std::collections::BTreeSet::new());
        let error = refusal(&host, "");
        assert!(error.ends_with("of which none has a device: there is nothing to tune"), "{error}");
    }

    #[test]
    fn an_interface_without_queues_is_refused() {
        let mut host = veth_host(2, 2);
        host.nics[0].nic.tx_queues.clear();
        assert!(refusal(&host, "").contains("has no RX and TX queues"));
        host.nics[0].nic.rx_queues.retain(|rx| rx.index == QueueIndex(9));
        assert!(refusal(&host, "").contains("has no RX and TX queues"));
    }

    #[test]
    fn cpus_that_are_not_online_are_named_with_the_way_out() {
        assert_eq!(
            refusal(&nic_host(2, 2), "cpus = \"0-3\""),
            "the profile's CPUs 0-3 are not all on this host: 2-3 missing, online are 0-1; \
             choose others with --cpus 0-1"
        );
    }
}
