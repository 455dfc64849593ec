//! Wishes on drivers that have this and that.

use super::super::plan as plan_all;
use super::*;
use crate::host::ethtool::{CoalesceField, Feature, FlowType, Rings, Rss};
use crate::host::fixture::nic_host;
use crate::profile::Profile;

fn limited(now: u32, max: u32) -> Option<Limited> {
    Some(Limited { now, max })
}

/// `eth0` of this driver with 8 CPUs and 8 combined channels of 32.
fn host(driver: &str) -> Host {
    let mut host = nic_host(8, 8);
    host.nics[0].nic.device.as_mut().unwrap().driver = Some(driver.to_owned());
    let table = (0..64).map(|entry| entry / 8).collect();
    host.nics[0].ethtool = Ethtool {
        channels: Some(Channels { combined: limited(8, 32), ..Channels::default() }),
        rings: Some(Rings { rx: limited(512, 2048), tx: None }),
        rss: Some(Rss { table, key: None, function: None, input_xfrm: None }),
        hash: [(FlowType::Udp4, "sd".parse().unwrap())].into(),
        coalesce: [(CoalesceField::RxUsecs, 3)].into(),
        features: [(NTUPLE.to_owned(), Feature { on: false, fixed: false })].into(),
        ..Ethtool::default()
    };
    host
}

fn planned(host: &Host, profile: &str) -> Result<Desired, String> {
    let profile = format!("irqbalance = \"coexist\"\n{profile}");
    plan_all(&Profile::parse(&profile, "p").unwrap(), host).map_err(|error| error.to_string())
}

/// What a knob shall hold, and why.
fn wanted(desired: &Desired, knob: Knob) -> Option<(String, String)> {
    let setting = Setting::Ethtool("eth0".parse().unwrap(), knob);
    Some((desired.settings.get(&setting)?.to_string(), desired.reasons[&setting].clone()))
}

#[test]
fn channels_are_laid_as_the_driver_has_them() {
    let none = None;
    for (rx, tx, combined, asked, expected) in [
        (none, none, limited(8, 32), 4, "combined 4"),
        (none, none, limited(8, 32), 99, "combined 32"),
        (limited(8, 16), limited(8, 32), none, 24, "rx 16 tx 24"),
        (limited(2, 8), limited(2, 8), limited(0, 8), 4, "rx 0 tx 0 combined 4"),
        (limited(2, 8), limited(2, 8), limited(0, 0), 4, "rx 4 tx 4 combined 0"),
    ] {
        let mut host = host("bnxt_en");
        host.nics[0].ethtool.channels = Some(Channels { rx, tx, combined, other: limited(1, 1) });
        let desired = planned(&host, &format!("[channels]\ncount = {asked}")).unwrap();
        assert_eq!(wanted(&desired, Knob::Channels).unwrap().0, expected, "{asked}");
    }
}

#[test]
fn a_queue_for_each_worker_and_why_not_more() {
    let desired = planned(&host("ixgbevf"), "cpus = \"0-5\"\n[channels]").unwrap();
    let reason = "a queue for each CPU that gets one: 6; ixgbevf spreads RSS over 4 queues at most";
    assert_eq!(wanted(&desired, Knob::Channels), Some(("combined 4".into(), reason.into())));
    assert_eq!(desired.skipped, [], "fewer than workers is no wish that was not met");
    let refused = planned(&host("ixgbevf"), "cpus = \"0-5\"\n[channels]\nrequire = true").unwrap_err();
    assert!(refused.starts_with("channels.count = 6 of eth0: ixgbevf spreads RSS over 4"), "{refused}");
}

/// The 82599 and X540 have 128 entries and 16 queues, the X550 512 and 63.
#[test]
fn the_rss_limit_of_ixgbe_is_that_of_its_chip() {
    for (entries, expected) in [(128, "combined 16"), (512, "combined 32")] {
        let mut host = host("ixgbe");
        host.nics[0].ethtool.rss.as_mut().unwrap().table = (0..entries).map(|entry| entry % 8).collect();
        let desired = planned(&host, "[channels]\ncount = 32").unwrap();
        assert_eq!(wanted(&desired, Knob::Channels).unwrap().0, expected, "{entries}");
    }
}

#[test]
fn a_delay_of_at_most_is_lowered_and_never_raised() {
    for (driver, found, expected) in
        [("ice", 3, "3"), ("ice", 50, "10"), ("ixgbe", 1, "10"), ("ixgbe", 0, "0"), ("igb", 3, "10")]
    {
        let mut host = host(driver);
        host.nics[0].ethtool.coalesce.insert(CoalesceField::RxUsecs, found);
        let desired = planned(&host, "[coalesce]\nrx_usecs = { at_most = 10 }").unwrap();
        let (value, reason) = wanted(&desired, Knob::Coalesce(CoalesceField::RxUsecs)).unwrap();
        assert_eq!(
            (value.as_str(), reason.as_str()),
            (expected, "coalesce.rx_usecs = at most 10"),
            "{driver} {found}"
        );
    }
}

