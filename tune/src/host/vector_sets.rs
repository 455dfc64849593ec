//! The whole set of interrupt names that each driver registers, and the queues they must be read as.
//!
//! The names are those of the driver's source or of a `/proc/interrupts` on record, with the vectors that
//! serve no queue (management, flow director, other functions of the card) left in.

use super::fixture::device_nic;
use super::queue_map::{Candidate, map};
use super::{HowKnown, Irq, QueueIndex, Serves};

const PCI: &str = "0000:3b:00.0";

/// One device: its vectors in their order, each with what it serves.
struct Set {
    driver: &'static str,
    rx: u32,
    tx: u32,
    vectors: Vec<(String, Option<Serves>)>,
    /// The step of the ladder that finds them, and how they are then known.
    step: HowKnown,
    how: HowKnown,
    /// Part of why the map is refused; `None` if it is not.
    doubt: Option<&'static str>,
}

fn set(driver: &'static str, rx: u32, tx: u32, vectors: &[Vec<(String, Option<Serves>)>]) -> Set {
    let (step, how) = (HowKnown::MsiIrqs, HowKnown::MsiIrqs);
    Set { driver, rx, tx, vectors: vectors.concat(), step, how, doubt: None }
}

fn known(set: Set, step: HowKnown, how: HowKnown) -> Set {
    Set { step, how, ..set }
}

fn refused(set: Set, doubt: &'static str) -> Set {
    Set { doubt: Some(doubt), ..set }
}

/// `{n}` stands for the numbers `first`, `first` + 1, …, `{pci}` for the device's address.
fn vectors(
    pattern: &str,
    first: u32,
    count: u32,
    serves: fn(QueueIndex) -> Option<Serves>,
) -> Vec<(String, Option<Serves>)> {
    let name = |number: u32| pattern.replace("{n}", &number.to_string()).replace("{pci}", PCI);
    (0..count).map(|queue| (name(first + queue), serves(QueueIndex(queue)))).collect()
}

/// A vector that serves no queue.
fn other(name: &str) -> Vec<(String, Option<Serves>)> {
    vectors(name, 0, 1, none)
}

fn both(queue: QueueIndex) -> Option<Serves> {
    Some(Serves::Both(queue))
}

fn rx(queue: QueueIndex) -> Option<Serves> {
    Some(Serves::Rx(queue))
}

fn tx(queue: QueueIndex) -> Option<Serves> {
    Some(Serves::Tx(queue))
}

fn all(_: QueueIndex) -> Option<Serves> {
    Some(Serves::All)
}

fn none(_: QueueIndex) -> Option<Serves> {
    None
}

fn intel() -> Vec<Set> {
    vec![
        set(
            "i40e",
            48,
            48,
            &[
                other("i40e-{pci}:misc"),
                vectors("i40e-eth0-TxRx-{n}", 0, 48, both),
                other("i40e-{pci}:fdir-TxRx-0"),
            ],
        ),
        refused(
            set("i40e", 8, 32, &[other("i40e-{pci}:misc"), vectors("i40e-eth0-TxRx-{n}", 0, 8, both)]),
            "no interrupt is known for TX queues 8-31 of eth0",
        ),
        set(
            "ice",
            64,
            64,
            &[
                other("ice-{pci}:misc"),
                vectors("ice-eth0-TxRx-{n}", 0, 64, both),
                other("ice-{pci}:ctrl"),
                other("ice-{pci}:ll_ts"),
                other("ice-ctrl"),
            ],
        ),
        set("iavf", 4, 4, &[other("iavf-{pci}:mbx"), vectors("iavf-eth0-TxRx-{n}", 0, 4, both)]),
        set("ixgbe", 16, 16, &[vectors("eth0-TxRx-{n}", 0, 16, both), other("eth0")]),
        set("igb", 8, 8, &[other("eth0"), vectors("eth0-TxRx-{n}", 0, 8, both)]),
        set(
            "igb",
            4,
            4,
            &[other("eth0"), vectors("eth0-rx-{n}", 0, 4, rx), vectors("eth0-tx-{n}", 0, 4, tx)],
        ),
        refused(set("idpf", 4, 4, &[vectors("idpf-eth0-TxRx-{n}", 1, 4, none)]), "does not say whose queues"),
        refused(set("idpf", 4, 4, &[vectors("idpf-eth0-TxRx-{n}", 0, 4, none)]), "does not say whose queues"),
    ]
}

