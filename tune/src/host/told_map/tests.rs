use proptest::prelude::*;

use super::*;
use crate::host::fixture::device_nic;
use crate::host::netdev::{Napi, NapiId, NetdevQueue};

/// IRQs 40 to 49 have handlers, 60 is of another interface, 70 has no handler.
struct Host;

impl Known for Host {
    fn name(&self, irq: Irq) -> Option<String> {
        (irq.0 < 70).then(|| format!("vector-{irq}"))
    }

    fn exists(&self, irq: Irq) -> bool {
        (40..50).contains(&irq.0) || [60, 70].contains(&irq.0)
    }

    fn other_owner(&self, irq: Irq) -> Option<String> {
        (irq.0 == 60).then(|| "eth1".to_owned())
    }
}

fn doubtful() -> QueueIrqs {
    QueueIrqs { doubt: Some("nobody knows".into()), ..QueueIrqs::default() }
}

fn complete(text: &str, found: QueueIrqs, netdev: &Netdev) -> Result<QueueIrqs, String> {
    let nic = device_nic("ixgbe", "", 2, 2);
    let told: ToldMap = text.parse().map_err(|error: ToldMapError| error.to_string())?;
    told.complete(&nic, found, netdev, &Host).map_err(|error| error.to_string())
}

fn served(map: &QueueIrqs) -> Vec<(u32, Serves)> {
    map.rows.iter().map(|row| (row.irq.0, row.serves)).collect()
}

#[test]
fn what_is_told_takes_the_place_of_what_is_not_known() {
    let (q0, q1) = (QueueIndex(0), QueueIndex(1));
    let map = complete("rxtx-0=irq 42\n# the second\nrx-1 = irq 43, tx-1=44", doubtful(), &Netdev::default());
    let map = map.unwrap();
    assert_eq!(served(&map), [(42, Serves::Both(q0)), (43, Serves::Rx(q1)), (44, Serves::Tx(q1))]);
    assert_eq!((map.doubt, map.rows[0].how), (None, HowKnown::Told));
    assert_eq!(map.rows[0].name, "vector-42");
    let shared = complete("rxtx-0=irq 42,rxtx-1=irq 42", doubtful(), &Netdev::default()).unwrap();
    assert_eq!(served(&shared), [(42, Serves::All)]);
}

