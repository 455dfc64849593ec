//! Hosts that are not a PCI NIC with a vector for each queue: what `show` and `plan` find there, and what
//! they say where they can do nothing.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{copy_of, profile, profile_of, run};
use serde_json::json;

/// The head of `/proc/interrupts` on two CPUs.
const HEAD: &str = "           CPU0       CPU1\n";

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Puts `interface` with one RX and one TX queue on a device of this path below `/sys/devices`.
fn put_interface(root: &Path, interface: &str, device: &str, driver: &str) {
    let class = root.join("sys/class/net").join(interface);
    let _ = fs::remove_file(&class);
    symlink(format!("../../devices/{device}/net/{interface}"), &class).unwrap();
    let net = format!("sys/devices/{device}/net/{interface}");
    write(root, &format!("{net}/queues/rx-0/rps_cpus"), "0\n");
    write(root, &format!("{net}/queues/rx-0/rps_flow_cnt"), "0\n");
    write(root, &format!("{net}/queues/tx-0/tx_timeout"), "0\n");
    symlink("../..", root.join(&net).join("device")).unwrap();
    symlink(format!("/sys/bus/drivers/{driver}"), root.join(format!("sys/devices/{device}/driver"))).unwrap();
}

/// A host with two CPUs whose `eth0` is on this device, with these lines of `/proc/interrupts`.
fn host_with(device: &str, driver: &str, interrupts: &str) -> tempfile::TempDir {
    let tree = copy_of("virtio-2cpu");
    put_interface(tree.path(), "eth0", device, driver);
    write(tree.path(), "proc/interrupts", &format!("{HEAD}{interrupts}"));
    tree
}

fn keep() -> tempfile::NamedTempFile {
    profile_of("[queues]\nirq = \"keep\"\n")
}

/// Path below the interface's queues or `/proc`, and value, of what is planned.
fn planned(root: &Path, profile: &str) -> Vec<(String, String)> {
    let plan = run(root, ["plan", "--json", profile]).expect(2).json();
    let changes = plan["changes"].as_array().unwrap().iter();
    changes
        .map(|change| ["path", "after"].map(|key| change[key].as_str().unwrap().to_owned()).into())
        .filter(|(path, _): &(String, String)| !path.starts_with("/proc/sys"))
        .collect()
}

fn change(path: &str, after: &str) -> (String, String) {
    (path.to_owned(), after.to_owned())
}

#[test]
fn the_interrupt_of_a_virtio_device_that_is_not_on_pci_goes_by_the_device_s_name() {
    let lines = " 33:  1  0  IO-APIC   6-edge      virtio1\n 38:  7  0  IO-APIC   5-edge      virtio2\n";
    let tree = host_with("platform/LNRO0005:00/virtio2", "virtio_net", lines);
    let show = run(tree.path(), ["show", "--json", "eth0"]).expect(0).json();
    let interface = &show["interfaces"][0];
    assert_eq!((&interface["doubt"], &interface["queues"][0]["irq"]), (&json!(null), &json!(38)));
    assert_eq!(interface["queues"][0]["known_by"], "device_name");
    assert_eq!(
        planned(tree.path(), &auto()),
        [
            change("/proc/irq/38/smp_affinity_list", "0"),
            change("/sys/class/net/eth0/queues/rx-0/rps_cpus", "3")
        ]
    );
    let affinity = tree.path().join("proc/irq/38/smp_affinity_list");
    let before = fs::read_to_string(&affinity).unwrap();
    run(tree.path(), ["apply", &auto()]).expect(0);
    assert_eq!(fs::read_to_string(&affinity).unwrap(), "0\n");
    run(tree.path(), ["restore"]).expect(0);
    assert_eq!(fs::read_to_string(&affinity).unwrap(), before);
}

#[test]
fn the_interrupt_of_a_device_without_msi_is_in_its_irq_file_and_may_be_shared() {
    let lines = " 38:  1  0  IO-APIC  11-fasteoi   uhci_hcd:usb1, eth0\n";
    let tree = host_with("pci0000:00/0000:00:05.0", "e1000", lines);
    write(tree.path(), "sys/devices/pci0000:00/0000:00:05.0/irq", "38\n");
    let show = run(tree.path(), ["show", "--json", "eth0"]).expect(0).json();
    assert_eq!(show["interfaces"][0]["doubt"], json!(null), "{show}");
    assert_eq!(show["interfaces"][0]["queues"][0]["known_by"], "irq_file");
    assert_eq!(planned(tree.path(), &auto())[0], change("/proc/irq/38/smp_affinity_list", "0"));
}