#[test]
fn the_queues_are_planned_as_they_will_be_and_no_interrupt_is_promised() {
    let desired = planned(&host("ice"), "[channels]\ncount = 4").unwrap();
    let paths: Vec<String> = desired.settings.keys().map(Setting::path).collect();
    assert_eq!(paths.iter().filter(|path| path.ends_with("xps_cpus")).count(), 4, "{paths:?}");
    assert_eq!(paths.iter().filter(|path| path.ends_with("smp_affinity_list")).count(), 4, "{paths:?}");
    assert!(desired.notes[0].contains("discovered and planned again"), "{:?}", desired.notes);
    let more = planned(&host("ice"), "[channels]\ncount = 16").unwrap();
    let paths: Vec<String> = more.settings.keys().map(Setting::path).collect();
    assert!(!paths.iter().any(|path| path.contains("tx-8/")), "{paths:?}");
    assert_eq!(planned(&host("ice"), "[channels]\ncount = 8").unwrap().notes, [""; 0]);
}

#[test]
fn each_interface_gets_channels_as_its_driver_has_them() {
    let mut host = host("ice");
    let mut second = host.nics[0].clone();
    second.nic.name = "eth1".parse().unwrap();
    second.ethtool.channels = Some(Channels { combined: limited(8, 8), ..Channels::default() });
    host.nics.push(second);
    let desired = planned(&host, "[channels]\ncount = 16").unwrap();
    let channels = |name: &str| {
        let setting = Setting::Ethtool(name.parse().unwrap(), Knob::Channels);
        desired.settings[&setting].to_string()
    };
    assert_eq!(["eth0", "eth1"].map(channels), ["combined 16", "combined 8"]);
    assert!(desired.notes[0].starts_with("ethtool/eth0/channels goes from"), "{:?}", desired.notes);
    assert!(!desired.notes.iter().any(|note| note.contains("eth1/channels")), "{:?}", desired.notes);
}

/// Each interface gets a queue for every CPU that it is laid on, and not its part of them: any of them may
/// carry all the connections of a worker.
#[test]
fn several_interfaces_get_a_queue_for_each_cpu_of_their_placement() {
    let mut host = host("ice");
    for place in &mut host.topology.cpus {
        place.node = Some(place.cpu / 4);
    }
    host.topology.distances = [(0, vec![10, 20]), (1, vec![20, 10])].into();
    let mut second = host.nics[0].clone();
    second.nic.name = "eth1".parse().unwrap();
    (host.nics[0].nic.numa_node, second.nic.numa_node) = (Some(0), Some(1));
    host.nics.push(second);
    for (placement, workers, expected) in [
        ("\"one-per-core\"", "0-6", ["combined 7", "combined 7"]),
        ("\"spread\"", "0-6", ["combined 7", "combined 7"]),
        ("\"numa-local\"", "0-6", ["combined 4", "combined 3"]),
        ("{ pack = \"0-1\" }", "0-7", ["combined 2", "combined 2"]),
    ] {
        let profile = format!("cpus = \"{workers}\"\n[channels]\n[queues]\nplacement = {placement}\n");
        let desired = planned(&host, &profile).unwrap();
        let channels = |name: &str| {
            let setting = Setting::Ethtool(name.parse().unwrap(), Knob::Channels);
            desired.settings[&setting].to_string()
        };
        assert_eq!(["eth0", "eth1"].map(channels), expected, "{placement}");
    }
}

#[test]
fn rings_that_the_driver_has_rounded_are_as_wanted_and_it_is_said() {
    const KNOWN: Option<&str> = Some("the driver rounds it to ");
    const NOT_KNOWN: Option<&str> = Some("whether this one does is not known");
    for (driver, asked, found, wanted_text, note) in [
        ("mlx5_core", 1000, 1024, "rx 1024", KNOWN),
        ("mlx5_core", 1024, 1024, "rx 1024", None),
        ("mlx5_core", 1001, 1008, "rx 1001", None),
        ("igb", 1001, 1008, "rx 1008", KNOWN),
        ("igb", 1000, 1024, "rx 1000", None),
        ("ice", 1000, 1024, "rx 1024", KNOWN),
        ("bnxt_en", 1000, 1024, "rx 1000", None),
        ("virtio_net", 1000, 1024, "rx 1024", NOT_KNOWN),
        ("virtio_net", 1024, 1024, "rx 1024", None),
        ("mlx5_core", 1000, 512, "rx 1000", None),
        ("mlx5_core", 500, 1024, "rx 500", None),
        ("mlx5_core", 5000, 2048, "rx 2048", None),
    ] {
        let mut host = host(driver);
        host.nics[0].ethtool.rings = Some(Rings { rx: limited(found, 2048), tx: None });
        let desired = planned(&host, &format!("[rings]\nrx = {asked}")).unwrap();
        assert_eq!(wanted(&desired, Knob::Rings).unwrap().0, wanted_text, "{driver} {asked} {found}");
        let start = format!("rings.rx = {asked} of eth0: ");
        let said = desired.notes.iter().find(|note| note.starts_with(&start));
        assert_eq!(said.is_some(), note.is_some(), "{driver} {asked} {found}: {:?}", desired.notes);
        assert!(said.is_none_or(|said| said.contains(note.unwrap())), "{said:?}");
    }
}

