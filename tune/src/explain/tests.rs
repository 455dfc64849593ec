use super::*;
use crate::host::fixture;
use crate::host::netdev::NetdevQueue;
use crate::host::{Host, NapiThread, QueueIrqs};
use crate::plan::plan;
use crate::profile::Profile;

fn set(cpus: &str) -> CpuSet {
    cpus.parse().unwrap()
}

/// Four CPUs, four queues, each of them whole on the CPU of its number.
fn whole() -> NicHost {
    let mut host = fixture::nic_host(4, 4).nics.remove(0);
    for (cpu, state) in (0..).zip(host.irqs.values_mut()) {
        (state.affinity, state.effective) = (CpuSet::from_iter([cpu]), Some(CpuSet::from_iter([cpu])));
    }
    for (cpu, tx) in (0..).zip(&mut host.nic.tx_queues) {
        tx.xps_cpus = Some(CpuSet::from_iter([cpu]));
    }
    host
}

fn with_thread(mut host: NicHost, cpus: Option<&str>) -> NicHost {
    let id = NapiId(513);
    host.netdev.queues.push(NetdevQueue { direction: Direction::Rx, index: QueueIndex(1), napi: Some(id) });
    let thread = cpus.map(|cpus| NapiThread { pid: 900, name: "napi/eth0-513".into(), cpus: set(cpus) });
    host.netdev.napis.push(Napi { id, irq: None, pid: Some(900), thread });
    host
}

/// Explained without a profile, with CPUs 0-1 on node 0 and 2-3 on node 1.
fn of(host: &NicHost) -> Explanation {
    let mut topology = fixture::nic_host(4, 4).topology;
    topology.cpus.iter_mut().for_each(|place| place.node = Some(place.cpu / 2));
    explain(host, &topology, None)
}

/// What breaks queue 1.
fn breaks(host: &NicHost) -> Vec<(&'static str, String)> {
    let explanation = of(host);
    let chain = explanation.chains.into_iter().find(|chain| chain.rx == Some(QueueIndex(1))).unwrap();
    chain.breaks.into_iter().map(|found| (found.kind, found.says)).collect()
}

#[track_caller]
fn assert_one(host: &NicHost, kind: &str, words: &[&str]) {
    let found = breaks(host);
    assert!(found.len() == 1 && found[0].0 == kind, "{kind}: {found:?}");
    words.iter().for_each(|word| assert!(found[0].1.contains(word), "{word}: {found:?}"));
}

fn changed(change: impl FnOnce(&mut NicHost)) -> NicHost {
    let mut host = whole();
    change(&mut host);
    host
}

#[test]
fn a_whole_chain_has_no_break() {
    let explanation = of(&whole());
    assert_eq!(explanation.chains.len(), 4);
    assert!(explanation.chains.iter().all(|chain| chain.breaks.is_empty()), "{explanation:?}");
    assert_eq!(breaks(&with_thread(whole(), Some("1"))), []);
    assert_eq!(of(&whole()).notes, [""; 0]);
}

