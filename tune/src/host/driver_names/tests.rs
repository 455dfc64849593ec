use proptest::prelude::*;

use super::*;

/// A sample name per rule: driver, name, what it serves, number.
const SAMPLES: &[(&str, &str, Numbers, Option<u32>)] = &[
    ("ixgbe", "eth0-TxRx-13", Numbers::Combined, Some(13)),
    ("igb", "eth0-rx-0", Numbers::Rx, Some(0)),
    ("igc", "eth0-tx-3", Numbers::Tx, Some(3)),
    ("bnxt_en", "eth0-TxRx-7", Numbers::Combined, Some(7)),
    ("fbnic", "eth0-TxRx-7", Numbers::Combined, Some(7)),
    ("amd-xgbe", "eth0-TxRx-1", Numbers::Combined, Some(1)),
    ("i40e", "i40e-eth0-TxRx-47", Numbers::Combined, Some(47)),
    ("i40e", "i40e-eth0-rx-1", Numbers::Rx, Some(1)),
    ("i40e", "i40e-eth0-tx-1", Numbers::Tx, Some(1)),
    ("ice", "ice-eth0-TxRx-2", Numbers::Combined, Some(2)),
    ("ice", "ice-eth0-rx-2", Numbers::Rx, Some(2)),
    ("ice", "ice-eth0-tx-2", Numbers::Tx, Some(2)),
    ("iavf", "iavf-eth0-TxRx-0", Numbers::Combined, Some(0)),
    ("iavf", "iavf-eth0-rx-0", Numbers::Rx, Some(0)),
    ("iavf", "iavf-eth0-tx-0", Numbers::Tx, Some(0)),
    ("bnxt_en", "eth0-rx-7", Numbers::RxVector, Some(7)),
    ("bnxt_en", "eth0-tx-15", Numbers::TxVector, Some(15)),
    ("mlx5_core", "mlx5_comp11@pci:0000:3b:00.1", Numbers::Combined, Some(11)),
    ("mlx5_core", "mlx5_combined0@pci:0000:3b:00.1", Numbers::Combined, Some(0)),
    ("ena", "eth0-Tx-Rx-6", Numbers::Combined, Some(6)),
    ("virtio_net", "virtio2-input.0", Numbers::Rx, Some(0)),
    ("virtio_net", "virtio2-output.15", Numbers::Tx, Some(15)),
    ("virtio_net", "virtio2-virtqueues", Numbers::All, None),
    ("gve", "gve-ntfy-blk3@pci:0000:00:04.0", Numbers::TxThenRx, Some(3)),
    ("gve", "eth%d-ntfy-block.3", Numbers::TxThenRx, Some(3)),
    ("vmxnet3", "eth0-rxtx-3", Numbers::Combined, Some(3)),
    ("vmxnet3", "eth0-rx-3", Numbers::RxVector, Some(3)),
    ("vmxnet3", "eth0-tx-3", Numbers::TxVector, Some(3)),
    ("nfp", "eth0-rxtx-9", Numbers::Combined, Some(9)),
    ("nfp", "eth0-rx-9", Numbers::Rx, Some(9)),
    ("nfp", "eth0-tx-9", Numbers::Tx, Some(9)),
    ("rvu_nicpf", "eth0-rxtx-9", Numbers::Combined, Some(9)),
    ("rvu_nicvf", "eth0-rxtx-9", Numbers::Combined, Some(9)),
    ("nicvf", "eth0-rxtx-9", Numbers::Combined, Some(9)),
    ("igb", "eth0-TxRx-3", Numbers::Combined, Some(3)),
    ("igc", "eth0-TxRx-3", Numbers::Combined, Some(3)),
    ("xen_netfront", "eth0-q3-tx", Numbers::Tx, Some(3)),
    ("bnx2x", "eth0-fp-2", Numbers::Combined, Some(2)),
    ("qede", "eth0-fp-2", Numbers::Combined, Some(2)),
    ("mana", "mana_q8@pci:7870:00:00.0", Numbers::Combined, Some(8)),
    ("cxgb4", "eth0-Rx12", Numbers::Combined, Some(12)),
    ("sfc", "eth0-5", Numbers::Combined, Some(5)),
    ("sfc", "eth0-rx-5", Numbers::Rx, Some(5)),
    ("sfc", "eth0-tx-5", Numbers::Tx, Some(5)),
    ("be2net", "eth0-q5", Numbers::Combined, Some(5)),
    ("hns3", "hns3-0000:7d:00.0-TxRx-1", Numbers::Combined, Some(1)),
    ("hns3", "hns3-0000:7d:00.0-Rx-1", Numbers::Rx, Some(1)),
    ("hns3", "hns3-0000:7d:00.0-Tx-1", Numbers::Tx, Some(1)),
    ("fsl_enetc", "eth0-rxtx1", Numbers::Combined, Some(1)),
    ("virtio_net", "virtio2", Numbers::All, None),
    ("tg3", "eth0-txrx-1", Numbers::Combined, Some(0)),
    ("tg3", "eth0-rx-4", Numbers::Rx, Some(3)),
    ("tg3", "eth0-tx-0", Numbers::Tx, Some(0)),
    ("tg3", "eth0-tx-3", Numbers::Tx, Some(2)),
    ("fm10k", "eth0-TxRx-1", Numbers::Combined, Some(1)),
    ("vif", "eth0-q2-rx", Numbers::Rx, Some(2)),
    ("vif", "eth0-q2-tx", Numbers::Tx, Some(2)),
    ("a driver without a rule", "eth0-TxRx-1", Numbers::Combined, Some(1)),
    ("a driver without a rule", "eth0-rxtx-1", Numbers::Combined, Some(1)),
];

