//! What the kernel of this machine answers; nothing of it is set.

use std::collections::BTreeMap;

use super::*;
use crate::host::ethtool::{Feature, FlowType};

/// Each command gets the answer of its own kind: what the crate counts as `features-get` is the kernel's
/// `rings-get`.
#[test]
fn the_kernel_knows_the_commands() {
    let lo = read(&"lo".parse().unwrap());
    let absent = |what: &str| (what.to_owned(), "the driver does not have it".to_owned());
    assert_eq!(lo.unknown, BTreeMap::from(["channels", "rings", "rss", "coalesce"].map(absent)));
    assert_eq!(lo.features.get(NTUPLE), Some(&Feature { on: false, fixed: true }));
    assert_eq!(lo.features.get("tx-checksum-sctp").map(|feature| feature.on), Some(true));
    assert_eq!((lo.channels, lo.rings, lo.rss, lo.hash.len()), (None, None, None, 0));
    let absent = "no-such-link".parse().unwrap();
    let error = read_one(&absent, Knob::Channels).unwrap_err();
    assert!(error.is_gone(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("get channels of no-such-link by netlink: ENODEV: no such device"), "{text}");
}

#[test]
fn a_refusal_says_what_was_asked_for_and_what_the_kernel_says() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let absent = "no-such-link".parse().unwrap();
    for (knob, text) in [
        (Knob::Channels, "combined 4"),
        (Knob::Rings, "rx 64"),
        (Knob::Coalesce(CoalesceField::AdaptiveRx), "on"),
        (Knob::Rss, "equal 2"),
        (Knob::Hash(FlowType::Udp4), "sdfn"),
        (Knob::Ntuple, "off"),
    ] {
        let error = set(&absent, knob, text).unwrap_err().to_string();
        let start = format!(
            "set {} of no-such-link to \"{text}\" by {}: ENODEV: no such device",
            knob.name(),
            knob.way()
        );
        assert!(error.starts_with(&start), "{error}");
    }
    let lo = "lo".parse().unwrap();
    for (knob, text) in
        [(Knob::Channels, "combined 4"), (Knob::Rss, "equal 4"), (Knob::Hash(FlowType::Tcp4), "sd")]
    {
        let error = set(&lo, knob, text).unwrap_err().to_string();
        assert!(error.contains("EOPNOTSUPP: operation not supported"), "{error}");
    }
}
