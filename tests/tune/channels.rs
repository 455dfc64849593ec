//! Channels of a veth pair as the real kernel has them, and what a veth does not have.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::veth::{NIC, Veth};
use common::{dies, profile_of};

/// The RX and TX channels of now, as ethtool(8) prints them; `None` without that program.
fn by_ethtool(veth: &Veth) -> Option<(u32, u32)> {
    let mut command = Command::new("ethtool");
    command.args(["-l", NIC]);
    if command.output().is_err() {
        println!("SKIPPED: no program ethtool to compare with");
        return None;
    }
    let text = veth.output(&mut command).expect(0).stdout;
    let now = text.split("Current hardware settings:").nth(1).unwrap();
    let number = |kind: &str| {
        let line = now.lines().find(|line| line.starts_with(kind)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    Some((number("RX:"), number("TX:")))
}

fn queues(veth: &Veth) -> Vec<String> {
    veth.inside(|| common::names(Path::new(&format!("/sys/class/net/{NIC}/queues")), |_| true))
}

#[test]
fn fewer_channels_are_set_planned_on_and_given_back_with_all_that_went_with_them() {
    let Some(veth) = Veth::with_queues(8) else { return };
    let set = |file: &str, mask: &str| {
        veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/queues/{file}"), mask).unwrap());
    };
    // What the queues that go hold is lost with them, unless somebody kept it.
    set("tx-7/xps_cpus", "1");
    set("rx-6/rps_cpus", "1");
    set("rx-5/rps_flow_cnt", "64");
    let before = veth.values();
    let file = profile_of("[channels]\ncount = 4\nrequire = true\n[queues]\nrps = \"queue-cpu\"\n");
    let profile = file.path().to_str().unwrap();

    let plan = veth.tune(&["plan", "--json", profile]).expect(2);
    let channels = |a: &str, b: &str| ("ethtool/nic0/channels".to_owned(), a.to_owned(), b.to_owned());
    assert_eq!(plan.changes()[0], channels("rx 8 tx 8", "rx 4 tx 4"));
    assert!(plan.changes().iter().all(|(path, ..)| !path.contains("x-4/")), "queues that will be gone");
    let note = plan.json()["notes"][0].as_str().unwrap().to_owned();
    assert!(note.contains("discovered and planned again"), "{note}");
    assert_eq!(veth.values(), before, "a plan writes nothing");

    let applied = veth.tune(&["apply", "--json", profile]).expect(0);
    assert_eq!(applied.changes()[0], channels("rx 8 tx 8", "rx 4 tx 4"));
    assert_eq!(queues(&veth), ["rx-0", "rx-1", "rx-2", "rx-3", "tx-0", "tx-1", "tx-2", "tx-3"]);
    if let Some(found) = by_ethtool(&veth) {
        assert_eq!(found, (4, 4));
    }
    assert!(veth.tune(&["apply", profile]).expect(0).stdout.contains("nothing to do"));

    veth.tune(&["restore"]).expect(0);
    if let Some(found) = by_ethtool(&veth) {
        assert_eq!(found, (8, 8));
    }
    assert_eq!(veth.values(), before);
}

#[test]
fn a_failure_after_the_channels_gives_them_back() {
    let Some(veth) = Veth::with_queues(4) else { return };
    veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/queues/rx-3/rps_cpus"), "1").unwrap());
    let before = veth.values();
    let file = profile_of("[channels]\ncount = 2\n[sysctl]\n\"net.ipv4.tcp_migrate_req\" = { exact = 7 }\n");
    let result = veth.tune(&["apply", file.path().to_str().unwrap()]);
    let message = result.refusal();
    assert!(message.contains("tcp_migrate_req: EINVAL") && message.contains("; undone, "), "{message}");
    assert_eq!(veth.values(), before);
    if let Some(found) = by_ethtool(&veth) {
        assert_eq!(found, (4, 4));
    }
    assert!(veth.tune(&["restore"]).expect(0).stdout.contains("nothing to restore"));
}

/// Somebody else changed the channels by ethtool(8): that is what is there, and what a restore goes back to.
#[test]
fn channels_that_another_program_set_are_seen() {
    let Some(veth) = Veth::with_queues(6) else { return };
    if by_ethtool(&veth).is_none() {
        return;
    }
    veth.output(Command::new("ethtool").args(["-L", NIC, "rx", "3", "tx", "2"])).expect(0);
    let file = profile_of("[channels]\ncount = 6\n");
    let profile = file.path().to_str().unwrap();
    let plan = veth.tune(&["plan", "--json", profile]).expect(2);
    assert_eq!(
        plan.changes()[0],
        ("ethtool/nic0/channels".to_owned(), "rx 3 tx 2".to_owned(), "rx 6 tx 6".to_owned())
    );
    veth.tune(&["apply", profile]).expect(0);
    assert_eq!(by_ethtool(&veth), Some((6, 6)));
    veth.tune(&["restore"]).expect(0);
    assert_eq!(by_ethtool(&veth), Some((3, 2)));
}

/// The first file is written when the channels are set already.
#[test]
fn a_kill_after_the_channels_leaves_a_journal_that_gives_everything_back() {
    let Some(veth) = Veth::with_queues(8) else { return };
    veth.inside(|| {
        for (file, value) in [("rx-7/rps_cpus", "1"), ("tx-6/xps_cpus", "2"), ("rx-1/rps_flow_cnt", "32")] {
            fs::write(format!("/sys/class/net/{NIC}/queues/{file}"), value).unwrap();
        }
    });
    let before = veth.values();
    let state = tempfile::tempdir().unwrap();
    let text = "[channels]\ncount = 3\n[queues]\nrps = \"queue-cpu\"\n";
    let state_dir = state.path().to_str().unwrap();
    for number in [0, 2, 4] {
        assert!(veth.inside(|| dies("/", state.path(), text, NIC, number)), "dies at {number}");
        assert_eq!(queues(&veth).len(), 6);
        // The same apply again goes on from there, and the values of before are still those of the first.
        if number == 4 {
            let file = profile_of(text);
            veth.tune(&["apply", "--state-dir", state_dir, file.path().to_str().unwrap()]).expect(0);
        }
        veth.tune(&["restore", "--state-dir", state_dir]).expect(0);
        assert_eq!(veth.values(), before, "killed at {number}");
        assert_eq!(queues(&veth).len(), 16);
    }
}

#[test]
fn what_a_veth_does_not_have_is_skipped_or_refused_where_it_is_required() {
    let Some(veth) = Veth::with_queues(2) else { return };
    let wishes =
        "[rings]\nrx = 512\n[coalesce]\nrx_usecs = 8\n[rss]\ntcp4 = \"sd\"\n[features]\nntuple = \"on\"\n";
    let file = profile_of(wishes);
    let plan = veth.tune(&["plan", "--json", file.path().to_str().unwrap()]).expect(2).json();
    let skipped: Vec<&str> =
        plan["skipped"].as_array().unwrap().iter().map(|one| one["wish"].as_str().unwrap()).collect();
    let expected = ["rings.rx", "rss.table", "rss.tcp4", "coalesce.rx_usecs", "features.ntuple = \"on\""];
    assert_eq!(skipped, expected.map(|key| format!("{key} of nic0")));
    for section in [
        "[channels]\ncount = 3",
        "[rings]\nrx = 1",
        "[rss]",
        "[rss]\ntable = \"keep\"\nudp6 = \"sd\"",
        "[features]\nntuple = \"on\"",
    ] {
        let file = profile_of(&format!("{section}\nrequire = true\n"));
        let run = veth.tune(&["plan", file.path().to_str().unwrap()]);
        assert!(run.refusal().contains("; the profile requires it"), "{section}");
    }
}