fn find(driver: &str, name: &str) -> Option<(&'static Rule, Option<u32>, Option<String>)> {
    let interface: InterfaceName = "eth0".parse().unwrap();
    let (Rules::Own(rules) | Rules::Guess(rules)) = rules_for(Some(driver));
    rules.into_iter().find_map(|rule| {
        let found = rule.matches(name, &interface, "virtio2")?;
        Some((rule, found.number.map(|n| n.0), found.interface.map(str::to_owned)))
    })
}

#[test]
fn every_rule_reads_its_sample() {
    for &(driver, name, numbers, number) in SAMPLES {
        let (rule, found, _) = find(driver, name).unwrap_or_else(|| panic!("{driver}: {name}"));
        assert_eq!((rule.numbers, found), (numbers, number), "{driver}: {name}");
    }
    for rule in RULES {
        let sampled = SAMPLES.iter().any(|(driver, name, _, _)| {
            find(driver, name).is_some_and(|(found, _, _)| found.pattern == rule.pattern)
        });
        assert!(sampled, "no sample for {}", rule.pattern);
    }
}

/// The drivers of the table in the kernel's sources that names were collected for; what none of them may
/// become is a guess.
#[test]
fn the_drivers_whose_names_are_known_have_rules_of_their_own() {
    let known = [
        "ixgbe",
        "ixgbevf",
        "igb",
        "igbvf",
        "igc",
        "e1000e",
        "amd-xgbe",
        "fbnic",
        "bnxt_en",
        "i40e",
        "ice",
        "iavf",
        "idpf",
        "mlx5_core",
        "mlx5_core.sf",
        "mlx4_core",
        "mlx4_en",
        "ena",
        "virtio_net",
        "gve",
        "vmxnet3",
        "nfp",
        "rvu_nicpf",
        "rvu_nicvf",
        "nicvf",
        "bnx2x",
        "qede",
        "mana",
        "cxgb4",
        "sfc",
        "be2net",
        "hns3",
        "fsl_enetc",
        "xen_netfront",
        "vif",
        "tg3",
    ];
    for driver in known {
        assert!(matches!(rules_for(Some(driver)), Rules::Own(_)), "{driver}");
    }
    for driver in [Some("ionic"), None] {
        assert!(matches!(rules_for(driver), Rules::Guess(_)), "{driver:?}");
    }
}

#[test]
fn what_serves_a_device_without_an_interrupt() {
    let device = |driver: &str, path: &str| Device {
        path: path.into(),
        parent: String::new(),
        driver: Some(driver.into()),
        pci: None,
    };
    let vmbus = device("hv_netvsc", "/sys/devices/LNXSYSTM:00/VMBUS:00/000d3a6b-0000");
    assert!(served_by(&vmbus).unwrap().contains("VMBus"));
    let usb = device("r8152", "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0");
    assert!(served_by(&usb).unwrap().contains("USB"));
    assert_eq!(served_by(&device("e1000", "/sys/devices/pci0000:00/0000:00:03.0")), None);
}

