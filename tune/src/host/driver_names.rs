//! How drivers name the interrupts of their queues: one table, one matcher.
//!
//! A name must match a pattern wholly, so the vectors that serve no queue (`…:fdir-TxRx-0`, `…:misc`, `…-config`,
//! `mlx5_async0@…`) match nothing; those that would are listed in [`NOT_QUEUES`].

use super::{InterfaceName, PciAddress, QueueIndex};

/// What the number in an interrupt's name counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// RX and TX queue of that number.
    Combined,
    /// The RX queue of that number.
    Rx,
    /// The TX queue of that number.
    Tx,
    /// The driver's vectors, of which each serves an RX queue: the lowest is that of queue 0. bnxt_en numbers its
    /// TX vectors on after the RX ones, vmxnet3 its RX vectors after the TX ones.
    RxVector,
    /// As [`Numbers::RxVector`], for TX queues.
    TxVector,
    /// gve: blocks in the lower half are TX queues, those in the upper half RX queues counted from the middle
    /// (`gve_rx_idx_to_ntfy()`).
    TxThenRx,
    /// There is none: one interrupt serves all queues.
    All,
}

/// One naming rule.
pub(super) struct Rule {
    /// Names of the drivers that use it, as in `device/driver`.
    drivers: &'static [&'static str],
    /// Whether a driver that no rule names may be read by it too.
    common: bool,
    /// `{if}` an interface name, `{n}` the number, `{pci}` a PCI address, `{dev}` the device's own name.
    pattern: &'static str,
    /// What `{n}` counts.
    pub(super) numbers: Numbers,
}

const fn rule(drivers: &'static [&'static str], pattern: &'static str, numbers: Numbers) -> Rule {
    Rule { drivers, common: false, pattern, numbers }
}

const fn common(drivers: &'static [&'static str], pattern: &'static str, numbers: Numbers) -> Rule {
    Rule { drivers, common: true, pattern, numbers }
}

const INTEL: &[&str] = &["ixgbe", "ixgbevf", "igb", "igbvf", "igc", "e1000e", "amd-xgbe", "fbnic"];
const RXTX: &[&str] = &["nfp", "rvu_nicpf", "rvu_nicvf", "nicvf", "thunder-nic"];

/// Drivers whose names do not say which queue a vector serves.
///
/// * idpf prints the number of the vector in the device (`vidx` in `idpf_vport_intr_req_irq()`), which it hands out in
///   an order of its own and to all its interfaces.
/// * mlx4 numbers its event queues from 1; both ports of a card take theirs from them (`mlx4_assign_eq()`).
const UNREADABLE: &[&str] = &["idpf", "mlx4_core", "mlx4_en"];