#[test]
fn the_table_is_made_equal_only_where_it_is_not() {
    let blocks: Vec<u32> = (0..64).map(|entry| entry / 8).collect();
    let custom: Vec<u32> = (0..64).map(|entry| u32::from(entry == 0)).collect();
    let short = vec![0, 1, 2, 3];
    for (table, count, expected, noted) in [
        (&blocks, 8, Some("table 0*8 1*8 2*8 3*8 4*8 5*8 6*8 7*8"), false),
        (&blocks, 4, None, true),
        (&custom, 8, Some("equal 8"), false),
        (&custom, 4, Some("equal 4"), false),
        (&custom, 16, Some("equal 16"), false),
        (&short, 8, Some("equal 4"), false),
    ] {
        let mut host = host("ice");
        host.nics[0].ethtool.rss.as_mut().unwrap().table.clone_from(table);
        let desired = planned(&host, &format!("[rss]\n[channels]\ncount = {count}")).unwrap();
        let found = wanted(&desired, Knob::Rss).map(|(value, _)| value);
        assert_eq!(found.as_deref(), expected, "{table:?} {count}");
        assert_eq!(desired.notes.iter().any(|note| note.starts_with("rss.table")), noted, "{count}");
    }
}

#[test]
fn hash_fields_are_set_where_the_driver_says_what_they_are() {
    let desired = planned(&host("ice"), "[rss]\ntable = \"keep\"\nudp4 = \"sdfn\"").unwrap();
    let reason = "rss.udp4 = \"sdfn\"".to_owned();
    assert_eq!(wanted(&desired, Knob::Hash(FlowType::Udp4)), Some(("sdfn".into(), reason)));
    assert_eq!((wanted(&desired, Knob::Rss), desired.skipped.len()), (None, 0), "the table is kept");
}

#[test]
fn each_wish_that_cannot_be_had_is_skipped_or_refused() {
    let ixgbe = host("ixgbe");
    for (section, wish) in [
        ("[rings]\nrx = 4096", "rings.rx = 4096 of eth0"),
        ("[rings]\ntx = 512", "rings.tx of eth0"),
        ("[coalesce]\ntx_usecs = 8", "coalesce.tx_usecs of eth0"),
        ("[rss]\ntcp6 = \"sdfn\"", "rss.tcp6 of eth0"),
        ("[features]\nntuple = \"on\"", "features.ntuple = \"on\" of eth0"),
    ] {
        let desired = planned(&ixgbe, section).unwrap();
        let wishes: Vec<&str> = desired.skipped.iter().map(|skipped| skipped.wish.as_str()).collect();
        assert_eq!(wishes, [wish]);
        let refused = planned(&ixgbe, &format!("{section}\nrequire = true")).unwrap_err();
        assert!(refused.starts_with(&format!("{wish}: ")), "{refused}");
    }
    let desired = planned(&ixgbe, "[rings]\nrx = 4096\n[coalesce]\nrx_usecs = 8").unwrap();
    assert_eq!(wanted(&desired, Knob::Rings).unwrap().0, "rx 2048", "as many as there can be");
    assert_eq!(wanted(&desired, Knob::Coalesce(CoalesceField::RxUsecs)).unwrap().0, "8");
}

#[test]
fn ntuple_is_switched_where_accelerated_rfs_uses_it() {
    for (driver, on) in [("mlx5_core", true), ("ice", true), ("ena", false), ("i40e", false), ("igb", false)]
    {
        let desired = planned(&host(driver), "[features]\nntuple = \"on\"").unwrap();
        assert_eq!(wanted(&desired, Knob::Ntuple).is_some(), on, "{driver}");
        assert_eq!(desired.skipped.is_empty(), on, "{driver}");
    }
    let mut fixed = host("ice");
    fixed.nics[0].ethtool.features.insert(NTUPLE.to_owned(), Feature { on: true, fixed: true });
    let desired = planned(&fixed, "[features]\nntuple = \"on\"").unwrap();
    assert_eq!((wanted(&desired, Knob::Ntuple).unwrap().0.as_str(), desired.skipped.len()), ("on", 0));
    assert_eq!(planned(&fixed, "[features]\nntuple = \"off\"").unwrap().skipped.len(), 1);
}