#[test]
fn vectors_of_no_queue_match_nothing() {
    for (driver, name) in [
        ("i40e", "i40e-0000:3b:00.0:fdir-TxRx-0"),
        ("i40e", "i40e-fdir-TxRx-0"),
        ("i40e", "i40e-0000:3b:00.0:misc"),
        ("ice", "ice-0000:3b:00.0:ctrl"),
        ("ice", "ice-0000:3b:00.0:ll_ts"),
        ("ice", "ice-0000:3b:00.0:misc"),
        ("ixgbe", "eth0"),
        ("ixgbe", "eth0:lsc"),
        ("ixgbe", "eth0-TxRx-"),
        ("ixgbe", "eth0-TxRx-01"),
        ("ixgbe", "eth0-TxRx-1x"),
        ("mlx5_core", "mlx5_async0@pci:0000:3b:00.1"),
        ("mlx5_core", "mlx5_pages_eq@pci:0000:3b:00.1"),
        ("mlx4_core", "mlx4-async@pci:0000:05:00.0"),
        ("mlx5_core", "mlx5_sf_comp0@pci:0000:3b:00.0"),
        ("mlx5_core.sf", "mlx5_sf_comp0@pci:0000:3b:00.0"),
        ("mlx5_core.sf", "mlx5_comp0@pci:0000:3b:00.0"),
        ("mlx4_core", "mlx4-1@0000:05:00.0"),
        ("mlx4_core", "mlx4-comp-1@pci:0000:05:00.0"),
        ("ena", "ena-mgmnt@pci:0000:00:05.0"),
        ("virtio_net", "virtio2-config"),
        ("virtio_net", "virtio2-control"),
        ("virtio_net", "virtio4-input.0"),
        ("virtio_net", "virtio2-input"),
        ("virtio_net", "virtio22-input.0"),
        ("virtio_net", "virtio22"),
        ("tg3", "eth0-0"),
        ("gve", "gve-mgmnt@pci:0000:00:04.0"),
        ("mana", "mana_hwc@pci:7870:00:00.0"),
        ("vmxnet3", "eth0-event-4"),
        ("idpf", "idpf-eth0-TxRx-0"),
        ("idpf", "eth0-TxRx-0"),
        ("a driver without a rule", "eth0-5"),
    ] {
        assert!(find(driver, name).is_none(), "{driver}: {name}");
    }
}

#[test]
fn a_stale_interface_name_is_read_and_reported() {
    let (_, number, interface) = find("i40e", "i40e-enp195s0f1-TxRx-5").unwrap();
    assert_eq!((number, interface.as_deref()), (Some(5), Some("enp195s0f1")));
    let (_, _, interface) = find("sfc", "enp1s0-np0-5").unwrap();
    assert_eq!(interface.as_deref(), Some("enp1s0-np0"));
}

proptest! {
    #[test]
    fn no_name_makes_the_matcher_panic(name in "(mlx5_comp|i40e-|eth0|virtio2|gve)?[-a-zA-Z0-9@:._%é]{0,30}") {
        let interface: InterfaceName = "eth0".parse().unwrap();
        for rule in RULES.iter().chain([&BARE]) {
            let _ = rule.matches(&name, &interface, "virtio2");
        }
    }

    #[test]
    fn every_number_of_every_rule_is_read(index in 0..RULES.len(), number in 0..5000u32) {
        let rule = &RULES[index];
        let name = rule
            .pattern
            .replace("{if}", "eth0")
            .replace("{dev}", "virtio2")
            .replace("{pci}", "0000:3b:00.1")
            .replace("{n}", &number.to_string())
            .replace("{n+1}", &(number + 1).to_string());
        let interface: InterfaceName = "eth0".parse().unwrap();
        let found = rule.matches(&name, &interface, "virtio2").unwrap();
        let expected = rule.pattern.contains("{n").then_some(QueueIndex(number));
        prop_assert_eq!(found.number, expected);
    }
}