fn cards() -> Vec<Set> {
    vec![
        set(
            "mlx5_core",
            48,
            48,
            &[
                other("mlx5_async0@pci:{pci}"),
                vectors("mlx5_comp{n}@pci:{pci}", 0, 48, both),
                vectors("mlx5_comp{n}@pci:0000:3b:00.1", 0, 48, none),
            ],
        ),
        // ConnectX-3: both ports take their event queues from these.
        refused(
            set("mlx4_core", 8, 8, &[other("mlx4-async@pci:{pci}"), vectors("mlx4-{n}@{pci}", 1, 16, none)]),
            "does not say whose queues",
        ),
        set("bnxt_en", 8, 8, &[vectors("eth0-TxRx-{n}", 0, 8, both)]),
        set("bnxt_en", 4, 2, &[vectors("eth0-rx-{n}", 0, 4, rx), vectors("eth0-tx-{n}", 4, 2, tx)]),
        set("bnxt_en", 2, 6, &[vectors("eth0-rx-{n}", 0, 2, rx), vectors("eth0-tx-{n}", 2, 6, tx)]),
        // Two traffic classes: the TX rings of the second share the vectors of the first.
        refused(
            set("bnxt_en", 4, 8, &[vectors("eth0-TxRx-{n}", 0, 4, both)]),
            "no interrupt is known for TX queues 4-7 of eth0",
        ),
    ]
}

fn clouds() -> Vec<Set> {
    vec![
        set("ena", 32, 32, &[other("ena-mgmnt@pci:{pci}"), vectors("eth0-Tx-Rx-{n}", 0, 32, both)]),
        // The blocks are those of the most queues the device can have, 16 and 16; 4 and 6 are in use.
        set(
            "gve",
            4,
            6,
            &[
                vectors("gve-ntfy-blk{n}@pci:{pci}", 0, 6, tx),
                vectors("gve-ntfy-blk{n}@pci:{pci}", 6, 10, none),
                vectors("gve-ntfy-blk{n}@pci:{pci}", 16, 4, rx),
                vectors("gve-ntfy-blk{n}@pci:{pci}", 20, 12, none),
                other("gve-mgmnt@pci:{pci}"),
            ],
        ),
        // The last block has gone, so the middle is not where the numbers say.
        refused(
            set(
                "gve",
                1,
                1,
                &[
                    vectors("gve-ntfy-blk{n}@pci:{pci}", 0, 1, tx),
                    vectors("gve-ntfy-blk{n}@pci:{pci}", 1, 1, none),
                    vectors("gve-ntfy-blk{n}@pci:{pci}", 2, 1, rx),
                ],
            ),
            "only 3 of 0 to 3 are there",
        ),
        set("vmxnet3", 8, 8, &[vectors("eth0-rxtx-{n}", 0, 8, both), other("eth0-event-8")]),
        set(
            "vmxnet3",
            4,
            2,
            &[vectors("eth0-tx-{n}", 0, 2, tx), vectors("eth0-rx-{n}", 2, 4, rx), other("eth0-event-6")],
        ),
        // All TX queues on one vector that is named after the first.
        refused(
            set(
                "vmxnet3",
                4,
                4,
                &[vectors("eth0-tx-{n}", 0, 1, tx), vectors("eth0-rx-{n}", 1, 4, rx), other("eth0-event-5")],
            ),
            "no interrupt is known for TX queues 1-3 of eth0",
        ),
        set(
            "virtio_net",
            48,
            48,
            &[
                other("virtio2-config"),
                vectors("virtio2-input.{n}", 0, 48, rx),
                vectors("virtio2-output.{n}", 0, 48, tx),
                other("virtio2-control"),
            ],
        ),
        set("virtio_net", 4, 4, &[other("virtio2-config"), vectors("virtio2-virtqueues", 0, 1, all)]),
        // On virtio-mmio; every interrupt of the host is looked at.
        known(
            set("virtio_net", 1, 1, &[other("virtio1"), vectors("virtio2", 0, 1, all), other("virtio20")]),
            HowKnown::NameOnly,
            HowKnown::DeviceName,
        ),
        known(
            set("virtio_net", 2, 2, &[vectors("virtio2", 0, 1, all)]),
            HowKnown::IrqFile,
            HowKnown::IrqFile,
        ),
        refused(set("hv_netvsc", 8, 8, &[]), "is served by the channels of its VMBus device"),
        set("mana", 8, 8, &[other("mana_hwc@pci:{pci}"), vectors("mana_q{n}@pci:{pci}", 0, 8, both)]),
    ]
}

