//! Which interrupt serves which queue, from netlink, names or the user, and `explain`: on captured trees.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{assert_same_values, contents, copy_of, host, profile, run};
use serde_json::{Value, json};

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

/// Queue and interrupt of the first interface that `show` prints, and how it is known.
fn shown(root: &Path, arguments: &[&str]) -> BTreeMap<String, (u64, String)> {
    let arguments = ["show", "--json", "eth0"].iter().chain(arguments).copied();
    let show = run(root, arguments).expect(0).json();
    let mut irqs = BTreeMap::new();
    for queue in show["interfaces"][0]["queues"].as_array().unwrap() {
        for direction in ["rx", "tx"] {
            if let Some(index) = queue[direction].as_u64() {
                let known = queue["known_by"].as_str().unwrap_or("-").to_owned();
                irqs.insert(format!("{direction}-{index}"), (queue["irq"].as_u64().unwrap_or(0), known));
            }
        }
    }
    irqs
}

/// The planned CPUs of each interrupt.
fn planned_irqs(root: &Path, arguments: &[&str]) -> BTreeMap<String, String> {
    let arguments = ["plan", "--json"].iter().chain(arguments).copied();
    let plan = run(root, arguments).expect(2).json();
    let changes = plan["changes"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let irq = |change: &Value| {
        Some(text(&change["path"]).strip_prefix("/proc/irq/")?.split('/').next()?.to_owned())
    };
    changes.filter_map(|change| Some((irq(change)?, text(&change["after"])))).collect()
}

#[test]
fn one_netdev_on_two_functions_is_known_by_netlink_and_by_nothing_else() {
    let tree = copy_of("mlx5-multi-pf");
    let irqs = shown(tree.path(), &[]);
    for (queue, irq) in [(0, 41), (1, 61), (2, 42), (7, 64)] {
        for direction in ["rx", "tx"] {
            assert_eq!(irqs[&format!("{direction}-{queue}")], (irq, "netlink".to_owned()));
        }
    }
    // Channel c is on function c modulo 2, and fires on a CPU of that function's node.
    let planned = planned_irqs(tree.path(), &[&auto()]);
    let cpus =
        |first: u32| (first..first + 4).map(|irq| planned[&irq.to_string()].clone()).collect::<Vec<_>>();
    assert_eq!((cpus(41).join(","), cpus(61).join(",")), ("0,1,2,3".to_owned(), "4,5,6,7".to_owned()));
    let local = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(local.path(), "[queues]\nplacement = \"numa-local\"\n").unwrap();
    let local = planned_irqs(tree.path(), &[local.path().to_str().unwrap()]);
    assert_eq!(local, planned, "both nodes are local");

    fs::remove_file(tree.path().join("corelocal/netdev.json")).unwrap();
    let refused = run(tree.path(), ["plan", &auto()]);
    assert!(
        refused.refusal().contains("no interrupt is known for RX queues 4-7 of eth0"),
        "{}",
        refused.stderr
    );
    let map: Vec<String> = (0..8).map(|q| format!("rxtx-{q}=irq {}", 41 + 20 * (q % 2) + q / 2)).collect();
    assert_eq!(shown(tree.path(), &["--map", &map.join(",")])["tx-7"], (64, "told".to_owned()));
}

#[test]
fn what_netlink_knows_is_set_and_put_back_also_where_the_names_of_handlers_are_masked() {
    for masked in [false, true] {
        let tree = copy_of("mlx5-multi-pf");
        if masked {
            fs::write(tree.path().join("proc/interrupts"), "").unwrap();
        }
        let before = contents(tree.path());
        assert_eq!(shown(tree.path(), &[])["rx-7"], (64, "netlink".to_owned()));
        assert_eq!(planned_irqs(tree.path(), &[&auto()]).len(), 8);
        run(tree.path(), ["apply", &auto()]).expect(0);
        run(tree.path(), ["check", &auto()]).expect(0);
        let restored = run(tree.path(), ["restore", "--json"]).expect(0).json();
        assert_eq!((&restored["gone"], &restored["failed"]), (&json!([]), &json!([])), "masked: {masked}");
        assert_same_values(&contents(tree.path()), &before);
    }
    let tree = copy_of("mlx5-48cpu");
    fs::write(tree.path().join("proc/interrupts"), "").unwrap();
    let refused = run(tree.path(), ["plan", &auto()]);
    assert!(refused.refusal().contains("/proc/interrupts is empty here"), "{}", refused.stderr);
}

#[test]
fn what_netlink_says_of_some_queues_must_agree_with_the_names() {
    let tree = copy_of("mana-4cpu");
    let tell = |irq: u32| {
        let json = json!({"schema": 1, "interfaces": {"eth0": {
            "queues": [{"type": "rx", "id": 2, "napi-id": 600}], "napis": [{"id": 600, "irq": irq}]}}});
        fs::create_dir_all(tree.path().join("corelocal")).unwrap();
        fs::write(tree.path().join("corelocal/netdev.json"), json.to_string()).unwrap();
    };
    tell(53);
    assert_eq!(shown(tree.path(), &[])["rx-2"], (53, "msi_irqs".to_owned()));
    assert_eq!(planned_irqs(tree.path(), &[&auto()]).len(), 4);
    tell(52);
    let refused = run(tree.path(), ["plan", &auto()]);
    let message =
        "netlink says IRQ 52 (mana_q1@pci:7870:00:00.0) serves RX queue 2, and by msi_irqs it is IRQ 53";
    assert!(refused.refusal().contains(message), "{}", refused.stderr);
    fs::write(tree.path().join("corelocal/netdev.json"), "{}").unwrap();
    let refused = run(tree.path(), ["show", "eth0"]);
    assert!(refused.refusal().contains("read /corelocal/netdev.json: not understood"), "{}", refused.stderr);
}

#[test]
fn names_from_before_a_rename_do_not_matter_where_netlink_or_the_device_knows() {
    // eth0 was eth1 when its driver asked for its interrupts, and the other function has those called eth0.
    let tree = copy_of("bnxt-threaded");
    assert_eq!(shown(tree.path(), &[])["rx-1"], (101, "netlink".to_owned()));
    fs::remove_dir_all(tree.path().join("corelocal")).unwrap();
    assert_eq!(shown(tree.path(), &[])["rx-1"], (101, "msi_irqs".to_owned()));
    let device = "sys/devices/pci0000:16/0000:16:02.0/0000:17:00.1/msi_irqs";
    fs::remove_dir_all(tree.path().join(device)).unwrap();
    assert_eq!(shown(tree.path(), &[])["rx-1"], (101, "chip_address".to_owned()));
    // With nothing but names left, those of the other function say eth0, and that is a guess.
    let interrupts = tree.path().join("proc/interrupts");
    let text = fs::read_to_string(&interrupts).unwrap();
    fs::write(&interrupts, text.replace("MSIX-0000:17:00.0", "MSI").replace("MSIX-0000:17:00.1", "MSI"))
        .unwrap();
    assert_eq!(shown(tree.path(), &[])["rx-1"], (91, "name_only".to_owned()));
    assert!(run(tree.path(), ["plan", &auto()]).refusal().contains("by the name only, which is a guess"));
}

/// tune-nic.sh finds no queue in the names of gve and mana, and rpk none in those of ena, which it leaves in
/// any order.
#[test]
fn names_with_blocks_or_hyphens_and_chips_with_spaces() {
    let ena = shown(&host("ena-8cpu"), &[]);
    for queue in 0..8 {
        assert_eq!(ena[&format!("rx-{queue}")], (28 + queue, "msi_irqs".to_owned()));
    }
    let gve = shown(&host("gve-4cpu"), &[]);
    assert_eq!((gve["tx-3"].0, gve["rx-0"].0, gve["rx-3"].0), (33, 38, 41));
    let mana = shown(&host("mana-4cpu"), &[]);
    assert_eq!((mana["rx-0"].0, mana["tx-3"].0), (51, 54));
    assert_eq!(mana["rx-0"].1, "msi_irqs");
}

#[test]
fn a_told_map_is_planned_applied_and_restored() {
    let tree = copy_of("ambiguous-4cpu");
    let before = contents(tree.path());
    run(tree.path(), ["plan", &auto()]).refusal();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        "# which eth0 is ours\nrxtx-0=irq 50\nrxtx-1=irq 51, rxtx-2=irq 52\nrx-3=53,tx-3=53\n",
    )
    .unwrap();
    let map = file.path().to_str().unwrap();
    let expected = [("50", "0"), ("51", "1"), ("52", "2"), ("53", "3")];
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(irq, cpu)| ((*irq).to_owned(), (*cpu).to_owned())).collect();
    assert_eq!(planned_irqs(tree.path(), &[&auto(), "--map", map]), expected);
    run(tree.path(), ["apply", &auto(), "--map", map]).expect(0);
    let again = run(tree.path(), ["apply", &auto(), "--map", map]).expect(0);
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

