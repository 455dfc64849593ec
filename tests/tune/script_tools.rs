//! `script` where ethtool has more than a veth does: a made-up one that does what ethtool and the kernel do
//! with channels, rings, RSS, coalescing and features.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::script::{file_of, has, sh, shells, undo_file};
use common::{Run, copy_of, run};
use serde_json::{Value, json};

/// As ethtool 6.1, but for the fields that it does not know, of an interface whose settings are the files of
/// its directory.
const ETHTOOL: &str = r#"#!/bin/sh
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd "$(dirname "$0")/../state"
flag=$1
interface=$2
shift 2
case $flag in
    -[A-Z])
        echo "$flag $interface $*" >>log
        if [ -e "refuse$flag" ]; then
            cat "refuse$flag" >&2
            # Of what it does with -N it says only in words that it failed.
            [ "$flag" = -N ] && exit 0
            exit 75
        fi
        ;;
esac
hold() {
    while [ $# -gt 0 ]; do
        echo "$2" >"$1"
        shift 2
    done
}
fill() { awk -v queues="$1" 'BEGIN { for (i = 0; i < 512; i++) printf "%d ", i % queues; print "" }' >table; }
case $flag in
    -l)
        printf 'Channel parameters for %s:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\n' "$interface"
        printf 'Other:\t\t1\nCombined:\t96\nCurrent hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\n'
        printf 'Other:\t\t1\nCombined:\t%s\n' "$(cat combined)"
        ;;
    -L)
        # ethtool_check_max_channel()
        most=$(tr ' ' '\n' <table | sort -n | tail -n 1)
        if [ -e table-is-set ] && [ "$most" -ge "$2" ]; then
            echo "netlink error: requested channel counts are too low for existing" \
                "indirection table settings" >&2
            echo "netlink error: Invalid argument" >&2
            exit 1
        fi
        hold "$@"
        [ -e table-is-set ] || fill "$2"
        ;;
    -g)
        printf 'Ring parameters for %s:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\n' "$interface"
        printf 'TX:\t\t4096\nCurrent hardware settings:\nRX:\t\t%s\nRX Mini:\tn/a\n' "$(cat rx)"
        printf 'RX Jumbo:\tn/a\nTX:\t\t%s\n' "$(cat tx)"
        ;;
    -G)
        hold "$@"
        [ "$(cat rx)" != 1000 ] || cat rx-of-1000 >rx
        ;;
    -x)
        echo "RX flow hash indirection table for $interface with 48 RX ring(s):"
        awk '{
            for (i = 1; i <= NF; i++) {
                if (i % 8 == 1) printf "%s%5d: ", (i > 1 ? "\n" : ""), i - 1
                printf " %5d", $i
            }
            print ""
        }' table
        printf 'RSS hash key:\n6d:5a:56:da\nRSS hash function:\n    toeplitz: on\n'
        ;;
    -X)
        touch table-is-set
        case $1 in
            default) rm table-is-set; fill "$(cat combined)" ;;
            equal) fill "$2" ;;
            *) echo "$@" | awk '{ for (i = 2; i <= NF; i++) while ($i-- > 0) printf "%d ", i - 2 }' >table ;;
        esac
        ;;
    -n)
        case $(cat "$2") in
            *r*) echo "TCP over IPV4 flows - All matching flows discarded on RX"; exit 0 ;;
        esac
        echo "TCP over IPV4 flows use these fields for computing Hash flow key:"
        [ -s "$2" ] || printf None
        fold -w 1 "$2" | sed 's/m/L2DA/; s/^v/VLAN tag/; s/^t/L3 proto/; s/^s/IP SA/; s/^d/IP DA/
            s/^f/L4 bytes 0 \& 1 [TCP\/UDP src port]/; s/^n/L4 bytes 2 \& 3 [TCP\/UDP dst port]/
            s/^e/GTP TEID/; s/^l/IPv6 Flow Label/'
        echo
        ;;
    -N) printf '%s' "$3" >"$2" ;;
    -c)
        printf 'Coalesce parameters for %s:\nAdaptive RX: %s  TX: n/a\n' "$interface" "$(cat adaptive-rx)"
        printf 'rx-usecs: %s\nrx-usecs-irq: 7\n' "$(cat rx-usecs)"
        ;;
    -k) printf 'Features for %s:\nrx-checksumming: on\nntuple-filters: %s\n' "$interface" "$(cat ntuple)" ;;
    *) hold "$@" ;;
esac
"#;

