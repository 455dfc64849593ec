//! Values of knobs as text and back.

use proptest::prelude::*;

use super::rss_table::is_even;
use super::*;

fn limited(now: u32, max: u32) -> Option<Limited> {
    Some(Limited { now, max })
}

pub(crate) fn sample() -> Ethtool {
    let rss =
        Rss { table: (0..128).map(|i| i % 8).collect(), key: None, function: Some(1), input_xfrm: None };
    Ethtool {
        channels: Some(Channels { combined: limited(8, 63), other: limited(1, 1), ..Channels::default() }),
        rings: Some(Rings { rx: limited(512, 4096), tx: limited(512, 4096) }),
        rss: Some(rss),
        hash: [(FlowType::Tcp4, "sdfn".parse().unwrap()), (FlowType::Udp4, "sd".parse().unwrap())].into(),
        coalesce: [(CoalesceField::AdaptiveRx, 1), (CoalesceField::RxUsecs, 50)].into(),
        features: [(NTUPLE.to_owned(), Feature { on: false, fixed: false })].into(),
        ..Ethtool::default()
    }
}

#[test]
fn each_knob_has_its_text() {
    let ethtool = sample();
    for (knob, text) in [
        (Knob::Channels, Some("combined 8")),
        (Knob::Rings, Some("rx 512 tx 512")),
        (Knob::Rss, Some("equal 8")),
        (Knob::Hash(FlowType::Udp4), Some("sd")),
        (Knob::Hash(FlowType::Udp6), None),
        (Knob::Coalesce(CoalesceField::AdaptiveRx), Some("on")),
        (Knob::Coalesce(CoalesceField::RxUsecs), Some("50")),
        (Knob::Coalesce(CoalesceField::TxUsecs), None),
        (Knob::Ntuple, Some("off")),
    ] {
        assert_eq!(ethtool.text(knob).as_deref(), text, "{knob:?}");
        assert_eq!(Ethtool::default().text(knob), None, "{knob:?} of nothing");
    }
}

#[test]
fn what_is_set_is_read_back_and_what_is_impossible_refused() {
    let mut ethtool = sample();
    for (knob, text) in [
        (Knob::Channels, "combined 4"),
        (Knob::Rings, "rx 1024 tx 256"),
        (Knob::Rss, "equal 4"),
        (Knob::Rss, "table 3*64 1*64"),
        (Knob::Hash(FlowType::Udp4), "sdfn"),
        (Knob::Coalesce(CoalesceField::AdaptiveRx), "off"),
        (Knob::Coalesce(CoalesceField::RxUsecs), "8"),
        (Knob::Ntuple, "on"),
    ] {
        ethtool.set(knob, text).unwrap();
        assert_eq!(ethtool.text(knob).as_deref(), Some(text));
    }
    let before = ethtool.clone();
    for (knob, text, reason) in [
        (Knob::Channels, "combined 64", "combined 64 is above the maximum, 63"),
        (Knob::Channels, "rx 1", "there are no rx here"),
        (Knob::Channels, "combined", "\"combined\" is not a row of rx, tx, combined and numbers"),
        (Knob::Rings, "rx 1 rx 2", "\"rx 1 rx 2\" is not a row of rx, tx and numbers"),
        (Knob::Rings, "", "\"\" is not a row of rx, tx and numbers"),
        (Knob::Rss, "table 1*4", "the table has 128 entries, not as many as \"table 1*4\""),
        (Knob::Rss, "equal 0", "\"equal 0\" is not \"equal N\" or \"table QUEUE*COUNT …\""),
        (Knob::Rss, "table 0*99999999", "\"table 0*99999999\" is not \"equal N\" or \"table QUEUE*COUNT …\""),
        (Knob::Hash(FlowType::Tcp4), "x", "\"x\" is not \"none\" or some of the letters mvtsdfnelr"),
        (Knob::Hash(FlowType::Tcp6), "sd", "there is no rss/tcp6 here"),
        (Knob::Coalesce(CoalesceField::TxFrames), "1", "there is no coalesce/tx_frames here"),
        (Knob::Coalesce(CoalesceField::AdaptiveRx), "2", "\"2\" is not on or off"),
        (Knob::Coalesce(CoalesceField::RxUsecs), "-1", "\"-1\" is not a number"),
    ] {
        assert_eq!(ethtool.set(knob, text).unwrap_err().to_string(), reason, "{knob:?} {text}");
    }
    assert_eq!(ethtool, before, "a refused value changes nothing");
    ethtool.features.insert(NTUPLE.to_owned(), Feature { on: false, fixed: true });
    assert!(ethtool.set(Knob::Ntuple, "on").is_err());
}

