//! `script` where what it sets is no file: channels, rings, RSS, coalescing and features by ethtool, the threads of NAPI by
//! taskset, irqbalance on its socket. On the real kernel two captures say that it does what `apply` does; what a veth does
//! not have is set on a made-up ethtool.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::veth::{NIC, Veth, of_nic};
use common::{Run, copy_of, run, tune};
use serde_json::json;

/// True if the program is there; otherwise says why the test is skipped.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED: needs {program}");
    }
    there
}

fn file_of(place: &Path, name: &str, text: &str) -> PathBuf {
    let file = place.join(name);
    fs::write(&file, text).unwrap();
    file
}

/// The script of a profile for the interface of a pair.
fn script_of(veth: &Veth, place: &Path, profile: &Path) -> PathBuf {
    let text = veth.output(&mut of_nic(&["script", profile.to_str().unwrap()])).expect(0).stdout;
    file_of(place, "script.sh", &text)
}

fn capture(veth: &Veth, place: &Path, name: &str) -> PathBuf {
    let file = place.join(name);
    veth.output(tune().arg("capture").arg(&file).arg(NIC)).expect(0);
    file
}

/// What differs between two captures.
fn difference(a: &Path, b: &Path) -> String {
    Run::from(tune().arg("diff").args([a, b]).output().unwrap()).stdout
}

/// What undoes a run of a script.
fn undo_file(done: &Run) -> String {
    done.stdout.lines().last().unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// Runs `profile` by `apply` and by the script, from the same state; both must leave the same, twice, and take it back.
#[track_caller]
fn assert_same_as_apply(veth: &Veth, profile: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    let profile = file_of(place.path(), "profile.toml", profile);
    let before = capture(veth, place.path(), "before.tar");
    let script = script_of(veth, place.path(), &profile);
    let sh = || veth.output(Command::new("sh").arg(&script));

    veth.tune(&["apply", profile.to_str().unwrap()]).expect(0);
    let applied = capture(veth, place.path(), "applied.tar");
    veth.tune(&["restore"]).expect(0);
    assert_ne!(difference(&before, &applied), "");

    let done = sh().expect(0);
    assert_eq!(done.stderr, "");
    let scripted = capture(veth, place.path(), "scripted.tar");
    assert_eq!(difference(&applied, &scripted), "");
    assert_eq!(veth.tune(&["check", profile.to_str().unwrap()]).expect(0).stdout, "");
    assert_eq!(sh().expect(0).stdout, "nothing to do\n");
    veth.output(Command::new("sh").arg(undo_file(&done))).expect(0);
    let undone = capture(veth, place.path(), "undone.tar");
    assert_eq!(difference(&before, &undone), "");
    done.stdout
}

const QUEUES: &str = "[queues]\nirq = \"keep\"\nrps = \"queue-cpu\"\nrps_flow_cnt = 128\n\
                      [sysctl]\n\"net.ipv4.tcp_migrate_req\" = 1\n";

#[test]
fn more_channels_and_what_is_set_of_their_queues() {
    let Some(veth) = Veth::with_queues(4).filter(|_| has("ethtool")) else { return };
    veth.output(Command::new("ethtool").args(["-L", NIC, "rx", "2", "tx", "2"])).expect(0);
    let done = assert_same_as_apply(&veth, &format!("[channels]\ncount = 4\n{QUEUES}"));
    for line in ["ethtool/nic0/channels: rx 2 tx 2 -> rx 4 tx 4\n", "queues/rx-3/rps_flow_cnt: 0 -> 128\n"] {
        assert!(done.contains(line), "{line}{done}");
    }
}

#[test]
fn fewer_channels_and_back_with_what_their_queues_held() {
    let Some(veth) = Veth::with_queues(4).filter(|_| has("ethtool")) else { return };
    let set = |file: &str, text: &str| {
        veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/queues/{file}"), text).unwrap());
    };
    set("rx-3/rps_flow_cnt", "64");
    set("rx-2/rps_cpus", "1");
    set("tx-3/xps_cpus", "1");
    assert_same_as_apply(&veth, &format!("[channels]\ncount = 2\n{QUEUES}"));
}

#[test]
fn threads_that_poll_by_their_names() {
    let Some(veth) = Veth::with_queues(3).filter(|_| has("ethtool") && has("taskset")) else { return };
    veth.output(Command::new("ethtool").args(["-K", NIC, "gro", "on"])).expect(0);
    veth.inside(|| fs::write(format!("/sys/class/net/{NIC}/threaded"), "1").unwrap());
    let done = assert_same_as_apply(&veth, QUEUES);
    assert!(done.contains("napi_thread/nic0/"), "{done}");
}

/// As ethtool 6.1, of an interface whose settings are the files of its directory.
const ETHTOOL: &str = r#"#!/bin/sh
set -eu
cd "$(dirname "$0")/../state"
flag=$1
interface=$2
shift 2
[ $# -eq 0 ] || echo "$flag $interface $*" >>log
if [ -e "refuse$flag" ] && [ $# -gt 0 ]; then
    cat "refuse$flag" >&2
    exit 75
fi
hold() {
    while [ $# -gt 0 ]; do
        echo "$2" >"$1"
        shift 2
    done
}
case $flag in
    -l)
        printf 'Channel parameters for %s:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t96\n' "$interface"
        printf 'Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t%s\n' "$(cat combined)"
        ;;
    -g)
        printf 'Ring parameters for %s:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nTX:\t\t4096\n' "$interface"
        printf 'Current hardware settings:\nRX:\t\t%s\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t%s\n' "$(cat rx)" "$(cat tx)"
        ;;
    -x)
        echo "RX flow hash indirection table for $interface with 48 RX ring(s):"
        awk '{ for (i = 1; i <= NF; i++) { if (i % 8 == 1) printf "%s%5d: ", (i > 1 ? "\n" : ""), i - 1; printf " %5d", $i } print "" }' table
        printf 'RSS hash key:\n6d:5a:56:da\nRSS hash function:\n    toeplitz: on\n'
        ;;
    -c) printf 'Coalesce parameters for %s:\nAdaptive RX: %s  TX: n/a\nrx-usecs: %s\nrx-usecs-irq: 7\n' "$interface" "$(cat adaptive-rx)" "$(cat rx-usecs)" ;;
    -k) printf 'Features for %s:\nrx-checksumming: on\nntuple-filters: %s\n' "$interface" "$(cat ntuple)" ;;
    -X)
        awk -v how="$*" 'BEGIN {
            words = split(how, word)
            if (word[1] == "equal") for (i = 0; i < 512; i++) printf "%d ", i % word[2]
            else for (i = 2; i <= words; i++) for (j = 0; j < word[i]; j++) printf "%d ", i - 2
            print ""
        }' >table
        ;;
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
        "rss": { "table": table, "settable": true },
        "coalesce": { "adaptive_rx": 1, "rx_usecs": 50 },
        "features": { "rx-ntuple-filter": { "on": false, "fixed": false } }
    });
    fs::write(tree.path().join("corelocal/ethtool/eth0.json"), ethtool.to_string()).unwrap();
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
        ("adaptive-rx", "on".into()),
        ("rx-usecs", "50".into()),
        ("ntuple", "off".into()),
        ("log", String::new()),
    ] {
        file_of(&state, name, &text);
    }
    tree
}

