//! `script` where ethtool has more than a veth does, by a made-up ethtool.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::process::Command;

use common::Run;
use common::ethtool::{ALL, KEEP, capture, held, hold, ice, log, run_again, run_all};
use common::script::{has, undo_file};
use serde_json::json;

#[test]
fn each_setting_of_ethtool_is_set_read_back_and_put_back() {
    let tree = ice(47);
    let (text, done) = run_all(tree.path(), ALL);
    let done = done.expect(2);
    assert!(text.contains("tr, ethtool.\n"), "{text}");
    let set = [
        "-L eth0 combined 48",
        "-G eth0 rx 2048 tx 512",
        "-X eth0 equal 48",
        "-C eth0 adaptive-rx off",
        "-C eth0 rx-usecs 8",
        "-K eth0 ntuple on",
    ];
    assert_eq!(log(tree.path()), set);
    assert!(done.stdout.contains("ethtool/eth0/rss: table 0*256 1*256 -> equal 48\n"), "{}", done.stdout);
    assert!(done.stderr.contains("the queues of eth0 were made anew"), "{}", done.stderr);
    assert!(done.stderr.contains("make this script once more"), "{}", done.stderr);

    let again = run_again(tree.path(), &tree.path().join("script.sh"));
    assert_eq!(again.expect(0).stdout, "nothing to do\n");
    assert_eq!(log(tree.path()), [""; 0]);

    run_again(tree.path(), &undo_file(&done)).expect(0);
    let back = [
        "-K eth0 ntuple off",
        "-C eth0 rx-usecs 50",
        "-C eth0 adaptive-rx on",
        "-X eth0 weight 256 256",
        "-G eth0 rx 512 tx 512",
        "-L eth0 combined 47",
    ];
    assert_eq!(log(tree.path()), back);
}

#[test]
fn what_the_driver_does_not_support_is_skipped_unless_it_is_required_and_any_other_refusal_undoes_all() {
    for (refusal, profile, code, said) in [
        (
            "netlink error: Operation not supported",
            ALL.to_owned(),
            2,
            "skipped ethtool/eth0/rings: netlink error",
        ),
        (
            "netlink error: Operation not supported",
            ALL.replace("rx = 2048", "rx = 2048\nrequire = true"),
            1,
            "set ethtool/eth0/rings to \"rx 2048 tx 512\": netlink error: Operation not supported",
        ),
        ("netlink error: Invalid argument", ALL.to_owned(), 1, "undone, every value is as before"),
    ] {
        let tree = ice(47);
        hold(tree.path(), "refuse-G", refusal);
        let done = run_all(tree.path(), &profile).1.expect(code);
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
        assert_eq!(held(tree.path(), "combined"), if code == 1 { "47" } else { "48" });
    }
}

/// The driver has asked for its interrupts anew, and their numbers may have gone to others.
#[test]
fn the_way_back_sets_an_interrupt_only_where_it_has_the_same_handler() {
    let tree = ice(47);
    let done = run_all(tree.path(), ALL).1.expect(2);
    let affinity = |irq: u32| tree.path().join(format!("proc/irq/{irq}/smp_affinity_list"));
    let before = [121, 122, 123].map(|irq| fs::read_to_string(affinity(irq)).unwrap());
    let interrupts = tree.path().join("proc/interrupts");
    let text = fs::read_to_string(&interrupts).unwrap();
    let text = text.replace("ice-eth0-TxRx-0\n", "ice-eth0-TxRx-00\n");
    fs::write(&interrupts, text.replace("ice-eth0-TxRx-1\n", "ice-eth0-TxRx-1, another\n")).unwrap();
    [121, 122, 123].iter().for_each(|irq| fs::write(affinity(*irq), "5\n").unwrap());
    run_again(tree.path(), &undo_file(&done)).expect(0);
    let after = [121, 122, 123].map(|irq| fs::read_to_string(affinity(irq)).unwrap());
    assert_eq!(after, ["5\n", &before[1], &before[2]]);
}

#[test]
fn rings_that_the_driver_rounds_up_are_as_good_as_asked_for_and_no_others() {
    let profile = format!("{KEEP}[rings]\nrx = 1000\n");
    for (made, code, said) in [
        (1024, 2, "rx 512 tx 512 -> rx 1024 tx 512, to which the driver rounds rx 1000 tx 512\n"),
        (1008, 2, "rx 512 tx 512 -> rx 1008 tx 512, to which the driver rounds rx 1000 tx 512\n"),
        (1000, 2, "rx 512 tx 512 -> rx 1000 tx 512\n"),
        (992, 1, "reads back \"rx 992 tx 512 \"\n"),
        (2048, 1, "reads back \"rx 2048 tx 512 \"\n"),
    ] {
        let tree = ice(48);
        hold(tree.path(), "rx-of-1000", &made.to_string());
        let done = run_all(tree.path(), &profile).1.expect(code);
        assert!(done.stdout.contains(said) || done.stderr.contains(said), "{}{}", done.stdout, done.stderr);
        if code == 2 {
            assert_eq!(held(tree.path(), "rx"), made.to_string());
            let again = run_again(tree.path(), &tree.path().join("script.sh"));
            assert_eq!(again.expect(0).stdout, "nothing to do\n");
            run_again(tree.path(), &undo_file(&done)).expect(0);
        }
        assert_eq!(held(tree.path(), "rx"), "512");
    }
}