#[test]
fn virtio_has_the_coalescing_that_its_device_offers() {
    let features =
        |bits: &[usize]| (0..64).map(|bit| if bits.contains(&bit) { '1' } else { '0' }).collect::<String>();
    for (bits, left) in [(&[][..], 0), (&[53], 1), (&[52, 53], 2), (&[52], 2)] {
        let mut ethtool = sample();
        ethtool.leave_to_virtio(&features(bits));
        assert_eq!(ethtool.coalesce.len(), left, "{bits:?}");
        assert_eq!(ethtool.unknown.contains_key("coalesce"), left < 2, "{bits:?}");
    }
    let mut ethtool = sample();
    ethtool.leave_to_virtio("");
    assert!(ethtool.coalesce.is_empty(), "a text that is too short has no bits");
}

#[test]
fn a_table_is_even_if_every_queue_has_its_share() {
    for (table, queues, even) in [
        (&[0, 1, 2, 3][..], 4, true),
        (&[0, 0, 1, 1], 2, true),
        (&[0, 1, 0, 1, 0], 2, true),
        (&[0, 1, 0, 0], 2, false),
        (&[0, 1, 0, 1], 4, false),
        (&[0, 1, 2, 3], 2, false),
        (&[0, 1], 4, true), // longer than the table nothing can be
        (&[], 1, false),
    ] {
        assert_eq!(is_even(table, queues), even, "{table:?} {queues}");
    }
}

#[test]
fn json_is_read_as_it_is_written_and_unknown_keys_are_refused() {
    let ethtool = sample();
    let text = serde_json::to_string(&ethtool).unwrap();
    assert_eq!(serde_json::from_str::<Ethtool>(&text).unwrap(), ethtool);
    assert_eq!(serde_json::from_str::<Ethtool>("{}").unwrap(), Ethtool::default());
    for wrong in [
        "{\"hash\": {\"tcp4\": \"x\"}}",
        "{\"chanels\": {}}",
        "{\"rings\": {\"rx\": {\"now\": 1}}}",
        "{\"coalesce\": {\"rx\": 1}}",
    ] {
        assert!(serde_json::from_str::<Ethtool>(wrong).is_err(), "{wrong}");
    }
}

fn knob() -> impl Strategy<Value = Knob> {
    prop::sample::select(Knob::all().collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn a_table_is_read_back_from_its_own_text(entries in prop::collection::vec(0u32..6, 1..200)) {
        let table = RssTable::of(&entries).unwrap();
        prop_assert_eq!(table.to_string().parse::<RssTable>().unwrap(), table.clone());
        prop_assert_eq!(table.entries(entries.len()).unwrap(), entries);
    }

    #[test]
    fn a_value_is_read_back_from_its_own_text_and_no_text_panics(
        knob in knob(),
        text in "(equal|table|rx|tx|combined|on|off)?( ?[0-9*]{0,6}( tx | combined )?){0,3}|\\PC{0,20}",
    ) {
        if let Ok(value) = knob.parse(&text) {
            prop_assert_eq!(knob.parse(&value.to_string()).unwrap(), value);
        }
        prop_assert_eq!(Knob::from_name(&knob.name()), Some(knob));
    }
}
