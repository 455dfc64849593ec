//! Several interfaces as one, and what stands on them: the real kernel, and the trees of hosts.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::veth::{NIC, Veth};
use common::{assert_same_values, contents, copy_of, host, profile, profile_of, run, tune};
use serde_json::json;
use tune::cpu_set::{Cpu, CpuSet};

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

fn online() -> Vec<Cpu> {
    let online: CpuSet = fs::read_to_string("/sys/devices/system/cpu/online").unwrap().parse().unwrap();
    online.iter().collect()
}

/// `ip ARGUMENTS` inside; false and a line that says so if the kernel or the host cannot.
fn ip(veth: &Veth, arguments: &str) -> bool {
    let output = veth.inside(|| Command::new("ip").args(arguments.split(' ')).output());
    let why = match output {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("SKIPPED: ip {arguments}: {why}");
    false
}

/// A second pair beside [`NIC`], with as many queues.
fn add_nic1(veth: &Veth, queues: usize) -> bool {
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    ip(veth, &format!("link add nic1 {queues} type veth peer name wire1 {queues}"))
}

fn interfaces_of(veth: &Veth, interface: &str, profile: &str) -> serde_json::Value {
    let mut plan = tune();
    plan.args(["plan", "--json", "--interface", interface, profile]);
    let plan = veth.output(&mut plan);
    assert!(plan.code == Some(2) || plan.code == Some(0), "{}", plan.stderr);
    plan.json()["interfaces"].clone()
}

fn file(veth: &Veth, path: &str) -> CpuSet {
    CpuSet::parse_mask(&veth.inside(|| fs::read_to_string(path).unwrap())).unwrap()
}

#[test]
fn two_interfaces_share_the_cpus_and_are_restored_together() {
    let cpus = online();
    let queues = cpus.len() + 1;
    let Some(veth) = Veth::with_queues(u32::try_from(queues).unwrap()) else { return };
    if !add_nic1(&veth, queues) {
        return;
    }
    let values = |veth: &Veth| -> BTreeMap<String, CpuSet> {
        let files = ["nic0", "nic1"].into_iter().flat_map(|nic| {
            (0..queues).flat_map(move |queue| {
                let queues = format!("/sys/class/net/{nic}/queues");
                [format!("{queues}/rx-{queue}/rps_cpus"), format!("{queues}/tx-{queue}/xps_cpus")]
            })
        });
        files.map(|path| (path.clone(), file(veth, &path))).collect()
    };
    let before = values(&veth);
    let both = profile_of("interface = [\"nic0\", \"nic1\"]\n[queues]\nrps = \"queue-cpu\"\n");
    let both = both.path().to_str().unwrap();
    veth.output(tune().args(["apply", both])).expect(0);
    let cpu = |nic: &str, queue: usize| {
        let rps = file(&veth, &format!("/sys/class/net/{nic}/queues/rx-{queue}/rps_cpus"));
        assert_eq!(rps.len(), 1);
        rps.first().unwrap()
    };
    let mut load: BTreeMap<Cpu, usize> = cpus.iter().map(|&cpu| (cpu, 0)).collect();
    for (nic, queue) in
        ["nic0", "nic1"].into_iter().flat_map(|nic| (0..queues).map(move |queue| (nic, queue)))
    {
        *load.get_mut(&cpu(nic, queue)).unwrap() += 1;
    }
    assert!(load.values().max().unwrap() - load.values().min().unwrap() <= 1, "{load:?}");
    if cpus.len() > 1 {
        assert_eq!(cpu("nic1", 0), cpus[1], "the first interface ended on the first CPU");
    }
    veth.output(tune().args(["plan", both])).expect(0);
    veth.output(tune().arg("restore")).expect(0);
    assert_eq!(values(&veth), before);
}

#[test]
fn macvlan_vxlan_and_a_bridge_give_way_to_the_interface_under_them() {
    let Some(veth) = Veth::with_queues(3) else { return };
    for (add, interface) in [
        (&["link add link nic0 name mac0 type macvlan"][..], "mac0"),
        (
            &[
                "link add vx0 type vxlan id 7 dev nic0 dstport 4789",
                "link add br0 type bridge",
                "link set vx0 master br0",
                "link add guest0 type veth peer name guest1",
                "link set guest0 master br0",
            ],
            "br0",
        ),
        (&["link add link nic0 name nic0.7 type vlan id 7"], "nic0.7"),
    ] {
        if add.iter().all(|line| ip(&veth, line)) {
            assert_eq!(interfaces_of(&veth, interface, &auto()), json!([NIC]), "{interface}");
        }
    }
}

/// The kernel of a virtual machine may have no bond: the tree `bond-8cpu` is for there.
#[test]
fn a_bridge_on_a_vlan_on_a_bond_gives_way_to_the_ports_of_the_bond() {
    let Some(veth) = Veth::with_queues(3) else { return };
    let lines = [
        "link set nic0 down",
        "link add bond7 type bond mode active-backup",
        "link set nic0 master bond7",
        "link set nic1 master bond7",
        "link add link bond7 name bond7.7 type vlan id 7",
        "link add br7 type bridge",
        "link set bond7.7 master br7",
    ];
    if add_nic1(&veth, 3) && lines.iter().all(|line| ip(&veth, line)) {
        for interface in ["bond7", "bond7.7", "br7"] {
            assert_eq!(interfaces_of(&veth, interface, &auto()), json!(["nic0", "nic1"]), "{interface}");
        }
    }
}

#[test]
fn a_vlan_on_a_bond_is_planned_applied_and_restored_on_its_ports() {
    let tree = copy_of("bond-8cpu");
    let before = contents(tree.path());
    let plan = run(tree.path(), ["plan", "--json", &auto()]).expect(2).json();
    assert_eq!(plan["interfaces"], json!(["eth0", "eth1"]));
    run(tree.path(), ["apply", &auto()]).expect(0);
    run(tree.path(), ["plan", &auto()]).expect(0);
    let cpu = |irq: u32| {
        fs::read_to_string(tree.path().join(format!("proc/irq/{irq}/smp_affinity_list")))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!([40, 41, 42, 43, 50, 51, 52, 53].map(cpu), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn a_virtual_function_is_shown_with_its_physical_one() {
    let tree = host("bond-8cpu");
    let show = run(&tree, ["show", "--json"]).expect(0).json();
    let of = |name: &str| {
        let all = show["interfaces"].as_array().unwrap();
        all.iter().find(|interface| interface["interface"] == name).unwrap().clone()
    };
    assert_eq!(of("eth0v0")["physical_function"], json!({"pci": "0000:3b:00.0", "interfaces": ["eth0"]}));
    assert_eq!(of("eth0")["virtual_functions"], json!([{"pci": "0000:3b:10.0", "interfaces": ["eth0v0"]}]));
    assert_eq!(
        (&of("eth1")["physical_function"], &of("eth1")["virtual_functions"]),
        (&json!(null), &json!([]))
    );
    let text = run(&tree, ["show", "eth0v0"]).expect(0).stdout;
    assert!(text.ends_with("it is a virtual function of 0000:3b:00.0 (eth0)\n"), "{text}");
}

#[test]
fn isolated_cpus_get_interrupts_only_by_name_and_those_not_allowed_are_said() {
    let tree = host("isolated-8cpu");
    let plan = |cpus: &str| {
        let plan = run(&tree, ["plan", "--json", "--cpus", cpus, &auto()]).expect(2).json();
        let changes = plan["changes"].as_array().unwrap().clone();
        let value = |path: &str| {
            let change = changes.iter().find(|change| change["path"] == path);
            change.map(|change| change["after"].as_str().unwrap().to_owned())
        };
        let irqs = (30..34).map(|irq| value(&format!("/proc/irq/{irq}/smp_affinity_list")).unwrap());
        (irqs.collect::<Vec<_>>().join(" "), plan["notes"].as_array().unwrap().len())
    };
    assert_eq!(plan("online"), ("0 1 2 3".to_owned(), 2), "without 5, 6 and 7");
    assert_eq!(plan("4-7"), ("4 5 6 7".to_owned(), 1), "5 is not allowed");
    assert_eq!(plan("1-4"), ("1 2 3 4".to_owned(), 0));
    let text = run(&tree, ["plan", "--cpus", "4-7", &auto()]).expect(2);
    assert!(
        text.stderr.contains("\ntune: note: the workers' CPUs 5 are outside of 0-4,8-11, "),
        "{}",
        text.stderr
    );
    let offline = run(&tree, ["plan", "--cpus", "4-8", &auto()]);
    assert!(offline.refusal().contains("8 missing, online are 0-7"), "{}", offline.stderr);
}

#[test]
fn xps_by_rx_queue_and_the_default_of_rps_are_set_and_given_back() {
    let Some(veth) = Veth::with_queues(3) else { return };
    let queue = |queue: u32, file: &str| format!("/sys/class/net/{NIC}/queues/tx-{queue}/{file}");
    let default = "/proc/sys/net/core/rps_default_mask";
    let has_default = veth.inside(|| fs::exists(default).unwrap());
    if !has_default {
        println!("SKIPPED: no {default} before Linux 6.3");
    }
    let wishes = profile_of("[queues]\nxps = \"rx-queue\"\nrps_default = \"workers\"\n");
    let wishes = wishes.path().to_str().unwrap();
    let rxqs = |veth: &Veth| [0, 1, 2].map(|number| file(veth, &queue(number, "xps_rxqs")).to_string());
    assert_eq!(rxqs(&veth), [""; 3]);
    let applied = veth.tune(&["apply", wishes]).expect(0);
    assert_eq!(rxqs(&veth), ["0", "1", "2"]);
    if has_default {
        let workers: CpuSet = online().into_iter().collect();
        assert_eq!(file(&veth, default), workers);
        assert_eq!(applied.stderr, "");
    }
    veth.tune(&["plan", wishes]).expect(0);
    let by_cpu = veth.tune(&["apply", &profile("lab.toml").display().to_string()]).expect(0);
    assert!(by_cpu.stdout.contains(&format!("{}: 1 -> 0\n", queue(0, "xps_rxqs"))), "{}", by_cpu.stdout);
    veth.tune(&["restore"]).expect(0);
    assert_eq!(rxqs(&veth), [""; 3]);
    if has_default {
        assert_eq!(file(&veth, default), CpuSet::new());
    }
}

#[test]
fn a_capture_has_what_an_interface_stands_on_and_the_cpus_that_are_allowed() {
    for tree in ["bond-8cpu", "isolated-8cpu"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.tar");
        run(&host(tree), ["capture", file.to_str().unwrap()]).expect(0);
        let there = run(&host(tree), ["plan", "--json", &auto()]).expect(2).json();
        assert_eq!(run(&file, ["plan", "--json", &auto()]).expect(2).json(), there, "{tree}");
    }
}

#[test]
fn a_script_writes_the_queues_of_xps_as_a_mask() {
    let wishes = profile_of("[queues]\nxps = \"rx-queue\"\nrps_default = \"workers\"\n");
    let script = run(&host("bond-8cpu"), ["script", wishes.path().to_str().unwrap()]).expect(0).stdout;
    for step in [
        "'/sys/class/net/eth1/queues/tx-3/xps_rxqs' '0' '8'",
        "'/proc/sys/net/core/rps_default_mask' '0' 'ff'",
    ] {
        assert!(script.contains(&format!("    step mask {step}\n")), "{step}: {script}");
    }
}