/// The driver asks for other interrupts then, and nobody has told those.
#[test]
fn a_told_map_and_another_number_of_channels_do_not_go_together() {
    let tree = copy_of("ambiguous-4cpu");
    fs::create_dir_all(tree.path().join("corelocal/ethtool")).unwrap();
    let ethtool = tree.path().join("corelocal/ethtool/eth0.json");
    fs::write(&ethtool, json!({ "channels": { "combined": { "now": 4, "max": 8 } } }).to_string()).unwrap();
    let before = contents(tree.path());
    let map = "rxtx-0=irq 50,rxtx-1=irq 51,rxtx-2=irq 52,rxtx-3=irq 53";
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let profile = file.path().to_str().unwrap();
    let write = |count: u32, irq: &str| {
        let text = format!("[channels]\ncount = {count}\n[queues]\nirq = \"{irq}\"\nrps = \"off\"\n");
        fs::write(file.path(), text).unwrap();
    };
    for (count, irq) in [(2, "queue-cpu"), (3, "queue-cpu"), (2, "keep")] {
        write(count, irq);
        for command in ["plan", "apply", "check"] {
            let refused = run(tree.path(), [command, profile, "--map", map]);
            assert!(
                refused.refusal().contains("set channels.count first, without --map"),
                "{}",
                refused.stderr
            );
        }
    }
    assert_eq!(contents(tree.path()), before);
    write(4, "queue-cpu");
    assert_eq!(
        planned_irqs(tree.path(), &[profile, "--map", map]).len(),
        4,
        "the channels of now are no change"
    );
    // The way that the message names.
    write(2, "keep");
    run(tree.path(), ["apply", profile]).expect(0);
    assert!(fs::read_to_string(&ethtool).unwrap().contains("\"now\": 2"));
    run(tree.path(), ["restore"]).expect(0);
    assert!(fs::read_to_string(&ethtool).unwrap().contains("\"now\": 4"));
}

