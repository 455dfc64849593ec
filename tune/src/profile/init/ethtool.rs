//! `profile init`: channels, rings, RSS, coalescing and features, with what there is now. Pure.

use super::Key;
use crate::host::ethtool::{CoalesceField, Knob, NTUPLE};
use crate::host::{Host, NicHost};

/// What each interface has, with the most where there is one: `eth0 combined 4 of at most 8`.
fn now(host: &Host, of: impl Fn(&NicHost) -> Option<String>) -> Option<String> {
    let parts: Vec<String> =
        host.nics.iter().filter_map(|on| Some(format!("{} {}", on.nic.name, of(on)?))).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// More channels are a reset of the link, and without certain interrupts nothing of them could be placed.
pub(super) fn channels(host: &Host, places_interrupts: bool) -> Vec<Key> {
    let of = |on: &NicHost| {
        let channels = on.ethtool.channels?;
        let kinds = [("rx", channels.rx), ("tx", channels.tx), ("combined", channels.combined)];
        let kinds: Vec<String> = kinds
            .iter()
            .filter_map(|(kind, limited)| {
                limited.map(|of| format!("{kind} {} of at most {}", of.now, of.max))
            })
            .collect();
        (!kinds.is_empty()).then(|| kinds.join(", "))
    };
    let Some(now) = now(host, of) else { return Vec::new() };
    let line = "count = \"workers\"";
    let why = format!("How many queues: \"workers\", one for each, or a number. Now: {now}.");
    if host.nics.iter().any(|on| on.nic.device.is_none()) {
        return vec![Key::off(
            format!("{why} A virtual interface has as many as its other end serves."),
            line,
        )];
    }
    if !places_interrupts {
        return vec![Key::off(format!("{why} Which interrupts new ones would get is not known."), line)];
    }
    vec![Key::on(format!("{why} A change takes the link down for a moment."), line)]
}

pub(super) fn rings(host: &Host) -> Vec<Key> {
    const ENOUGH: u32 = 2048;
    let mut keys = Vec::new();
    for name in ["rx", "tx"] {
        let ring =
            |on: &NicHost| on.ethtool.rings.and_then(|rings| if name == "rx" { rings.rx } else { rings.tx });
        let of = |on: &NicHost| ring(on).map(|ring| format!("{} of at most {}", ring.now, ring.max));
        let most = host.nics.iter().filter_map(ring).map(|ring| ring.max).min();
        let (Some(now), Some(most)) = (now(host, of), most.filter(|most| *most > 0)) else { continue };
        let why = if name == "rx" {
            "Descriptors of each receive queue. More only while rx_missed_errors grows: a ring larger than \
             the cache is slower."
        } else {
            "Of each transmit queue."
        };
        keys.push(Key::off(format!("{why} Now: {now}."), format!("{name} = {}", most.min(ENOUGH))));
    }
    keys
}

pub(super) fn rss(host: &Host) -> Vec<Key> {
    let of = |on: &NicHost| {
        let rss = on.ethtool.rss.as_ref().filter(|rss| !rss.table.is_empty())?;
        let queues = rss.table.iter().max().map_or(0, |last| last.saturating_add(1));
        Some(format!("{} entries, queues up to {}", rss.table.len(), queues.saturating_sub(1)))
    };
    let Some(now) = now(host, of) else { return Vec::new() };
    let why = format!("The hash names every queue in use equally often. Now: {now}.");
    vec![Key::on(why, "table = \"equal\"")]
}

/// Adaptive moderation or fixed delays, which is a choice between throughput and an even latency.
pub(super) fn coalesce(host: &Host) -> Vec<Key> {
    let mut keys = Vec::new();
    for (field, value, why) in [
        (
            CoalesceField::AdaptiveRx,
            "false",
            "The driver chooses the delay by the load: good for throughput, and latency varies",
        ),
        (
            CoalesceField::RxUsecs,
            "8",
            "Microseconds from a packet to its interrupt: 8 to 20 for an even latency",
        ),
        (CoalesceField::AdaptiveTx, "false", "The same of transmit completions"),
        (CoalesceField::TxUsecs, "50", "Microseconds from a packet that was sent to its completion"),
    ] {
        let of = |on: &NicHost| on.ethtool.text(Knob::Coalesce(field));
        if let Some(now) = now(host, of) {
            keys.push(Key::off(format!("{why}. Now: {now}."), format!("{} = {value}", field.name())));
        }
    }
    keys
}

/// Nothing where it cannot be changed.
pub(super) fn features(host: &Host) -> Vec<Key> {
    let of = |on: &NicHost| {
        let feature = on.ethtool.features.get(NTUPLE).filter(|feature| !feature.fixed);
        feature.and(on.ethtool.text(Knob::Ntuple))
    };
    let Some(now) = now(host, of) else { return Vec::new() };
    let why = "Filters that accelerated RFS needs, and nothing else here; where a driver would suffer from \
               it, it is skipped";
    vec![Key::off(format!("{why}. Now: {now}."), "ntuple = \"on\"")]
}
