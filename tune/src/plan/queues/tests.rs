use super::super::plan;
use super::*;
use crate::host::ethtool::Rss;
use crate::host::fixture::{nic_host, veth_host};
use crate::host::{Irq, QueueIndex, QueueIrqs};
use crate::plan::Skipped;

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
    let host = nic_host(3, 2);
    assert_eq!(values(&host, "", "rps_cpus"), ["0", "6"], "a group of one CPU is where the interrupt fires");
    assert_eq!(values(&host, "[queues]\nirq = \"keep\"", "rps_cpus"), ["1", "6"]);
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

/// Combined queues on IRQ 40 and up, which the kernel manages and has set to these CPUs.
fn managed(cpus: u32, affinities: &[&str]) -> Host {
    let mut host = nic_host(cpus, affinities.len().try_into().unwrap());
    for (state, affinity) in host.nics[0].irqs.values_mut().zip(affinities) {
        (state.managed, state.affinity) = (true, affinity.parse().unwrap());
    }
    host
}

fn skipped(host: &Host, profile: &str) -> Vec<String> {
    let desired = plan(&Profile::parse(profile, "p").unwrap(), host).unwrap();
    desired.skipped.into_iter().map(|Skipped { wish, reason }| format!("{wish}: {reason}")).collect()
}

#[test]
fn queues_are_laid_out_where_the_kernel_keeps_their_interrupts() {
    for (cpus, affinities, xps, rps, kept) in [
        (4, &["1", "0", "3", "2"][..], &["2", "1", "8", "4"][..], &["0"; 4][..], None),
        // CPUs 1 and 3 have no interrupt: half of the queues are handed to them.
        (4, &["0", "2", "0", "2"], &["1", "4", "2", "8"], &["0", "0", "2", "8"], Some("42, 43")),
        (8, &["6", "2"], &["f0", "f"], &["f0", "f"], None),
        (2, &["0-1", "0-1"], &["1", "2"], &["0"; 2], Some("40, 41")),
    ] {
        let host = managed(cpus, affinities);
        assert_eq!(values(&host, "", "smp_affinity_list"), [""; 0]);
        assert_eq!(values(&host, "", "xps_cpus"), xps, "{affinities:?}");
        assert_eq!(values(&host, "", "rps_cpus"), rps, "{affinities:?}");
        let said = skipped(&host, "");
        assert_eq!(said.len(), usize::from(kept.is_some()), "{said:?}");
        let required = "[queues]\nrequire = true";
        let Some(irqs) = kept else {
            assert_eq!(skipped(&host, required), [""; 0]);
            continue;
        };
        let reason = format!("queues.irq of eth0: the kernel manages IRQ {irqs} and keeps them on CPU");
        assert!(said[0].starts_with(&reason), "{said:?}");
        let refusal = refusal(&host, required);
        assert!(refusal.starts_with(&reason) && refusal.contains("the profile requires it"), "{refusal}");
    }
}

#[test]
fn where_a_managed_interrupt_fires_on_who_knows_which_cpu_rps_decides() {
    let mut host = managed(2, &["0-1", "1"]);
    host.nics[0].irqs.get_mut(&Irq(40)).unwrap().effective = None;
    assert_eq!(values(&host, "", "rps_cpus"), ["1", "0"]);
    host.nics[0].irqs.get_mut(&Irq(41)).unwrap().affinity = "7".parse().unwrap();
    assert_eq!(values(&host, "", "rps_cpus"), ["1", "2"], "CPU 7 is offline");
}

#[test]
fn one_managed_interrupt_of_many_leaves_the_others_a_cpu_each() {
    let mut host = nic_host(4, 4);
    let state = host.nics[0].irqs.get_mut(&Irq(40)).unwrap();
    (state.managed, state.affinity) = (true, "2".parse().unwrap());
    assert_eq!(values(&host, "", "smp_affinity_list"), ["1", "0", "3"]);
    assert_eq!(values(&host, "", "xps_cpus"), ["4", "2", "1", "8"]);
    assert_eq!(values(&host, "", "rps_cpus"), ["0"; 4]);
    assert_eq!(skipped(&host, "irqbalance = \"coexist\""), [""; 0]);
}

#[test]
fn queues_follow_the_interrupts_that_somebody_else_has_placed() {
    let mut host = managed(4, &["1", "0", "3", "2"]);
    host.nics[0].irqs.values_mut().for_each(|state| state.managed = false);
    let follow = "[queues]\nirq = \"follow\"";
    assert_eq!(values(&host, follow, "smp_affinity_list"), [""; 0]);
    assert_eq!(values(&host, follow, "xps_cpus"), ["2", "1", "8", "4"]);
    assert_eq!(values(&host, follow, "rps_cpus"), ["0"; 4]);
    assert_eq!(skipped(&host, follow), [""; 0]);
    host.nics[0].queue_irqs.doubt = Some("two say so".into());
    assert!(refusal(&host, follow).contains("two say so"));
}

