//! The command line: where options may stand, exit codes, and the fields of the JSON output.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{assert_same_values, contents, copy_of, host, profile, run, tune};

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

#[test]
fn options_stand_before_or_after_the_subcommand() {
    let tree = host("i40e-48cpu");
    let tree = tree.to_str().unwrap();
    let auto = auto();
    let orders: [&[&str]; 4] = [
        &["--root", tree, "--json", "--cpus", "0-3", "--interface", "eth0", "plan", &auto],
        &["plan", &auto, "--root", tree, "--json", "--cpus", "0-3", "--interface", "eth0"],
        &["--root", tree, "plan", "--json", "--interface", "eth0", &auto, "--cpus", "0-3"],
        &["plan", "--root", tree, "--interface=auto", "--cpus=0-3", "--json", &auto],
    ];
    let plans: Vec<String> =
        orders.map(|order| common::Run::from(tune().args(order).output().unwrap()).expect(2).stdout).into();
    assert!(plans.iter().all(|plan| *plan == plans[0]));
}

#[test]
fn plan_prints_the_differences_and_nothing_else() {
    let tree = copy_of("virtio-2cpu");
    let json = run(tree.path(), ["plan", "--json", &auto()]).expect(2).json();
    let text = run(tree.path(), ["plan", &auto()]).expect(2);
    let lines: Vec<String> = json["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let text = |key: &str| change[key].as_str().unwrap().to_owned();
            format!("{}: {} -> {}", text("path"), text("before"), text("after"))
        })
        .collect();
    assert_eq!(text.stdout.lines().collect::<Vec<_>>(), lines);
    let skipped = "tune: skipped irqbalance = \"ban\": irqbalance does not run here\n";
    assert_eq!(text.stderr, skipped);

    run(tree.path(), ["apply", &auto()]).expect(0);
    let nothing = run(tree.path(), ["plan", &auto()]).expect(0);
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.as_str()), ("", skipped));
}

#[test]
fn json_of_plan_apply_and_restore() {
    let tree = copy_of("virtio-2cpu");
    let plan = run(tree.path(), ["plan", "--json", &auto()]).expect(2).json();
    assert_eq!(plan["schema"], 1);
    assert_eq!(plan["interfaces"], serde_json::json!(["eth0"]));
    let keys: Vec<&String> = plan["changes"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["after", "before", "path"]);
    assert!(plan["changes"].as_array().unwrap().iter().all(|c| c["path"].as_str().unwrap().starts_with('/')));

    let apply = run(tree.path(), ["apply", "--json", &auto()]).expect(0).json();
    assert_eq!((&apply["schema"], &apply["changes"]), (&plan["schema"], &plan["changes"]));
    let again = run(tree.path(), ["apply", "--json", &auto()]).expect(0).json();
    assert_eq!(again["changes"].as_array().unwrap().len(), 0);

    let restore = run(tree.path(), ["restore", "--json"]).expect(0).json();
    assert_eq!(restore["schema"], 1);
    assert_eq!(restore["restored"].as_array().unwrap().len(), plan["changes"].as_array().unwrap().len());
    for key in ["gone", "failed"] {
        assert_eq!(restore[key].as_array().unwrap().len(), 0, "{key}");
    }
}

#[test]
fn show_has_a_row_for_each_queue_with_its_interrupt_and_how_it_is_known() {
    let show = run(&host("i40e-48cpu"), ["show", "--json", "eth0"]).expect(0).json();
    assert_eq!(show["schema"], 1);
    let interface = &show["interfaces"][0];
    assert_eq!((&interface["interface"], &interface["driver"]), (&"eth0".into(), &"i40e".into()));
    assert_eq!(interface["numa_node"], 1);
    let queues = interface["queues"].as_array().unwrap();
    assert_eq!(queues.len(), 48);
    for (index, queue) in queues.iter().enumerate() {
        assert_eq!(queue["rx"], index);
        assert_eq!(queue["tx"], index);
        assert_eq!(queue["irq"], 121 + index);
        assert_eq!(queue["known_by"], "msi_irqs");
        assert_eq!(queue["set"], "0-47");
        assert_eq!(queue["xps"], index.to_string());
        assert_eq!(queue["rps"], "");
    }
    let text = run(&host("i40e-48cpu"), ["show", "eth0"]).expect(0).stdout;
    let row = text.lines().find(|line| line.contains("i40e-eth0-TxRx-47")).unwrap();
    assert!(row.contains("168") && row.contains("msi_irqs"), "{row}");
}

#[test]
fn show_tells_receive_and_transmit_interrupt_of_virtio_apart() {
    let show = run(&host("virtio-2cpu"), ["show", "--json"]).expect(0).json();
    let queues = show["interfaces"][0]["queues"].as_array().unwrap();
    let irqs: Vec<_> = queues.iter().map(|queue| (queue["irq"].as_u64(), queue["xps"].is_null())).collect();
    assert_eq!(irqs, [(Some(38), true), (Some(39), true)]);
    assert!(show["interfaces"][0]["numa_node"].is_null(), "-1 is unknown, not node 0");
}

