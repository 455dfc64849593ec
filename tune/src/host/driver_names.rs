//! How drivers name the interrupts of their queues: one table, one matcher.
//!
//! A name must match a pattern wholly, so the vectors that serve no queue (`…:fdir-TxRx-0`, `…:misc`,
//! `…-config`, `mlx5_async0@…`) match nothing; those that would are listed in [`NOT_QUEUES`].

use super::nic::Device;
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
    /// The driver's vectors, of which each serves an RX queue: the lowest is that of queue 0. bnxt_en numbers
    /// its TX vectors on after the RX ones, vmxnet3 its RX vectors after the TX ones.
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
#[derive(Debug)]
pub(super) struct Rule {
    /// Names of the drivers that use it, as in `device/driver`.
    drivers: &'static [&'static str],
    /// Whether the names of a driver that no rule names may be guessed by it.
    common: bool,
    /// `{if}` an interface name, `{n}` the number, `{n+1}` the number and 1 more, where 0 is queue 0 too,
    /// `{pci}` a PCI address, `{dev}` the device's own name.
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

const INTEL: &[&str] = &["ixgbe", "ixgbevf", "igb", "igbvf", "igc", "e1000e", "amd-xgbe", "fbnic", "fm10k"];
const RXTX: &[&str] = &["nfp", "rvu_nicpf", "rvu_nicvf", "nicvf", "thunder-nic"];

/// Drivers whose names do not say which queue a vector serves.
///
/// * idpf prints the number of the vector in the device (`vidx` in `idpf_vport_intr_req_irq()`), which it
///   hands out in an order of its own and to all its interfaces.
/// * mlx5 subfunctions take theirs from pools that they share (`mlx5_sf_comp0@…`, `irq_sf_set_name()`).
/// * mlx4 numbers its event queues from 1; both ports of a card take theirs from them (`mlx4_assign_eq()`).
const UNREADABLE: &[&str] = &["idpf", "mlx4_core", "mlx4_en", "mlx5_core.sf"];

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
    // virtio-mmio (vm_find_vqs()) and virtio-pci without MSI-X (vp_find_vqs_intx()).
    rule(&["virtio_net"], "{dev}", Numbers::All),
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
    // tg3_request_irq(): queue q is on vector q + 1. Vector 0 is for the link, and for the TX queue if there
    // is only one (tg3_mem_tx_acquire(), tg3_mem_rx_acquire()).
    rule(&["tg3"], "{if}-txrx-{n+1}", Numbers::Combined),
    rule(&["tg3"], "{if}-rx-{n+1}", Numbers::Rx),
    rule(&["tg3"], "{if}-tx-{n+1}", Numbers::Tx),
    rule(&["vif", "xen_netfront"], "{if}-q{n}-rx", Numbers::Rx),
    rule(&["vif", "xen_netfront"], "{if}-q{n}-tx", Numbers::Tx),
];

/// The rule for drivers with one vector, or with vectors that all carry the bare interface name. It is used
/// only when no other rule matched, since beside numbered names the bare one is the link interrupt (igb,
/// e1000e).
pub(super) const BARE: Rule = common(&[], "{if}", Numbers::All);

/// Parts of names that look like an interface before `-TxRx-N` and are not one.
const NOT_QUEUES: &[&str] =
    &["fdir", "misc", "ctrl", "config", "async", "mgmnt", "mgmt", "hwc", "lsc", "ll_ts", "other"];

/// True if the driver's names are known not to say which queue a vector serves.
pub(super) fn is_unreadable(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| UNREADABLE.contains(&driver))
}

/// What serves a device that has no interrupt of its own.
pub(super) fn served_by(device: &Device) -> Option<&'static str> {
    let is_usb_bus = |part: &str| {
        part.strip_prefix("usb").is_some_and(|bus| !bus.is_empty() && bus.bytes().all(|b| b.is_ascii_digit()))
    };
    if device.driver.as_deref() == Some("hv_netvsc") {
        return Some("the channels of its VMBus device");
    }
    device.path.split('/').any(is_usb_bus).then_some("the interrupt of its USB host controller")
}

impl Device {
    /// True if it has no interrupt of its own: what serves it, serves other devices, too.
    pub(crate) fn is_served_by_another(&self) -> bool {
        served_by(self).is_some()
    }
}

/// The rules for a driver.
#[derive(Debug)]
pub(super) enum Rules {
    /// Those that name it; none if it is known to follow none.
    Own(Vec<&'static Rule>),
    /// No rule names it: how other drivers write theirs.
    Guess(Vec<&'static Rule>),
}

/// The rules for a driver: its own, or the common ones if no rule names it.
pub(super) fn rules_for(driver: Option<&str>) -> Rules {
    let own = RULES.iter().filter(|rule| driver.is_some_and(|driver| rule.drivers.contains(&driver)));
    let own: Vec<_> = own.collect();
    if own.is_empty() && !is_unreadable(driver) {
        return Rules::Guess(RULES.iter().filter(|rule| rule.common).collect());
    }
    Rules::Own(own)
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
    /// True if it goes by the device's own name, which the kernel gives once (`virtio_index_ida`) and which
    /// cannot be changed.
    pub(super) fn names_the_device(&self) -> bool {
        self.pattern.contains("{dev}")
    }

    /// Matches a whole name. `device` is the device's own name (`virtio2`), `interface` the interface's
    /// present one, which is taken where the name could be cut in several ways.
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
                "n" | "n+1" => name.bytes().take_while(u8::is_ascii_digit).count(),
                "dev" => name.starts_with(device).then_some(device.len())?,
                "if" => interface_end(name, interface, rest)?,
                _ => pci_end(name),
            };
            let (part, tail) = name.split_at(end);
            match placeholder {
                "n" => found.number = Some(plain_number(part)?),
                "n+1" => found.number = Some(QueueIndex(plain_number(part)?.0.saturating_sub(1))),
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
mod tests;