const ALL: &str = "irqbalance = \"coexist\"\n[channels]\n[rings]\nrx = 2048\n[coalesce]\nadaptive_rx = false\nrx_usecs = 8\n\
                   [rss]\n[features]\nntuple = \"on\"\n[queues]\nirq = \"keep\"\nrps = \"keep\"\nxps = \"keep\"\n";

/// The script of [`ALL`] for a tree, and what it did there.
fn run_all(tree: &Path, profile: &str) -> (String, Run) {
    let profile = file_of(tree, "profile.toml", profile);
    let text = run(tree, ["script", profile.to_str().unwrap()]).expect(0).stdout;
    let script = file_of(tree, "script.sh", &text);
    (text, Command::new("sh").arg(script).env("TUNE_ROOT", tree).output().unwrap().into())
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

    let again = Command::new("sh").arg(tree.path().join("script.sh")).env("TUNE_ROOT", tree.path()).output();
    assert_eq!(Run::from(again.unwrap()).expect(0).stdout, "nothing to do\n");
    assert_eq!(log(tree.path()), [""; 0]);

    let undo = done.stdout.lines().last().unwrap().rsplit(' ').next().unwrap();
    let path = format!("{}:{}", tree.path().join("bin").display(), std::env::var("PATH").unwrap());
    Run::from(Command::new("sh").arg(undo).env("PATH", path).output().unwrap()).expect(0);
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
        file_of(&tree.path().join("state"), "refuse-G", refusal);
        let done = run_all(tree.path(), &profile).1.expect(code);
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
        let channels = fs::read_to_string(tree.path().join("state/combined")).unwrap();
        assert_eq!(channels.trim(), if code == 1 { "47" } else { "48" });
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
    let file = tree.path().join("corelocal/ethtool/eth0.json");
    let mut ethtool: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    ethtool["rss"]["table"][511] = json!(0);
    fs::write(&file, ethtool.to_string()).unwrap();
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
    let tree = ice(47);
    for profile in [ALL, "[queues]\nirq = \"keep\"\nrps = \"off\"\n"] {
        run_all(tree.path(), profile);
        let checked =
            Command::new("shellcheck").args(["--shell", "sh"]).arg(tree.path().join("script.sh")).output();
        assert_eq!(Run::from(checked.unwrap()).expect(0).stdout, "");
    }
}
