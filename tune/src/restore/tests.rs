//! Tests of restore on a tree of files.

use std::fs;

use super::*;

const DEVICE: &str = "/sys/devices/0000:3b:00.0";

/// A tree with two interrupts and one sysctl, and its state.
fn tree() -> (tempfile::TempDir, KernelFiles, State) {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write(
        "proc/interrupts",
        "CPU0 CPU1\n 40: 1 1 PCI-MSIX 0-edge      eth0-TxRx-0\n 41: 1 1 PCI-MSIX 1-edge      nvme0q1\n",
    );
    write("proc/irq/40/smp_affinity_list", "0\n");
    write("proc/irq/41/smp_affinity_list", "1\n");
    write("proc/sys/net/core/somaxconn", "8000\n");
    let files = KernelFiles::open(dir.path()).unwrap();
    let state = State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
    (dir, files, state)
}

fn entry(path: &str, before: &str, interrupt: Option<&str>) -> Entry {
    let owner = |name: &str| Owner::Interrupt { name: name.into(), device: DEVICE.into() };
    Entry { path: path.into(), before: before.into(), owner: interrupt.map(owner) }
}

#[test]
fn what_is_gone_is_said_and_the_rest_restored() {
    let (dir, files, state) = tree();
    let entries = vec![
        entry("/proc/irq/40/smp_affinity_list", "0-1", Some("eth0-TxRx-0")),
        entry("/proc/irq/41/smp_affinity_list", "0-1", Some("eth0-TxRx-1")),
        entry("/proc/irq/42/smp_affinity_list", "0-1", Some("eth0-TxRx-2")),
        entry("/proc/sys/net/core/somaxconn", "8000", None),
    ];
    state.store(&state.journal(entries)).unwrap();
    let restored = restore(&files, &state).unwrap();
    assert_eq!(restored.written.len(), 1);
    assert_eq!(restored.unchanged, 1);
    assert_eq!(
        restored.gone,
        [
            "IRQ 41 is nvme0q1 now, not eth0-TxRx-1 any more; left as it is",
            "/proc/irq/42/smp_affinity_list does not exist any more"
        ]
    );
    assert!(restored.failed.is_empty() && restored.journal.is_none());
    let affinity =
        |irq| fs::read_to_string(dir.path().join(format!("proc/irq/{irq}/smp_affinity_list"))).unwrap();
    assert_eq!((affinity(40).as_str(), affinity(41).as_str()), ("0-1\n", "1\n"));
    assert_eq!(state.load().unwrap(), Loaded::Nothing);
}

/// IRQ 41 is listed at the device under another name, as after the interface was renamed.
#[test]
fn an_interrupt_that_is_still_the_device_s_is_restored_under_any_name_and_without_one() {
    let (dir, files, state) = tree();
    let text = "CPU0 CPU1\n 40: 1 1 PCI-MSIX 0-edge    \n 41: 1 1 PCI-MSIX 1-edge      lan0-TxRx-1\n";
    fs::write(dir.path().join("proc/interrupts"), text).unwrap();
    let vectors = dir.path().join(&DEVICE[1..]).join("msi_irqs");
    let names = [(40, "eth0-TxRx-0"), (41, "eth0-TxRx-1")];
    let entries =
        names.map(|(irq, name)| entry(&format!("/proc/irq/{irq}/smp_affinity_list"), "0-1", Some(name)));
    let restored = |listed: &[u32]| {
        let _ = fs::remove_dir_all(&vectors);
        fs::create_dir_all(&vectors).unwrap();
        listed.iter().for_each(|irq| fs::write(vectors.join(irq.to_string()), "msix\n").unwrap());
        names.iter().for_each(|(irq, _)| {
            fs::write(dir.path().join(format!("proc/irq/{irq}/smp_affinity_list")), "1\n").unwrap();
        });
        state.store(&state.journal(entries.to_vec())).unwrap();
        let restored = restore(&files, &state).unwrap();
        (restored.written.len(), restored.gone)
    };
    assert_eq!(restored(&[40, 41]), (2, Vec::new()));
    let other = |irq, now, was| format!("IRQ {irq} is {now} now, not {was} any more; left as it is");
    assert_eq!(
        restored(&[]),
        (1, vec![other(41, "lan0-TxRx-1", "eth0-TxRx-1")]),
        "without a handler it counts"
    );
    let both =
        vec![other(40, "that of another device", "eth0-TxRx-0"), other(41, "lan0-TxRx-1", "eth0-TxRx-1")];
    assert_eq!(restored(&[39]), (0, both), "the device has other vectors now");
}