#[test]
fn each_break_is_seen_alone() {
    let irq = Irq(41);
    let host = changed(|host| host.irqs.get_mut(&irq).unwrap().affinity = set("0-2"));
    assert_one(&host, "irq_on_several_cpus", &["IRQ 41", "CPUs 0-2", "now on 1"]);
    let host = changed(|host| {
        host.irqs.get_mut(&irq).unwrap().affinity = set("3");
        host.nic.tx_queues[1].xps_cpus = Some(set("1,3"));
    });
    assert_one(&host, "effective_differs", &["set to 3 and still fires on 1"]);
    let host = changed(|host| host.nic.tx_queues[1].xps_cpus = Some(set("2")));
    assert_one(&host, "xps_elsewhere", &["CPUs 2 transmit", "come to CPU 1"]);
    let host = changed(|host| host.nic.tx_queues[1].xps_cpus = Some(set("")));
    assert_one(&host, "xps_off", &["hash"]);
    let host = changed(|host| host.nic.rx_queues[1].rps_cpus = Some(set("0-3")));
    assert_one(&host, "rps_moves_packets", &["CPUs 0-3", "polled on 1"]);
    let host = changed(|host| drop(host.queue_irqs.shared.insert(irq, vec!["uhci_hcd:usb1".into()])));
    assert_one(&host, "interrupt_shared", &["shared with uhci_hcd:usb1"]);
    let host = changed(|host| host.queue_irqs.rows[1].how = HowKnown::NameOnly);
    assert_one(&host, "interrupt_guessed", &["IRQ 41", "--map"]);
    let host = changed(|host| {
        host.nic.numa_node = Some(1);
        host.queue_irqs.rows.truncate(2);
        host.nic.rx_queues.truncate(2);
        host.nic.tx_queues.truncate(2);
    });
    assert_one(&host, "foreign_node", &["polled on CPU 1", "NUMA node, 2-3"]);
    assert_eq!(breaks(&changed(|host| host.nic.numa_node = Some(1))), [], "others are there");
    assert_one(
        &with_thread(whole(), Some("2")),
        "napi_thread_elsewhere",
        &["900 runs on CPU 2", "fires on 1"],
    );
    assert_one(&with_thread(whole(), Some("0-3")), "napi_thread_on_several_cpus", &["CPUs 0-3"]);
    assert_one(&with_thread(whole(), None), "napi_thread_gone", &["900 is gone"]);
    let host = changed(|host| {
        host.queue_irqs = QueueIrqs { doubt: Some("nobody knows".into()), ..QueueIrqs::default() };
    });
    assert_one(&host, "interrupt_not_known", &["nobody knows", "--map"]);
}

#[test]
fn rx_and_tx_vectors_are_two_chains_that_may_be_apart() {
    let host = changed(|host| {
        host.queue_irqs.rows[1].serves = Serves::Rx(QueueIndex(1));
        let tx =
            QueueIrq { irq: Irq(43), serves: Serves::Tx(QueueIndex(1)), ..host.queue_irqs.rows[1].clone() };
        host.queue_irqs.rows[3] = tx;
    });
    let explanation = of(&host);
    let names: Vec<String> = explanation.chains.iter().map(Chain::name).collect();
    assert_eq!(names, ["0", "rx-1", "tx-1", "2", "3"]);
    assert_one(&host, "rx_and_tx_apart", &["receives on CPU 1", "completes on 3"]);
}

#[test]
fn what_is_wanted_stands_beside_what_is() {
    let host = changed(|host| host.irqs.get_mut(&Irq(41)).unwrap().affinity = set("1-2"));
    let whole = Host { nics: vec![host.clone()], ..fixture::nic_host(4, 4) };
    let wanted = plan(&Profile::parse("cpus = \"0,2-3\"", "p").unwrap(), &whole).unwrap();
    let explanation = explain(&host, &whole.topology, Some(&wanted));
    let chain = &explanation.chains[1];
    assert_eq!(chain.wanted, Some(set("2")));
    assert_eq!((&chain.xps_wanted, &chain.rps_wanted), (&Some(set("2")), &Some(set(""))));
    let kinds: Vec<&str> = chain.breaks.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, ["irq_on_several_cpus", "not_as_wanted"]);
    assert_eq!(of(&host).chains[1].wanted, None);
}

#[test]
fn a_virtual_interface_is_held_by_its_threads_or_rps() {
    let mut host = fixture::veth_host(4, 4).nics.remove(0);
    host.nic.tx_queues.iter_mut().for_each(|tx| tx.xps_cpus = None);
    host.nic.rx_queues[1].rps_cpus = Some(set("1"));
    assert_eq!(breaks(&host), []);
    host.nic.rx_queues[1].rps_cpus = Some(set("1-2"));
    assert_one(&host, "rps_moves_packets", &["CPUs 1-2"]);
    assert!(of(&host).notes[0].contains("virtual"));
}

#[test]
fn a_queue_is_chosen_by_number_or_by_direction() {
    let chains = of(&whole()).chains;
    let matching = |text: &str| {
        let choice: QueueChoice = text.parse().unwrap();
        chains.iter().filter(|chain| choice.is(chain)).map(Chain::name).collect::<Vec<_>>()
    };
    assert_eq!(
        (matching("1"), matching("tx-1"), matching("9")),
        (vec!["1".into()], vec!["1".into()], vec![])
    );
    for text in ["", "rx-", "rx", "qx-1", "-1", "+1", "99999999999"] {
        assert!(text.parse::<QueueChoice>().is_err(), "{text}");
    }
}