/// Kernel 6.12, the `snprintf` before each driver's `request_irq()`.
pub(super) const RULES: &[Rule] = &[
    common(INTEL, "{if}-TxRx-{n}", Numbers::Combined),
    common(INTEL, "{if}-rx-{n}", Numbers::Rx),
    common(INTEL, "{if}-tx-{n}", Numbers::Tx),
    rule(&["i40e"], "i40e-{if}-TxRx-{n}", Numbers::Combined),
    rule(&["i40e"], "i40e-{if}-rx-{n}", Numbers::Rx),
    rule(&["i40e"], "i40e-{if}-tx-{n}", Numbers::Tx),
    rule(&["ice"], "ice-{if}-TxRx-{n}", Numbers::Combined),
    rule(&["ice"], "ice-{if}-rx-{n}", Numbers::Rx),
    rule(&["ice"], "ice-{if}-tx-{n}", Numbers::Tx),
    rule(&["iavf"], "iavf-{if}-TxRx-{n}", Numbers::Combined),
    rule(&["iavf"], "iavf-{if}-rx-{n}", Numbers::Rx),
    rule(&["iavf"], "iavf-{if}-tx-{n}", Numbers::Tx),
    // bnxt_setup_msix(): "tx" where i >= rx_nr_rings, and i is not counted from 0 again.
    rule(&["bnxt_en"], "{if}-TxRx-{n}", Numbers::Combined),
    rule(&["bnxt_en"], "{if}-rx-{n}", Numbers::RxVector),
    rule(&["bnxt_en"], "{if}-tx-{n}", Numbers::TxVector),
    // vmxnet3_request_irqs(): `vector` runs on from the TX queues to the RX queues, unless they share.
    rule(&["vmxnet3"], "{if}-rxtx-{n}", Numbers::Combined),
    rule(&["vmxnet3"], "{if}-rx-{n}", Numbers::RxVector),
    rule(&["vmxnet3"], "{if}-tx-{n}", Numbers::TxVector),
    rule(&["mlx5_core"], "mlx5_comp{n}@pci:{pci}", Numbers::Combined),
    rule(&["mlx5_core"], "mlx5_combined{n}@pci:{pci}", Numbers::Combined),
    rule(&["ena"], "{if}-Tx-Rx-{n}", Numbers::Combined),
    rule(&["virtio_net"], "{dev}-input.{n}", Numbers::Rx),
    rule(&["virtio_net"], "{dev}-output.{n}", Numbers::Tx),
    rule(&["virtio_net"], "{dev}-virtqueues", Numbers::All),
    rule(&["gve", "gvnic"], "gve-ntfy-blk{n}@pci:{pci}", Numbers::TxThenRx),
    rule(&["gve", "gvnic"], "eth%d-ntfy-block.{n}", Numbers::TxThenRx),
    common(RXTX, "{if}-rxtx-{n}", Numbers::Combined),
    rule(RXTX, "{if}-rx-{n}", Numbers::Rx),
    rule(RXTX, "{if}-tx-{n}", Numbers::Tx),
    rule(&["bnx2x", "qede"], "{if}-fp-{n}", Numbers::Combined),
    rule(&["mana"], "mana_q{n}@pci:{pci}", Numbers::Combined),
    rule(&["cxgb4", "cxgb4vf"], "{if}-Rx{n}", Numbers::Combined),
    rule(&["sfc", "sfc_ef100", "sfc-siena", "sfc-falcon"], "{if}-{n}", Numbers::Combined),
    rule(&["sfc", "sfc_ef100", "sfc-siena", "sfc-falcon"], "{if}-rx-{n}", Numbers::Rx),
    rule(&["sfc", "sfc_ef100", "sfc-siena", "sfc-falcon"], "{if}-tx-{n}", Numbers::Tx),
    rule(&["be2net"], "{if}-q{n}", Numbers::Combined),
    rule(&["hns3", "hclge", "hclgevf"], "hns3-{pci}-TxRx-{n}", Numbers::Combined),
    rule(&["hns3", "hclge", "hclgevf"], "hns3-{pci}-Rx-{n}", Numbers::Rx),
    rule(&["hns3", "hclge", "hclgevf"], "hns3-{pci}-Tx-{n}", Numbers::Tx),
    rule(&["fsl_enetc", "fsl_enetc_vf", "nxp_enetc4"], "{if}-rxtx{n}", Numbers::Combined),
    rule(&["vif", "xen_netfront"], "{if}-q{n}-rx", Numbers::Rx),
    rule(&["vif", "xen_netfront"], "{if}-q{n}-tx", Numbers::Tx),
];

/// The rule for drivers with one vector, or with vectors that all carry the bare interface name. It is used only
/// when no other rule matched, since beside numbered names the bare one is the link interrupt (igb, e1000e).
pub(super) const BARE: Rule = common(&[], "{if}", Numbers::All);

/// Parts of names that look like an interface before `-TxRx-N` and are not one.
const NOT_QUEUES: &[&str] =
    &["fdir", "misc", "ctrl", "config", "async", "mgmnt", "mgmt", "hwc", "lsc", "ll_ts", "other"];

/// True if the driver's names are known not to say which queue a vector serves.
pub(super) fn is_unreadable(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| UNREADABLE.contains(&driver))
}

/// The rules for a driver: its own, or the common ones if no rule names it; none if it is known to follow none.
pub(super) fn rules_for(driver: Option<&str>) -> Vec<&'static Rule> {
    if is_unreadable(driver) {
        return Vec::new();
    }
    let own: Vec<_> =
        RULES.iter().filter(|rule| driver.is_some_and(|driver| rule.drivers.contains(&driver))).collect();
    if own.is_empty() { RULES.iter().filter(|rule| rule.common).collect() } else { own }
}