#[test]
fn a_map_that_contradicts_the_host_is_refused() {
    let every = "rxtx-0=irq 50,rxtx-1=irq 51,rxtx-2=irq 52";
    for (tree, map, reason) in [
        ("ambiguous-4cpu", every, "no interrupt is known for RX queue 3"),
        ("ambiguous-4cpu", "rx-0=irq 50,rx-0=irq 51", "RX queue 0 is told twice"),
        ("ambiguous-4cpu", "rx-9=irq 50", "RX queue 9, and eth0 has 4 of them"),
        ("ambiguous-4cpu", "rx-0=irq 99", "there is no /proc/irq/99"),
        ("ambiguous-4cpu", "rx-0=fifty", "\"rx-0=fifty\" is no entry of a map"),
        ("ambiguous-4cpu", "/nonexistent/map", "--map: read /nonexistent/map: ENOENT"),
        ("ambiguous-4cpu", "/dev/zero", "not a regular file"),
        ("mlx5-multi-pf", "rx-1=irq 42", "it is IRQ 61 (known by netlink)"),
        ("mana-4cpu", "rx-0=irq 52", "it is IRQ 51 (known by msi_irqs)"),
        ("bnxt-threaded", "rx-0=irq 90", "IRQ 90 for eth0, and it is one of eth1"),
    ] {
        for command in [&["show", "eth0"][..], &["plan", &auto()], &["explain", "eth0"], &["apply", &auto()]]
        {
            let copy = copy_of(tree);
            let arguments = command.iter().copied().chain(["--map", map]);
            let refused = run(copy.path(), arguments);
            if command[0] == "show" {
                assert_eq!(refused.code, Some(1), "{}", refused.stdout);
            } else {
                refused.refusal();
            }
            assert!(refused.stderr.contains(reason), "{command:?} {map}: {}", refused.stderr);
        }
    }
    let several = run(&host("bnxt-threaded"), ["show", "--map", "rx-0=irq 100"]);
    assert!(several.refusal().contains("--map is of one interface"), "{}", several.stderr);
    let restore = run(&host("bnxt-threaded"), ["restore", "--map", "rx-0=irq 100"]);
    assert_eq!((restore.code, restore.stderr.contains("restore does not take --map")), (Some(2), true));
}