fn gigabit() -> Vec<Set> {
    vec![
        // With RSS only, vector 0 is for the TX queue.
        set("tg3", 4, 1, &[vectors("eth0-tx-{n}", 0, 1, tx), vectors("eth0-rx-{n}", 1, 4, rx)]),
        set("tg3", 4, 4, &[other("eth0-0"), vectors("eth0-txrx-{n}", 1, 4, both)]),
        set(
            "tg3",
            4,
            2,
            &[
                other("eth0-0"),
                vectors("eth0-txrx-{n}", 1, 2, both),
                vectors("eth0-rx-{n}", 3, 2, |queue| rx(QueueIndex(queue.0 + 2))),
            ],
        ),
        set("tg3", 1, 1, &[vectors("eth0", 0, 1, all)]),
        // Every vector of atlantic carries the bare name.
        refused(
            known(
                set(
                    "atlantic",
                    2,
                    2,
                    &[vectors("eth0", 0, 1, all), vectors("eth0", 0, 1, all), vectors("eth0", 0, 1, all)],
                ),
                HowKnown::MsiIrqs,
                HowKnown::NameOnly,
            ),
            "both claim RX queue 0",
        ),
        set("be2net", 2, 2, &[vectors("eth0-q{n}", 0, 2, both)]),
        set("cxgb4", 2, 2, &[other("cxgb4"), other("eth0-FWeventq"), vectors("eth0-Rx{n}", 0, 2, both)]),
        set("sfc", 2, 2, &[vectors("eth0-{n}", 0, 2, both)]),
        set("hns3", 2, 2, &[other("hclge-misc-{pci}"), vectors("hns3-{pci}-TxRx-{n}", 0, 2, both)]),
        set("fsl_enetc", 2, 2, &[vectors("eth0-rxtx{n}", 0, 2, both)]),
        set("vif", 2, 2, &[vectors("eth0-q{n}-tx", 0, 2, tx), vectors("eth0-q{n}-rx", 0, 2, rx)]),
        set("bnx2x", 2, 2, &[other("eth0-sp"), vectors("eth0-fp-{n}", 0, 2, both)]),
        set("nfp", 2, 2, &[other("eth0-lsc"), other("eth0-exn"), vectors("eth0-rxtx-{n}", 0, 2, both)]),
        known(set("e1000", 1, 1, &[vectors("eth0", 0, 1, all)]), HowKnown::IrqFile, HowKnown::IrqFile),
    ]
}

/// Drivers that no rule names, whose vectors another driver would name so.
fn guesses() -> Vec<Set> {
    let guess = |set| refused(known(set, HowKnown::MsiIrqs, HowKnown::NameOnly), "which queues IRQ 10");
    vec![
        guess(set("a driver", 2, 2, &[other("eth0"), vectors("eth0-TxRx-{n}", 0, 2, both)])),
        guess(set("a driver", 2, 1, &[vectors("eth0-tx-{n}", 0, 1, tx), vectors("eth0-rx-{n}", 0, 2, rx)])),
        // What the others are for is not known, so this may be the link's.
        guess(set("a driver", 1, 1, &[vectors("eth0", 0, 1, all), other("eth0-queue-0")])),
    ]
}

#[test]
fn the_vectors_of_each_driver_are_read_as_its_queues() {
    let sets = [intel(), cards(), clouds(), gigabit(), guesses()];
    for Set { driver, rx, tx, vectors, step, how, doubt } in sets.into_iter().flatten() {
        let device = if driver == "virtio_net" { "virtio2" } else { "" };
        let nic = device_nic(driver, device, rx, tx);
        let irqs = (100..).map(Irq);
        let candidates: Vec<Candidate> =
            irqs.zip(&vectors).map(|(irq, (name, _))| Candidate { irq, names: vec![name.clone()] }).collect();
        let found = map(&nic, nic.device.as_ref().unwrap(), &candidates, step);
        for (candidate, (name, serves)) in candidates.iter().zip(&vectors) {
            let row = found.rows.iter().find(|row| row.irq == candidate.irq);
            let expected = serves.map(|serves| (serves, how));
            assert_eq!(row.map(|row| (row.serves, row.how)), expected, "{driver}: {name}");
        }
        match doubt {
            None => assert_eq!(found.doubt, None, "{driver}"),
            Some(part) => {
                assert!(
                    found.doubt.as_ref().is_some_and(|found| found.contains(part)),
                    "{driver}: {found:?}"
                );
            }
        }
    }
}