#[test]
fn fields_that_the_driver_does_not_hash_are_skipped_unless_they_are_required() {
    let profile = format!("{KEEP}[coalesce]\nrx_usecs = 8\n[rss]\ntable = \"keep\"\ntcp4 = \"sd\"\n");
    for (refusal, require, code) in [
        ("Operation not supported", false, 0),
        ("Invalid argument", false, 0),
        ("Invalid argument", true, 1),
        ("Operation not permitted", false, 1),
    ] {
        let tree = ice(48);
        hold(tree.path(), "refuse-N", &format!("Cannot change RX network flow hashing options: {refusal}\n"));
        let profile = if require { format!("{profile}require = true\n") } else { profile.clone() };
        let done = run_all(tree.path(), &profile).1.expect(code);
        let said = if code == 0 {
            "skipped ethtool/eth0/rss/tcp4: "
        } else {
            "set ethtool/eth0/rss/tcp4 to \"sd\": "
        };
        let said = format!("{said}Cannot change RX network flow hashing options: {refusal}\n");
        assert!(done.stderr.contains(&said), "{said}{}", done.stderr);
        assert_eq!(held(tree.path(), "rx-usecs"), if code == 0 { "8" } else { "50" });
    }
}

/// As ethtool prints them, and back by what undoes it.
#[test]
fn every_field_of_a_hash_is_read_and_put_back() {
    let profile = format!("{KEEP}[rss]\ntable = \"keep\"\ntcp4 = \"mvtsdfnel\"\n");
    for (before, back) in
        [("sdfn", "sdfn"), ("sde", "sde"), ("sdfnl", "sdfnl"), ("none", ""), ("r", "r"), ("sdr", "r")]
    {
        let tree = ice(48);
        capture(tree.path(), |ethtool| ethtool["hash"]["tcp4"] = json!(before));
        hold(tree.path(), "tcp4", before.strip_prefix("none").unwrap_or(before));
        let done = run_all(tree.path(), &profile).1.expect(0);
        assert!(
            done.stdout.contains(&format!("ethtool/eth0/rss/tcp4: {before} -> mvtsdfnel\n")),
            "{}",
            done.stdout
        );
        assert_eq!(held(tree.path(), "tcp4"), "mvtsdfnel");
        run_again(tree.path(), &undo_file(&done)).expect(0);
        assert_eq!(held(tree.path(), "tcp4"), back);
    }
}

/// The kernel refuses fewer channels than a table names that somebody has set.
#[test]
fn a_table_over_all_channels_is_given_back_where_those_become_fewer_and_any_other_stays() {
    let profile = format!("{KEEP}[channels]\ncount = 24\n");
    let even: Vec<u32> = (0..512).map(|entry| entry % 48).collect();
    let by_weight: Vec<u32> = (0..512).map(|entry| entry * 48 / 512).collect();
    let without_first: Vec<u32> = (0..512).map(|entry| entry % 47 + 1).collect();
    let uneven: Vec<u32> = (0..512).map(|entry| if entry < 500 { entry % 48 } else { 0 }).collect();
    // ethtool has no arguments to make it again.
    let backwards: Vec<u32> = by_weight.iter().rev().copied().collect();
    let made_again = format!("-X eth0 weight {}", ["11 11 10"; 16].join(" "));
    for (table, way_back) in [
        (even, Some(vec!["-L eth0 combined 48"])),
        (by_weight, Some(vec!["-L eth0 combined 48", &made_again])),
        (uneven, None),
        (without_first, None),
        (backwards, None),
    ] {
        let tree = ice(48);
        let text: Vec<String> = table.iter().map(ToString::to_string).collect();
        hold(tree.path(), "table", &text.join(" "));
        capture(tree.path(), |ethtool| ethtool["rss"]["table"] = json!(table));
        let done = run_all(tree.path(), &profile).1.expect(if way_back.is_some() { 2 } else { 1 });
        let set = ["-L eth0 combined 24", "-X eth0 default", "-L eth0 combined 24"];
        assert_eq!(log(tree.path()), set[..if way_back.is_some() { 3 } else { 1 }]);
        if let Some(way_back) = way_back {
            run_again(tree.path(), &undo_file(&done)).expect(0);
            assert_eq!(log(tree.path()), way_back);
            assert_eq!(held(tree.path(), "table"), text.join(" "));
        } else {
            let said = "Invalid argument; \"ethtool -X eth0 default\" takes that table back\n";
            assert!(done.stderr.contains(said), "{}", done.stderr);
            assert!(done.stderr.contains("nothing was written\n"), "{}", done.stderr);
        }
        assert_eq!(held(tree.path(), "combined"), "48");
    }
}

/// The machine's own interface is not to be changed by a trial.
#[test]
fn below_another_root_the_tools_are_those_of_that_root() {
    let tree = ice(47);
    fs::remove_file(tree.path().join("bin/ethtool")).unwrap();
    let refused = run_all(tree.path(), ALL).1.expect(1);
    assert!(refused.stderr.contains("/bin/ethtool; nothing was written"), "{}", refused.stderr);
}

#[test]
fn a_table_that_ethtool_could_not_put_back_is_left_and_said() {
    let tree = ice(48);
    capture(tree.path(), |ethtool| ethtool["rss"]["table"][511] = json!(0));
    let (text, _) = run_all(tree.path(), ALL);
    assert!(!text.contains("'ethtool/eth0/rss'"), "{text}");
    assert!(
        text.contains("# Skipped: ethtool/eth0/rss: ") && text.contains("\"ethtool -X eth0 equal 48\""),
        "{text}"
    );
}

#[test]
fn shellcheck_has_nothing_to_say() {
    if !has("shellcheck") {
        return;
    }
    for profile in [ALL, "[queues]\nirq = \"keep\"\nrps = \"off\"\n"] {
        let tree = ice(47);
        let (_, done) = run_all(tree.path(), profile);
        for file in [tree.path().join("script.sh"), undo_file(&done)] {
            let checked = Command::new("shellcheck").args(["--shell", "sh"]).arg(file).output().unwrap();
            assert_eq!(Run::from(checked).expect(0).stdout, "");
        }
    }
}
