//! A made-up ethtool that does what ethtool and the kernel do with channels, rings, RSS, coalescing and
//! features, and scripts that are run with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::script::{file_of, sh, shells};
use super::{Run, copy_of, run};

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
        if [ -s "busy$flag" ]; then
            sed -i 1d "busy$flag"
            echo "netlink error: Device or resource busy" >&2
            exit 75
        fi
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
pub(crate) fn ice(channels: u32) -> tempfile::TempDir {
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

/// A profile for all that ethtool sets, and nothing else.
pub(crate) const ALL: &str = "irqbalance = \"coexist\"\n[channels]\n[rings]\nrx = 2048\n\
                   [coalesce]\nadaptive_rx = false\nrx_usecs = 8\n[rss]\n[features]\nntuple = \"on\"\n\
                   [queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n";

/// The script of a profile for a tree, and what it did there, by the last of the shells; what is run again is
/// by the first.
pub(crate) fn run_all(tree: &Path, profile: &str) -> (String, Run) {
    let profile = file_of(tree, "profile.toml", profile);
    let text = run(tree, ["script", profile.to_str().unwrap()]).expect(0).stdout;
    let script = file_of(tree, "script.sh", &text);
    (text, run_by(shells().last().unwrap(), tree, &script))
}

/// What the script, or what undoes it, does there.
pub(crate) fn run_again(tree: &Path, file: &Path) -> Run {
    run_by(shells()[0], tree, file)
}

pub(crate) fn run_by(shell: &[&str], tree: &Path, file: &Path) -> Run {
    sh(shell, &tree.join("script.sh"), file).env("TUNE_ROOT", tree).output().unwrap().into()
}

pub(crate) fn hold(tree: &Path, name: &str, text: &str) {
    file_of(&tree.join("state"), name, text);
}

pub(crate) fn held(tree: &Path, name: &str) -> String {
    fs::read_to_string(tree.join("state").join(name)).unwrap().trim().to_owned()
}

/// Changes what was captured.
pub(crate) fn capture(tree: &Path, change: impl FnOnce(&mut Value)) {
    let file = tree.join("corelocal/ethtool/eth0.json");
    let mut ethtool = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut ethtool);
    fs::write(&file, ethtool.to_string()).unwrap();
}

pub(crate) fn log(tree: &Path) -> Vec<String> {
    let log = tree.join("state/log");
    let lines = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    fs::write(log, "").unwrap();
    lines
}

/// Of what is left of a profile that keeps the queues as they are.
pub(crate) const KEEP: &str =
    "irqbalance = \"coexist\"\n[queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n";