#[test]
fn explain_tells_each_queue_of_a_tree_with_what_breaks_it() {
    let tree = host("bnxt-threaded");
    let json = run(&tree, ["explain", "eth1", "--json", "--profile", &auto()]).expect(0).json();
    assert_eq!(
        (&json["schema"], &json["command"], &json["interfaces"][0]["interface"]),
        (&json!(1), &json!("explain"), &json!("eth1"))
    );
    assert_eq!((&json["refused"], &json["interfaces"][0]["notes"]), (&json!(null), &json!([])));
    let chain = &json["interfaces"][0]["chains"][0];
    let expected = json!({
        "rx": 0, "tx": 0, "napi": 513,
        "thread": {"pid": 900, "name": "napi/eth0-513", "cpus": "0-3", "wanted": "0"},
        "irq": 90, "interrupt": "eth0-TxRx-0", "known_by": "netlink",
        "wanted": "0", "set": "0-3", "effective": "3",
        "xps": "0", "xps_wanted": "0", "rps": "", "rps_wanted": "",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&chain[key], value, "{key}");
    }
    let kinds = |chain: &Value| -> Vec<String> {
        let breaks = chain["breaks"].as_array().unwrap().iter();
        breaks.map(|found| found["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        kinds(chain),
        ["irq_on_several_cpus", "not_as_wanted", "napi_thread_on_several_cpus", "xps_elsewhere"]
    );
    assert!(kinds(&json["interfaces"][0]["chains"][3]).contains(&"napi_thread_gone".to_owned()));

    let text = run(&tree, ["explain", "eth1"]).expect(0).stdout;
    assert_eq!(text.lines().count(), 5, "{text}");
    let one = run(&tree, ["explain", "eth1", "3"]).expect(0).stdout;
    assert!(
        one.contains("RX 3 ─► NAPI 516 ─► IRQ 93 (eth0-TxRx-3, known by netlink) ─► CPU 0 (set 0-3)"),
        "{one}"
    );
    assert!(one.contains("broken: its NAPI thread 903 is gone"), "{one}");
    assert!(!one.contains('\x1b') && !text.contains('\x1b'), "no colours into a pipe");
    let refused = run(&tree, ["explain", "eth1", "9"]);
    assert!(
        refused.refusal().contains("eth1 has no queue 9; \"tune explain eth1\" shows its 4"),
        "{}",
        refused.stderr
    );
    assert!(run(&tree, ["explain", "eth1", "x"]).refusal().contains("\"x\" is no queue"));
    assert!(run(&tree, ["explain", "eth9"]).refusal().contains("interface eth9 does not exist"));
}

#[test]
fn explain_shows_a_refused_profile_and_what_is_not_known_too() {
    let tree = host("ambiguous-4cpu");
    let json = run(&tree, ["explain", "eth0", "--json", "--profile", &auto()]).expect(0).json();
    assert!(json["refused"].as_str().unwrap().contains("cannot be placed"), "{json}");
    assert!(json["interfaces"][0]["notes"][0].as_str().unwrap().contains("both claim RX queue 0"), "{json}");
    assert_eq!(json["interfaces"][0]["chains"][0]["known_by"], "name_only");
    assert_eq!(json["interfaces"][0]["chains"][0]["wanted"], json!(null));
    let text = run(&tree, ["explain", "eth0", "rx-1", "--profile", &auto()]).expect(0).stdout;
    assert!(text.contains("nothing is wanted, since the profile is refused: "), "{text}");
}

#[test]
fn threads_of_a_tree_are_pinned_and_given_back_and_one_that_is_gone_is_said() {
    let tree = copy_of("bnxt-threaded");
    let threads = || -> BTreeMap<u64, String> {
        let text = fs::read_to_string(tree.path().join("corelocal/netdev.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let threads = json["threads"].as_array().unwrap().iter();
        threads.map(|t| (t["pid"].as_u64().unwrap(), t["cpus"].as_str().unwrap().to_owned())).collect()
    };
    let before = threads();
    let arguments = ["--interface", "eth1", &auto()];
    let plan = run(tree.path(), ["plan"].iter().chain(&arguments).copied()).expect(2);
    assert!(plan.stdout.contains("napi_thread/eth1/513: 0-3 -> 0\n"), "{}", plan.stdout);
    let gone = "tune: skipped queues.napi_threads of eth1: thread 903 of NAPI instance 516 is gone";
    assert!(plan.stderr.contains(gone), "{}", plan.stderr);
    run(tree.path(), ["apply"].iter().chain(&arguments).copied()).expect(0);
    let after = threads();
    let set = |pid: u64| after[&pid].as_str();
    assert_eq!([900, 901, 902, 904].map(set), ["0", "1", "2", "0-3"], "those of the other function stay");
    let again = run(tree.path(), ["apply"].iter().chain(&arguments).copied()).expect(0);
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
    run(tree.path(), ["restore"]).expect(0);
    assert_eq!(threads(), before);
}