#[test]
fn one_managed_interrupt_for_all_queues_is_left_alone() {
    let mut host = managed(2, &["1", "1"]);
    host.nics[0].queue_irqs.rows.truncate(1);
    host.nics[0].queue_irqs.rows[0].serves = Serves::All;
    assert_eq!(values(&host, "", "smp_affinity_list"), [""; 0]);
    assert_eq!(values(&host, "", "rps_cpus"), ["1", "2"]);
    assert_eq!(skipped(&host, "").len(), 1);
}

#[test]
fn queues_that_rss_leaves_out_are_said() {
    let mut host = nic_host(4, 4);
    let rss = |queues: u32| Rss {
        table: (0..128).map(|entry| entry % queues).collect(),
        key: None,
        function: None,
        input_xfrm: None,
    };
    let notes =
        |host: &Host, profile: &str| plan(&Profile::parse(profile, "p").unwrap(), host).unwrap().notes;
    for (queues, profile, said) in [(3, "", true), (4, "", false), (3, "[rss]", false)] {
        host.nics[0].ethtool.rss = Some(rss(queues));
        let notes = notes(&host, profile);
        let is_said = notes.iter().any(|note| note.contains("over 3 of its 4 receive queues"));
        assert_eq!(is_said, said, "{queues} {profile}: {notes:?}");
    }
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
    assert_eq!(values(&host, "cpus = \"0-3\"", "rps_cpus"), ["3", "8"]);
    assert_eq!(values(&host, "", "rps_cpus"), ["1", "a"], "\"online\" leaves them out before");
    host.topology.housekeeping = "0-1".parse().unwrap();
    let error = refusal(&host, "cpus = \"0-3\"");
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
    host.nics[0].nic.lower = Some(BTreeSet::new());
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

/// The host of [`nic_host`] with a second interface `eth1` on IRQ 1040 and up.
fn two_nics(cpus: u32, queues: u32, queues_of_second: u32) -> Host {
    let mut host = nic_host(cpus, queues);
    let mut second = nic_host(cpus, queues_of_second).nics.remove(0);
    second.nic.name = "eth1".parse().unwrap();
    second.irqs = second.irqs.into_iter().map(|(irq, state)| (Irq(irq.0 + 1000), state)).collect();
    for row in &mut second.queue_irqs.rows {
        row.irq.0 += 1000;
    }
    host.nics.push(second);
    host
}

#[test]
fn the_queues_of_a_second_interface_begin_where_those_of_the_first_ended() {
    let host = two_nics(4, 6, 5);
    assert_eq!(
        values(&host, "", "smp_affinity_list"),
        ["0", "1", "2", "3", "0", "1", "2", "3", "0", "1", "2"]
    );
    assert_eq!(values(&host, "", "rps_cpus"), ["0"; 11]);
    // Groups: each interface reaches every CPU, and the interrupts are on different ones.
    let host = two_nics(8, 4, 4);
    assert_eq!(values(&host, "", "smp_affinity_list"), ["0", "2", "4", "6", "1", "3", "5", "7"]);
    assert_eq!(values(&host, "", "rps_cpus"), ["3", "c", "30", "c0", "3", "c", "30", "c0"]);
    assert_eq!(values(&host, "", "eth1/queues/tx-0/xps_cpus"), ["3"]);
}

#[test]
fn what_is_wrong_with_one_interface_is_said_of_it() {
    let mut host = two_nics(4, 4, 4);
    host.nics[1].queue_irqs.doubt = Some("two say so".into());
    assert!(refusal(&host, "").contains("the interrupts of eth1 cannot be placed: two say so"));
}

#[test]
fn packed_queues_leave_the_workers_alone_who_send_on_the_nearest() {
    let host = nic_host(8, 4);
    let pack = |cpus: &str| format!("cpus = \"2-7\"\n[queues]\nplacement = {{ pack = \"{cpus}\" }}");
    assert_eq!(values(&host, &pack("0-1"), "smp_affinity_list"), ["0", "1", "0", "1"]);
    assert_eq!(values(&host, &pack("0-1"), "rps_cpus"), ["0"; 4]);
    assert_eq!(values(&host, &pack("0-1"), "xps_cpus"), ["45", "8a", "11", "22"]);
    assert_eq!(values(&host, &pack("0-6"), "rps_cpus"), ["0", "6", "18", "60"]);
}

#[test]
fn by_rx_queue_a_connection_sends_on_the_queue_that_it_is_received_on() {
    let rx_queue = "[queues]\nxps = \"rx-queue\"";
    let with_rxqs = |rx: usize, tx: usize| {
        let mut host = veth_host(4, 6);
        host.nics[0].nic.rx_queues.truncate(rx);
        host.nics[0].nic.tx_queues.truncate(tx);
        for queue in &mut host.nics[0].nic.tx_queues {
            queue.xps_rxqs = Some(CpuSet::new());
        }
        host
    };
    assert_eq!(values(&with_rxqs(4, 4), rx_queue, "xps_rxqs"), ["1", "2", "4", "8"]);
    assert_eq!(values(&with_rxqs(6, 2), rx_queue, "xps_rxqs"), ["15", "2a"]);
    assert_eq!(values(&with_rxqs(2, 4), rx_queue, "xps_rxqs"), ["1", "2", "1", "2"]);
    assert_eq!(values(&with_rxqs(4, 4), rx_queue, "xps_cpus"), ["1", "2", "4", "8"], "before anything came");
    for by_cpu in ["", "[queues]\nxps = \"off\""] {
        assert_eq!(values(&with_rxqs(4, 4), by_cpu, "xps_rxqs"), ["0"; 4], "the kernel asks it first");
    }
    assert_eq!(values(&with_rxqs(4, 4), "[queues]\nxps = \"keep\"", "xps_rxqs"), [""; 0]);
    let desired = plan(&Profile::parse(rx_queue, "p").unwrap(), &veth_host(4, 4)).unwrap();
    assert_eq!(desired.skipped[0].wish, "queues.xps = \"rx-queue\" of eth0");
    assert_eq!(desired.skipped.len(), 1);
}

#[test]
fn the_default_of_rps_is_checked_as_the_kernel_would_before_it_is_written() {
    let profile = |wish: &str| format!("cpus = \"0-2\"\n[queues]\nrps_default = \"{wish}\"");
    let mut host = veth_host(4, 4);
    let desired = plan(&Profile::parse(&profile("workers"), "p").unwrap(), &host).unwrap();
    assert!(desired.skipped[0].reason.contains("Linux 6.3"), "{:?}", desired.skipped);
    host.rps_default_mask = Some(CpuSet::new());
    assert_eq!(values(&host, &profile("workers"), "rps_default_mask"), ["7"]);
    assert_eq!(values(&host, &profile("off"), "rps_default_mask"), ["0"]);
    assert_eq!(values(&host, &profile("keep"), "rps_default_mask"), [""; 0]);
    host.topology.housekeeping = "1-3".parse().unwrap();
    let fixed = format!("{}\nrps = \"off\"", profile("workers"));
    assert_eq!(values(&host, &fixed, "rps_default_mask"), ["6"]);
    host.topology.housekeeping = "3".parse().unwrap();
    let error = refusal(&host, &fixed);
    assert!(error.contains("CPUs 0-2 are all isolated"), "{error}");
    host.rps_default_mask = None;
    host.topology.possible = (0..449).collect();
    let desired = plan(&Profile::parse(&fixed, "p").unwrap(), &host).unwrap();
    assert!(desired.skipped[0].reason.contains("448 possible CPUs"), "{:?}", desired.skipped);
}

#[test]
fn every_setting_has_a_reason_with_the_facts_that_decide() {
    let reasons = |host: &Host, profile: &str, file: &str| -> Vec<String> {
        let desired = plan(&Profile::parse(profile, "p").unwrap(), host).unwrap();
        assert_eq!(desired.reasons.len(), desired.settings.len());
        let of_file = desired.reasons.into_iter().filter(|(setting, _)| setting.path().ends_with(file));
        of_file.map(|(_, reason)| reason).collect()
    };
    let mut host = nic_host(4, 4);
    host.nics[0].nic.numa_node = Some(0);
    assert_eq!(
        reasons(&host, "", "smp_affinity_list")[1],
        "eth0-TxRx-1 (RX and TX queue 1 of eth0) fires on CPU 1 (thread 0 of core 1, node 0, the NIC's): 4 \
         queues for 4 CPUs, the NIC's node first, one thread of each core first"
    );
    assert_eq!(
        reasons(&host, "", "rps_cpus")[0],
        "4 RX queues for 4 CPUs: each has an interrupt on a CPU of its own, and RPS would take new flows \
         away from it"
    );
    assert_eq!(reasons(&host, "", "xps_cpus")[2], "tx-2 completes on CPU 2, which sends on it alone");
    // No completions that the profile places.
    let (kept, veth) = ("[queues]\nirq = \"keep\"\nrps = \"off\"", "[queues]\nrps = \"off\"");
    for (host, profile) in [(&host, kept), (&veth_host(4, 4), veth)] {
        assert_eq!(reasons(host, profile, "xps_cpus")[2], "tx-2 belongs to CPU 2, which sends on it alone");
    }
    assert_eq!(
        reasons(&nic_host(4, 2), "", "rps_cpus")[1],
        "2 RX queues for 4 CPUs: its packets are spread over its group 2-3 (one last level cache)"
    );
    let second = reasons(&two_nics(4, 4, 4), "", "smp_affinity_list");
    assert!(second[4].ends_with("; 1 queue of the interfaces before is there too"), "{second:?}");
}