#[test]
fn a_device_without_an_interrupt_of_its_own_is_told_to_keep_what_it_has() {
    for (device, driver, server) in [
        ("LNXSYSTM:00/VMBUS:00/000d3a6b-0000", "hv_netvsc", "the channels of its VMBus device"),
        ("pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0", "r8152", "its USB host controller"),
    ] {
        let tree = host_with(device, driver, " 38:  1  0  PCI-MSI 1-edge      eth0\n");
        let refused = run(tree.path(), ["plan", &auto()]);
        let message = refused.refusal();
        for part in [driver, "no interrupt of its own", server, "queues.irq = \"keep\""] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("is the interface up"), "{message}");
        // One queue for two CPUs: the group does not depend on where the interrupt fires.
        assert_eq!(
            planned(tree.path(), keep().path().to_str().unwrap()),
            [change("/sys/class/net/eth0/queues/rx-0/rps_cpus", "3")]
        );
    }
}

/// An interface without a device has no interrupts to look for; one with a device is shown without them.
#[test]
fn masked_interrupts_hinder_only_what_needs_them() {
    let tree = copy_of("virtio-2cpu");
    write(tree.path(), "proc/interrupts", "");
    let refused = run(tree.path(), ["plan", &auto()]);
    let message = refused.refusal();
    for part in ["/proc/interrupts is empty here", "run tune on the host", "queues.irq = \"keep\""] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let show = run(tree.path(), ["show", "--json"]).expect(0).json();
    assert!(show["interfaces"][0]["doubt"].as_str().unwrap().contains("/proc/interrupts is empty here"));
    let rps = change("/sys/class/net/eth0/queues/rx-0/rps_cpus", "3");
    assert_eq!(planned(tree.path(), keep().path().to_str().unwrap()), std::slice::from_ref(&rps));

    put_interface(tree.path(), "eth0", "virtual/veth", "none");
    fs::remove_file(tree.path().join("sys/devices/virtual/veth/net/eth0/device")).unwrap();
    fs::remove_file(tree.path().join("proc/interrupts")).unwrap();
    run(tree.path(), ["show", "eth0"]).expect(0);
    assert_eq!(planned(tree.path(), &auto()), [rps]);
    // What is not an interrupt's is also put back without them.
    run(tree.path(), ["apply", &auto()]).expect(0);
    run(tree.path(), ["restore"]).expect(0);
}

#[test]
fn the_names_of_a_driver_that_no_rule_is_known_for_are_shown_and_not_written() {
    let tree =
        host_with("pci0000:00/0000:00:05.0", "somenic", " 38:  1  0  PCI-MSI 1-edge      eth0-TxRx-0\n");
    write(tree.path(), "sys/devices/pci0000:00/0000:00:05.0/msi_irqs/38", "msix\n");
    let show = run(tree.path(), ["show", "eth0"]).expect(0).stdout;
    assert!(show.contains("name only") && show.contains("no rule for how somenic names"), "{show}");
    let refused = run(tree.path(), ["plan", &auto()]);
    assert!(refused.refusal().contains("which queues IRQ 38 (eth0-TxRx-0) serves is a guess"));
}

#[test]
fn a_bridge_names_only_ports_that_have_a_device() {
    let tree = copy_of("virtio-2cpu");
    let root = tree.path();
    let bridge = "sys/devices/virtual/net/br0";
    for port in ["veth0", "tap0"] {
        write(root, &format!("sys/devices/virtual/net/{port}/queues/rx-0/rps_cpus"), "0\n");
        symlink(format!("../../devices/virtual/net/{port}"), root.join("sys/class/net").join(port)).unwrap();
        fs::create_dir_all(root.join(bridge)).unwrap();
        symlink(format!("../{port}"), root.join(bridge).join(format!("lower_{port}"))).unwrap();
    }
    write(root, &format!("{bridge}/queues/rx-0/rps_cpus"), "0\n");
    write(root, &format!("{bridge}/bridge/stp_state"), "0\n");
    symlink("../../devices/virtual/net/br0", root.join("sys/class/net/br0")).unwrap();
    let plan = ["plan", "--interface", "br0", &auto()];
    let nothing = "stands on others, of which none has a device: there is nothing to tune";
    assert!(run(root, plan).refusal().contains(nothing));
    assert!(run(root, ["show", "br0"]).expect(0).stdout.contains(nothing));
    let lower =
        |root| run(root, ["show", "--json", "br0"]).expect(0).json()["interfaces"][0]["lower"].clone();
    assert_eq!(lower(root), json!([]));

    symlink("../../../../class/net/eth0", root.join(bridge).join("lower_eth0")).unwrap();
    assert_eq!(run(root, [&plan[..], &["--json"]].concat()).expect(2).json()["interfaces"], json!(["eth0"]));
    assert_eq!(lower(root), json!(["eth0"]));
    assert_eq!(run(root, ["show", "--json", "eth0"]).expect(0).json()["interfaces"][0]["lower"], json!(null));
}