#[test]
fn show_of_the_second_mlx5_function_has_its_own_interrupts() {
    let show = run(&host("mlx5-48cpu"), ["show", "--json", "enp59s0f1np1"]).expect(0).json();
    let queues = show["interfaces"][0]["queues"].as_array().unwrap();
    let irqs: Vec<_> = queues.iter().filter_map(|queue| queue["irq"].as_u64()).collect();
    assert_eq!(irqs, [91, 92, 93, 94, 160, 161, 162, 163]);
}

#[test]
fn show_says_why_an_interrupt_map_is_not_used() {
    let show = run(&host("ambiguous-4cpu"), ["show", "--json", "eth0"]).expect(0).json();
    assert!(show["interfaces"][0]["doubt"].is_string(), "{show}");
    for queue in show["interfaces"][0]["queues"].as_array().unwrap() {
        assert_eq!(queue["known_by"], "name_only");
    }
}

/// A copy of the mlx5 tree in which `bond0` with 16 queues has both functions as ports, and `bond0.7` is a
/// VLAN on it.
fn bonded() -> tempfile::TempDir {
    let tree = copy_of("mlx5-48cpu");
    let net = tree.path().join("sys/class/net");
    for (upper, lower) in [("bond0", &["enp59s0f0np0", "enp59s0f1np1"][..]), ("bond0.7", &["bond0"])] {
        let virtual_device = tree.path().join("sys/devices/virtual/net").join(upper);
        for queue in 0..16 {
            for (queue, file) in [(format!("rx-{queue}"), "rps_cpus"), (format!("tx-{queue}"), "xps_cpus")] {
                let queue = virtual_device.join("queues").join(queue);
                fs::create_dir_all(&queue).unwrap();
                fs::write(queue.join(file), "0000,00000000\n").unwrap();
            }
        }
        for lower in lower {
            symlink(net.join(lower), virtual_device.join(format!("lower_{lower}"))).unwrap();
        }
        symlink(format!("../../devices/virtual/net/{upper}"), net.join(upper)).unwrap();
    }
    tree
}

#[test]
fn an_interface_that_stands_on_others_gives_way_to_them() {
    let tree = bonded();
    let lower = serde_json::json!(["enp59s0f0np0", "enp59s0f1np1"]);
    for interface in ["bond0", "bond0.7", "bond0.7,enp59s0f0np0,bond0", "enp59s0f0np0,enp59s0f1np1"] {
        let plan = run(tree.path(), ["plan", "--json", "--interface", interface, &auto()]).expect(2).json();
        assert_eq!(plan["interfaces"], lower, "{interface}");
        for port in ["enp59s0f0np0", "enp59s0f1np1"] {
            let queues = format!("/sys/class/net/{port}/queues/");
            let changes = plan["changes"].as_array().unwrap().iter();
            assert!(changes.filter(|c| c["path"].as_str().unwrap().starts_with(&queues)).count() > 0);
        }
    }
    for interface in ["bond0", "bond0.7"] {
        let show = run(tree.path(), ["show", interface, "--json"]).expect(0).json();
        assert_eq!(show["interfaces"][0]["lower"], lower);
        let text = run(tree.path(), ["show", interface]).expect(0).stdout;
        let last = "it stands on enp59s0f0np0, enp59s0f1np1: plan and apply take those\n";
        assert!(text.ends_with(last), "{text}");
    }
}

#[test]
fn several_interfaces_are_applied_verified_and_restored_as_one() {
    let tree = bonded();
    let before = contents(tree.path());
    run(tree.path(), ["apply", "--interface", "bond0.7", &auto()]).expect(0);
    run(tree.path(), ["plan", "--interface", "bond0", &auto()]).expect(0);
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn show_takes_one_interface_in_one_place() {
    let tree = host("virtio-2cpu");
    for arguments in [["show", "eth0", "--interface", "eth0"], ["--interface", "lo", "show", "eth0"]] {
        let result = run(&tree, arguments);
        assert_eq!((result.code, result.stdout.as_str()), (Some(2), ""));
        assert!(result.stderr.contains("IFACE or --interface"), "{}", result.stderr);
    }
    run(&tree, ["show", "--interface", "eth0"]).expect(0);
}

#[test]
fn an_option_that_a_subcommand_does_not_take_is_refused_wherever_it_stands() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let auto = auto();
    let cpus = ["--cpus", "0"];
    let interface = ["--interface", "eth0"];
    let state_dir = ["--state-dir", "x"];
    let root = ["--root", "/"];
    for (subcommand, option) in [
        (&["show"][..], cpus),
        (&["show"], state_dir),
        (&["explain", "eth0"], cpus),
        (&["diff", &auto, &auto], root),
        (&["completions", "bash"], root),
        (&["plan", &auto], state_dir),
        (&["restore"], cpus),
        (&["restore"], interface),
    ] {
        for arguments in [[subcommand, &option].concat(), [&option, subcommand].concat()] {
            let of_tree = (option != root).then_some(["--root", tree.path().to_str().unwrap()]);
            let result: common::Run =
                tune().args(of_tree.into_iter().flatten()).args(arguments).output().unwrap().into();
            assert_eq!((result.code, result.stdout.as_str()), (Some(2), ""));
            let expected = format!("{} does not take {}", subcommand[0], option[0]);
            assert!(result.stderr.contains(&expected), "{}", result.stderr);
        }
    }
    assert_eq!(contents(tree.path()), before);
}