/// What a name says when a rule matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match<'a> {
    /// The number, where the pattern has one.
    pub(super) number: Option<QueueIndex>,
    /// The interface name in it, which may be one from before a rename.
    pub(super) interface: Option<&'a str>,
    /// The PCI address in it.
    pub(super) pci: Option<PciAddress>,
}

impl Rule {
    /// Matches a whole name. `device` is the device's own name (`virtio2`), `interface` the interface's present
    /// one, which is taken where the name could be cut in several ways.
    pub(super) fn matches<'a>(
        &self,
        name: &'a str,
        interface: &InterfaceName,
        device: &str,
    ) -> Option<Match<'a>> {
        let mut found = Match { number: None, interface: None, pci: None };
        let (mut pattern, mut name) = (self.pattern, name);
        while let Some((literal, rest)) = pattern.split_once('{') {
            let (placeholder, rest) = rest.split_once('}')?;
            name = name.strip_prefix(literal)?;
            let end = match placeholder {
                "n" => name.bytes().take_while(u8::is_ascii_digit).count(),
                "dev" => name.starts_with(device).then_some(device.len())?,
                "if" => interface_end(name, interface, rest)?,
                _ => pci_end(name),
            };
            let (part, tail) = name.split_at(end);
            match placeholder {
                "n" => found.number = Some(plain_number(part)?),
                "if" => found.interface = Some(part),
                "pci" => found.pci = Some(part.parse().ok()?),
                _ => {}
            }
            (pattern, name) = (rest, tail);
        }
        (name == pattern).then_some(found)
    }
}

/// Where the interface's name ends: after its present name if that is there, else before the last place where
/// the pattern's next literal stands.
fn interface_end(name: &str, interface: &InterfaceName, rest: &str) -> Option<usize> {
    let literal = rest.split('{').next().unwrap_or_default();
    if name.strip_prefix(interface.as_str()).is_some_and(|tail| follows(tail, literal, rest)) {
        return Some(interface.as_str().len());
    }
    let end = if literal.is_empty() { name.len() } else { name.rfind(literal)? };
    let other: InterfaceName = name[..end].parse().ok()?;
    let is_queue = other.as_str().split('-').all(|part| !NOT_QUEUES.contains(&part));
    is_queue.then_some(end)
}

fn follows(tail: &str, literal: &str, rest: &str) -> bool {
    if rest.is_empty() { tail.is_empty() } else { tail.starts_with(literal) }
}

fn pci_end(name: &str) -> usize {
    name.bytes().take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).count()
}

/// Digits without a leading zero.
fn plain_number(digits: &str) -> Option<QueueIndex> {
    let padded = digits.len() > 1 && digits.starts_with('0');
    if padded { None } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
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
        ("vif", "eth0-q2-rx", Numbers::Rx, Some(2)),
        ("vif", "eth0-q2-tx", Numbers::Tx, Some(2)),
        ("a driver without a rule", "eth0-TxRx-1", Numbers::Combined, Some(1)),
        ("a driver without a rule", "eth0-rxtx-1", Numbers::Combined, Some(1)),
    ];

    fn find(driver: &str, name: &str) -> Option<(&'static Rule, Option<u32>, Option<String>)> {
        let interface: InterfaceName = "eth0".parse().unwrap();
        rules_for(Some(driver)).into_iter().find_map(|rule| {
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
            ("mlx4_core", "mlx4-1@0000:05:00.0"),
            ("ena", "ena-mgmnt@pci:0000:00:05.0"),
            ("virtio_net", "virtio2-config"),
            ("virtio_net", "virtio2-control"),
            ("virtio_net", "virtio4-input.0"),
            ("virtio_net", "virtio2-input"),
            ("virtio_net", "virtio22-input.0"),
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
                .replace("{n}", &number.to_string());
            let interface: InterfaceName = "eth0".parse().unwrap();
            let found = rule.matches(&name, &interface, "virtio2").unwrap();
            let expected = rule.pattern.contains("{n}").then_some(QueueIndex(number));
            prop_assert_eq!(found.number, expected);
        }
    }
}