#[test]
fn a_host_with_ipv6_only_has_a_default_route_too() {
    let tree = copy_of("virtio-2cpu");
    write(tree.path(), "proc/net/route", "Iface\tDestination\n");
    let nothing = "00000000000000000000000000000000";
    let route = |metric, flags, interface| {
        format!("{nothing} 00 {nothing} 00 {nothing} {metric} 00000001 00000000 {flags} {interface:>8}\n")
    };
    write(tree.path(), "proc/net/ipv6_route", &route("ffffffff", "00200200", "lo"));
    let message = run(tree.path(), ["plan", &auto()]);
    assert!(message.refusal().contains("/proc/net/ipv6_route"), "{}", message.stderr);
    let routes = [route("00000400", "00000003", "eth0"), route("ffffffff", "00200200", "lo")].concat();
    write(tree.path(), "proc/net/ipv6_route", &routes);
    assert_eq!(run(tree.path(), ["plan", "--json", &auto()]).expect(2).json()["interfaces"], json!(["eth0"]));
}

#[test]
fn one_interface_that_cannot_be_read_does_not_hide_the_others() {
    let tree = copy_of("mlx5-48cpu");
    let broken = "sys/class/net/enp59s0f1np1/queues/rx-3/rps_cpus";
    fs::write(tree.path().join(broken), "zz\n").unwrap();
    for arguments in [&["show"][..], &["show", "--json"]] {
        let result = run(tree.path(), arguments.iter().copied()).expect(1);
        assert!(result.stdout.contains("enp59s0f0np0"), "{}", result.stdout);
        assert!(result.stderr.starts_with(&format!("tune: read /{broken}: ")), "{}", result.stderr);
        assert_eq!(result.stderr.lines().count(), 1, "{}", result.stderr);
    }
    run(tree.path(), ["show", "enp59s0f1np1"]).refusal();
}

#[test]
fn a_sysctl_that_is_kept_above_the_profile_is_said_beside_the_differences() {
    let tree = copy_of("virtio-2cpu");
    write(tree.path(), "proc/sys/net/core/somaxconn", "65535\n");
    write(tree.path(), "proc/sys/kernel/shmmax", "18446744073692774399\n");
    write(tree.path(), "proc/sys/net/ipv4/tcp_notsent_lowat", "-1\n");
    let profile = profile_of(
        "[queues]\nirq = \"keep\"\n[sysctl]\n\"net.core.somaxconn\" = 4096\n\"kernel.shmmax\" = 68719476736\n\
         \"net.ipv4.tcp_notsent_lowat\" = 131072\n",
    );
    let profile = profile.path().to_str().unwrap();
    let text = run(tree.path(), ["plan", profile]).expect(2);
    assert_eq!(text.stdout, "/sys/class/net/eth0/queues/rx-0/rps_cpus: 0 -> 3\n");
    let kept = |name: &str, value: &str, asked: &str| {
        format!(
            "tune: kept /proc/sys/{name}: {value}: the profile asks for less; write {{ exact = {asked} }} to \
             lower it"
        )
    };
    let expected = [
        kept("net/core/somaxconn", "65535", "4096"),
        kept("kernel/shmmax", "18446744073692774399", "68719476736"),
        kept("net/ipv4/tcp_notsent_lowat", "-1", "131072"),
    ];
    assert_eq!(text.stderr.lines().collect::<Vec<_>>(), expected);
    let json = run(tree.path(), ["plan", "--json", profile]).expect(2);
    assert_eq!(json.stderr, "");
    let somaxconn = json!({"path": "/proc/sys/net/core/somaxconn", "value": "65535", "asked": "4096"});
    assert_eq!((json.json()["kept"].as_array().unwrap().len(), &json.json()["kept"][0]), (3, &somaxconn));
    assert_eq!(run(tree.path(), ["apply", profile]).expect(0).stderr.lines().collect::<Vec<_>>(), expected);
    assert_eq!(run(tree.path(), ["plan", profile]).expect(0).stderr.lines().count(), 3);
}