/// The driver has made its interrupts anew: queue 0 has IRQ 41 now, queue 1 IRQ 40, and queue 2, which had
/// 42, none.
#[test]
fn the_interrupt_of_a_queue_is_restored_under_the_number_that_it_has_now() {
    let (dir, files, state) = tree();
    let text = "CPU0 CPU1\n 40: 1 1 PCI-MSIX 0-edge      eth0-TxRx-1\n 41: 1 1 PCI-MSIX 1-edge      \
                eth0-TxRx-0\n 42: 1 1 PCI-MSIX 2-edge      eth0-TxRx-7\n";
    fs::write(dir.path().join("proc/interrupts"), text).unwrap();
    fs::create_dir_all(dir.path().join("proc/irq/42")).unwrap();
    fs::write(dir.path().join("proc/irq/42/smp_affinity_list"), "0-1\n").unwrap();
    let vectors = dir.path().join(&DEVICE[1..]).join("msi_irqs");
    fs::create_dir_all(&vectors).unwrap();
    [40, 41, 42].iter().for_each(|irq| fs::write(vectors.join(irq.to_string()), "msix\n").unwrap());
    let of = |irq, before, name| entry(&format!("/proc/irq/{irq}/smp_affinity_list"), before, Some(name));
    let entries = vec![of(40, "1", "eth0-TxRx-0"), of(41, "0", "eth0-TxRx-1"), of(42, "1", "eth0-TxRx-2")];
    state.store(&state.journal(entries)).unwrap();
    fs::write(dir.path().join("proc/irq/40/smp_affinity_list"), "0-1\n").unwrap();
    fs::write(dir.path().join("proc/irq/41/smp_affinity_list"), "0-1\n").unwrap();
    let restored = restore(&files, &state).unwrap();
    let affinity =
        |irq| fs::read_to_string(dir.path().join(format!("proc/irq/{irq}/smp_affinity_list"))).unwrap();
    assert_eq!([40, 41, 42].map(affinity), ["0\n", "1\n", "0-1\n"]);
    assert_eq!(restored.gone, ["IRQ 42 is eth0-TxRx-7 now, not eth0-TxRx-2 any more; left as it is"]);
}

/// The JSON of a tree as the driver: a table that names channels which are to go has to go first.
#[test]
fn what_ethtool_sets_is_put_back_first_and_once_more_where_one_waits_for_another() {
    let (dir, files, state) = tree();
    let json = r#"{ "channels": { "combined": { "now": 8, "max": 8 } }, "coalesce": { "rx_usecs": 8 } }"#;
    fs::create_dir_all(dir.path().join("corelocal/ethtool")).unwrap();
    fs::write(dir.path().join("corelocal/ethtool/eth0.json"), json).unwrap();
    let entries = vec![
        entry("ethtool/eth0/coalesce/rx_usecs", "3", None),
        entry("ethtool/eth0/channels", "combined 9", None),
        entry("/proc/sys/net/core/somaxconn", "128", None),
    ];
    state.store(&state.journal(entries)).unwrap();
    let restored = restore(&files, &state).unwrap();
    assert_eq!(restored.failed, ["set ethtool/eth0/channels: combined 9 is above the maximum, 8"]);
    let paths: Vec<&str> = restored.written.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["ethtool/eth0/coalesce/rx_usecs", "/proc/sys/net/core/somaxconn"]);
    assert!(restored.journal.is_some(), "kept for another try");
}

#[test]
fn what_is_not_an_interrupt_s_is_restored_where_interrupts_are_masked() {
    let (dir, files, state) = tree();
    fs::write(dir.path().join("proc/interrupts"), "").unwrap();
    let sysctl = entry("/proc/sys/net/core/somaxconn", "128", None);
    let irq = entry("/proc/irq/40/smp_affinity_list", "0-1", Some("eth0-TxRx-0"));
    state.store(&state.journal(vec![sysctl.clone(), irq])).unwrap();
    let error = restore(&files, &state).unwrap_err().to_string();
    assert!(error.contains("/proc/interrupts is empty here") && error.contains("on the host"), "{error}");
    state.store(&state.journal(vec![sysctl])).unwrap();
    assert_eq!(restore(&files, &state).unwrap().written.len(), 1);
}

#[test]
fn the_old_text_is_written_back_as_it_was_read() {
    let (dir, files, _state) = tree();
    let rmem = dir.path().join("proc/sys/net/core/rmem");
    fs::write(&rmem, "1 2 3\n").unwrap();
    let setting = Setting::Sysctl("net.core.rmem".parse().unwrap());
    put_back(&files, &setting, "4096\t131072\t6291456").unwrap();
    assert_eq!(fs::read_to_string(&rmem).unwrap(), "4096\t131072\t6291456\n");
    assert_eq!(put_back(&files, &setting, "4096 131072 6291456").unwrap(), PutBack::Unchanged);
}

#[test]
fn a_journal_of_another_boot_writes_nothing_and_is_removed() {
    let (dir, files, state) = tree();
    state.store(&state.journal(vec![entry("/proc/sys/net/core/somaxconn", "128", None)])).unwrap();
    drop(state);
    fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).unwrap();
    fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), "next\n").unwrap();
    let state = State::open(&State::default_directory(&files).unwrap(), &files).unwrap();
    let restored = restore(&files, &state).unwrap();
    assert!(restored.other_boot && restored.written.is_empty());
    assert_eq!(files.read("/proc/sys/net/core/somaxconn").unwrap(), "8000");
    assert_eq!(state.load().unwrap(), Loaded::Nothing);
}

#[test]
fn what_a_run_left_that_was_killed_at_its_first_journal_is_removed() {
    let (dir, files, state) = tree();
    let left = dir.path().join("run/corelocal/journal.0.json.new");
    fs::write(&left, "{\"schema\":").unwrap();
    let restored = restore(&files, &state).unwrap();
    assert!(restored.written.is_empty() && restored.journal.is_none());
    assert!(!left.exists());
}

#[test]
fn a_text_that_is_no_value_is_replaced_by_the_old_one() {
    let (dir, files, _) = tree();
    let file = dir.path().join("proc/irq/40/smp_affinity_list");
    fs::write(&file, "1 47\n").unwrap();
    let put_back = put_back(&files, &Setting::IrqAffinity("40".parse().unwrap()), "0").unwrap();
    assert_eq!(put_back, PutBack::Written { found: "1 47".into(), now: "0".into() });
    assert_eq!(fs::read_to_string(&file).unwrap(), "0\n");
}