#[test]
fn contradictions_are_refused() {
    let row = |irq, queue| QueueIrq {
        irq: Irq(irq),
        name: String::new(),
        serves: Serves::Both(QueueIndex(queue)),
        how: HowKnown::MsiIrqs,
    };
    let certain = || QueueIrqs { rows: vec![row(42, 0), row(43, 1)], ..QueueIrqs::default() };
    let netlink = Netdev {
        queues: vec![NetdevQueue { direction: Direction::Rx, index: QueueIndex(0), napi: Some(NapiId(9)) }],
        napis: vec![Napi { id: NapiId(9), irq: Some(Irq(41)), pid: None, thread: None }],
        ..Netdev::default()
    };
    let nothing = Netdev::default();
    for (text, found, netdev, reason) in [
        ("rx-0=irq 42,rx-0=irq 43", doubtful(), &nothing, "told twice, with IRQ 42 and IRQ 43"),
        ("rx-2=irq 42", doubtful(), &nothing, "RX queue 2, and eth0 has 2 of them"),
        ("rx-0=irq 50", doubtful(), &nothing, "no /proc/irq/50"),
        ("rx-0=irq 60", doubtful(), &nothing, "IRQ 60 for eth0, and it is one of eth1"),
        ("rx-0=irq 70", doubtful(), &nothing, "IRQ 70, which has no handler"),
        ("rx-0=irq 42", doubtful(), &nothing, "(nobody knows): no interrupt is known for RX queue 1"),
        ("rx-0=irq 43", certain(), &nothing, "it is IRQ 42 (known by msi_irqs)"),
        ("rxtx-0=irq 42,rxtx-1=irq 43", doubtful(), &netlink, "it is IRQ 41 (known by netlink)"),
        ("rx-0", doubtful(), &nothing, "\"rx-0\" is no entry of a map"),
        ("rx-0=irq", doubtful(), &nothing, "no entry"),
        ("rx-0=irq42", doubtful(), &nothing, "no entry"),
        ("rx-+0=irq 42", doubtful(), &nothing, "no entry"),
        ("ab-0=irq 42", doubtful(), &nothing, "no entry"),
        ("# nothing\n", doubtful(), &nothing, "the map is empty"),
    ] {
        let error = complete(text, found, netdev).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert_eq!(
        complete("rx-0=irq 42", certain(), &nothing),
        Ok(certain()),
        "what is known stays as it is known"
    );
}

#[test]
fn netlink_gives_a_row_for_each_queue_of_an_interrupt() {
    let nic = device_nic("mlx5_core", "", 2, 4);
    let queue = |direction, index, napi| NetdevQueue { direction, index: QueueIndex(index), napi };
    let napi = |id, irq: u32| Napi { id: NapiId(id), irq: Some(Irq(irq)), pid: None, thread: None };
    let netdev = Netdev {
        queues: vec![
            queue(Direction::Rx, 0, Some(NapiId(7))),
            queue(Direction::Rx, 1, Some(NapiId(8))),
            queue(Direction::Tx, 0, Some(NapiId(7))),
            queue(Direction::Tx, 1, Some(NapiId(8))),
            queue(Direction::Tx, 2, Some(NapiId(7))),
            queue(Direction::Tx, 3, None),
            queue(Direction::Tx, 9, Some(NapiId(8))),
        ],
        napis: vec![napi(7, 40), napi(8, 90)],
        ..Netdev::default()
    };
    let rows = netlink_rows(&nic, &netdev, |_| true, |_| None);
    let served: Vec<(u32, Serves)> = rows.iter().map(|row| (row.irq.0, row.serves)).collect();
    let (q0, q1, q2) = (QueueIndex(0), QueueIndex(1), QueueIndex(2));
    assert_eq!(served, [(40, Serves::Both(q0)), (90, Serves::Both(q1)), (40, Serves::Tx(q2))]);
    assert_eq!(netlink_rows(&nic, &netdev, |irq| irq.0 != 90, |_| None).len(), 2, "IRQ 90 has no /proc/irq");
    let found = QueueIrqs {
        rows: vec![QueueIrq { irq: Irq(90), how: HowKnown::MsiIrqs, ..rows[0].clone() }],
        ..QueueIrqs::default()
    };
    let against = against_netlink(&rows, &found).unwrap();
    assert!(against.contains("IRQ 40 () serves RX queue 0, and by msi_irqs it is IRQ 90"), "{against}");
    assert_eq!(against_netlink(&rows[1..], &found), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "([rtx]{2,4}-[0-9]{1,12} ?= ?(irq )?[0-9]{1,12}|\\PC{0,8})([,\n\
                                               #]|\\PC{0,3})") {
        let _ = text.parse::<ToldMap>();
    }

    #[test]
    fn what_is_written_is_read(pairs in prop::collection::btree_map((any::<bool>(), 0..5000u32), 0..100_000u32, 1..50)) {
        let entry = |(&(rx, queue), irq): (&(bool, u32), &u32)| format!("{}-{queue}=irq \
            {irq}", if rx { "rx" } else { "tx" });
        let text = pairs.iter().map(entry).collect::<Vec<_>>().join(",");
        let map: ToldMap = text.parse().unwrap();
        let direction = |rx| if rx { Direction::Rx } else { Direction::Tx };
        let expected = pairs.into_iter().map(|((rx, queue), irq)| ((direction(rx), QueueIndex(queue)), Irq(irq)));
        prop_assert_eq!(map.0, expected.collect());
    }
}