/// The lines of a subcommand's `--help`, or of the program's, that begin with a long option.
fn offered(subcommand: &[&str]) -> Vec<String> {
    let help = common::Run::from(tune().args(subcommand).arg("--help").output().unwrap()).expect(0).stdout;
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with("--"));
    lines.map(|line| line.split_once(' ').map_or(line, |(option, _)| option).to_owned()).collect()
}

#[test]
fn a_subcommand_offers_the_options_of_all_that_it_takes_and_no_others() {
    let of_all = offered(&[]);
    assert!(of_all.contains(&"--state-dir".to_owned()) && of_all.len() >= 7, "{of_all:?}");
    for subcommand in [
        &["show"][..],
        &["explain", "eth0", "--profile", "/no/profile"],
        &["plan", "/no/profile"],
        &["apply", "/no/profile"],
        &["restore"],
        &["check", "/no/profile"],
        &["script", "/no/profile"],
        &["watch", "/no/profile"],
        &["profile", "init", "no-such-link"],
        &["capture", "/no/directory/x.tar"],
        &["diff", "/no/a", "/no/b"],
        &["completions", "bash"],
        &["man", "/no/directory"],
    ] {
        let offers = offered(subcommand);
        for option in &of_all {
            let value = (option != "--json").then_some("/no/such").into_iter();
            let result = common::Run::from(tune().args(subcommand).arg(option).args(value).output().unwrap());
            let says_no = result.stderr.contains(&format!("does not take {option}"));
            assert_ne!(says_no, offers.contains(option), "{subcommand:?} {option}: {}", result.stderr);
        }
    }
}

#[test]
fn show_has_the_speed_of_the_link_where_it_is_known() {
    for (name, json, text) in [
        ("i40e-48cpu", 40_000.into(), ", 40 Gbit/s, 48 RX queues"),
        ("virtio-8cpu", serde_json::Value::Null, ", link speed not known, 4 RX queues"),
        ("ena-8cpu", serde_json::Value::Null, ", link speed not known, 8 RX queues"),
    ] {
        let show = run(&host(name), ["show", "--json", "eth0"]).expect(0).json();
        assert_eq!(show["interfaces"][0]["speed_mbit"], json, "{name}");
        let shown = run(&host(name), ["show", "eth0"]).expect(0).stdout;
        assert!(shown.contains(text), "{shown}");
    }
}

#[test]
fn help_says_what_the_exit_codes_of_plan_mean() {
    for arguments in [&["--help"][..], &["plan", "--help"]] {
        let help = common::Run::from(tune().args(arguments).output().unwrap()).expect(0).stdout;
        assert!(help.contains("2 there are changes"), "{help}");
    }
    common::Run::from(tune().arg("--version").output().unwrap()).expect(0);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = tune()
        .args(["--root", host("i40e-48cpu").to_str().unwrap(), "show"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let result = common::Run::from(child.wait_with_output().unwrap());
    assert_eq!((result.code, result.stderr.as_str()), (Some(0), ""));
}

#[test]
fn plan_explains_every_setting_in_text_and_json() {
    let tree = host("i40e-48cpu");
    let plain = run(&tree, ["plan", "--json", &auto()]).expect(2).json();
    assert_eq!(plain["settings"], serde_json::Value::Null);
    let json = run(&tree, ["plan", "--explain", "--json", &auto()]).expect(2).json();
    assert_eq!((&json["schema"], &json["changes"]), (&1.into(), &plain["changes"]));
    let settings = json["settings"].as_array().unwrap();
    let changed: Vec<_> = settings.iter().filter(|setting| setting["change"] == true).collect();
    assert_eq!(changed.len(), plain["changes"].as_array().unwrap().len());
    for (setting, change) in changed.iter().zip(plain["changes"].as_array().unwrap()) {
        for key in ["path", "before", "after"] {
            assert_eq!(setting[key], change[key]);
        }
    }
    for setting in settings {
        let reason = setting["reason"].as_str().unwrap();
        assert!(reason.len() > 10 && !reason.contains('\n'), "{setting}");
        assert_eq!(setting["change"] == true, setting["before"] != setting["after"], "{setting}");
    }
    let text = run(&tree, ["plan", &auto(), "--explain"]).expect(2).stdout;
    assert_eq!(text.lines().count(), 2 * settings.len());
    assert_eq!(settings[0]["path"], "irqbalance/banned_irqs");
    let first = settings[1]["reason"].as_str().unwrap();
    assert!(text.contains(&format!("\n    {first}\n")), "{text}");
    assert!(
        first.contains("i40e-eth0-TxRx-0")
            && first.contains("CPU 12 (thread 0 of core 12, node 1, the NIC's)"),
        "{first}"
    );
    assert_eq!(run(&tree, ["show", "--explain"]).code, Some(2));
}