/// An ice host, of which `channels` are combined, with that ethtool.
fn ice(channels: u32) -> tempfile::TempDir {
    let tree = copy_of("i40e-48cpu");
    let device = tree.path().join("sys/devices/pci0000:ae/0000:ae:00.0/0000:af:00.0");
    fs::remove_file(device.join("driver")).unwrap();
    std::os::unix::fs::symlink("../../../../bus/pci/drivers/ice", device.join("driver")).unwrap();
    let table: Vec<u32> = (0..512).map(|entry| entry / 256).collect();
    let ethtool = json!({
        "channels": { "other": { "now": 1, "max": 1 }, "combined": { "now": channels, "max": 96 } },
        "rings": { "rx": { "now": 512, "max": 4096 }, "tx": { "now": 512, "max": 4096 } },
        "rss": { "table": table },
        "hash": { "tcp4": "sdfn" },
        "coalesce": { "adaptive_rx": 1, "rx_usecs": 50 },
        "features": { "rx-ntuple-filter": { "on": false, "fixed": false } }
    });
    fs::write(tree.path().join("corelocal/ethtool/eth0.json"), ethtool.to_string()).unwrap();
    let interrupts = tree.path().join("proc/interrupts");
    let text = fs::read_to_string(&interrupts).unwrap();
    fs::write(&interrupts, text.replace(" i40e-eth0-", " ice-eth0-")).unwrap();
    let (bin, state) = (tree.path().join("bin"), tree.path().join("state"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&state).unwrap();
    let program = file_of(&bin, "ethtool", ETHTOOL);
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    let table: Vec<String> = table.iter().map(ToString::to_string).collect();
    for (name, text) in [
        ("combined", channels.to_string()),
        ("rx", "512".into()),
        ("tx", "512".into()),
        ("table", table.join(" ")),
        ("table-is-set", String::new()),
        ("tcp4", "sdfn".into()),
        ("adaptive-rx", "on".into()),
        ("rx-usecs", "50".into()),
        ("ntuple", "off".into()),
        ("log", String::new()),
    ] {
        file_of(&state, name, &text);
    }
    tree
}

const ALL: &str = "irqbalance = \"coexist\"\n[channels]\n[rings]\nrx = 2048\n\
                   [coalesce]\nadaptive_rx = false\nrx_usecs = 8\n[rss]\n[features]\nntuple = \"on\"\n\
                   [queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n";

/// The script of a profile for a tree, and what it did there, by the last of the shells; what is run again is
/// by the first.
fn run_all(tree: &Path, profile: &str) -> (String, Run) {
    let profile = file_of(tree, "profile.toml", profile);
    let text = run(tree, ["script", profile.to_str().unwrap()]).expect(0).stdout;
    let script = file_of(tree, "script.sh", &text);
    (text, run_by(shells().last().unwrap(), tree, &script))
}

/// What the script, or what undoes it, does there.
fn run_again(tree: &Path, file: &Path) -> Run {
    run_by(shells()[0], tree, file)
}

fn run_by(shell: &[&str], tree: &Path, file: &Path) -> Run {
    sh(shell, &tree.join("script.sh"), file).env("TUNE_ROOT", tree).output().unwrap().into()
}

fn hold(tree: &Path, name: &str, text: &str) {
    file_of(&tree.join("state"), name, text);
}

fn held(tree: &Path, name: &str) -> String {
    fs::read_to_string(tree.join("state").join(name)).unwrap().trim().to_owned()
}

/// Changes what was captured.
fn capture(tree: &Path, change: impl FnOnce(&mut Value)) {
    let file = tree.join("corelocal/ethtool/eth0.json");
    let mut ethtool = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut ethtool);
    fs::write(&file, ethtool.to_string()).unwrap();
}

fn log(tree: &Path) -> Vec<String> {
    let log = tree.join("state/log");
    let lines = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    fs::write(log, "").unwrap();
    lines
}

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

/// Of what is left of a profile that keeps the queues as they are.
const KEEP: &str = "irqbalance = \"coexist\"\n[queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n";

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
    for (table, is_even) in [(even, true), (by_weight, true), (uneven, false), (without_first, false)] {
        let tree = ice(48);
        let text: Vec<String> = table.iter().map(ToString::to_string).collect();
        hold(tree.path(), "table", &text.join(" "));
        capture(tree.path(), |ethtool| ethtool["rss"]["table"] = json!(table));
        let done = run_all(tree.path(), &profile).1.expect(if is_even { 2 } else { 1 });
        let set = ["-L eth0 combined 24", "-X eth0 default", "-L eth0 combined 24"];
        assert_eq!(log(tree.path()), set[..if is_even { 3 } else { 1 }]);
        if is_even {
            run_again(tree.path(), &undo_file(&done)).expect(0);
            assert_eq!(log(tree.path()), ["-L eth0 combined 48"]);
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
