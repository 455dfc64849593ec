use super::*;
use crate::host::fixture::device_nic;

fn read_map(files: &KernelFiles, nic: &Nic) -> Result<QueueIrqs, HostError> {
    let read = std::cell::OnceCell::new();
    let interrupts = || {
        let interrupts = Interrupts::read(files)?;
        Ok(read.get_or_init(|| interrupts))
    };
    QueueIrqs::read(files, nic, &Netdev::default(), &ToldMap::default(), interrupts)
}

/// 40 is an interrupt that has gone: it has a line and an entry in `msi_irqs`, and no `/proc/irq/40` any
/// more. The names of virtio2 on the PCI function 0000:3b:00.0, or of an igb on it; `msi_irqs` of that
/// function, and chips that name it or do not.
fn read_tree(driver: &str, msi_irqs: &[u32], irq_file: &str, chip: &str) -> QueueIrqs {
    let dir = tempfile::tempdir().unwrap();
    let pci = dir.path().join("sys/devices/pci0000:3a/0000:3b:00.0");
    let make = |path: std::path::PathBuf| std::fs::create_dir_all(path).unwrap();
    make(pci.join("virtio2"));
    make(pci.join("msi_irqs"));
    msi_irqs.iter().for_each(|irq| std::fs::write(pci.join(format!("msi_irqs/{irq}")), "msix\n").unwrap());
    std::fs::write(pci.join("irq"), irq_file).unwrap();
    [38, 39].iter().for_each(|irq| make(dir.path().join(format!("proc/irq/{irq}"))));
    let (rx, tx) =
        if driver == "igb" { ("eth0-rx-0", "eth0-tx-0") } else { ("virtio2-input.0", "virtio2-output.0") };
    let text = format!(
        "CPU0\n 38: 1 {chip} 1-edge      {rx}\n 39: 1 {chip} 2-edge      {tx}\n 40: 1 {chip} 3-edge      \
         {rx}\n"
    );
    std::fs::write(dir.path().join("proc/interrupts"), text).unwrap();
    let files = KernelFiles::open(dir.path()).unwrap();
    let device = if driver == "igb" { "" } else { "virtio2" };
    read_map(&files, &device_nic(driver, device, 1, 1)).unwrap()
}

#[test]
fn the_ladder_is_climbed_down_step_by_step() {
    let how = |map: &QueueIrqs| map.rows.iter().map(|row| (row.irq.0, row.how)).collect::<Vec<_>>();
    let both = |step| vec![(38, step), (39, step)];
    let address = "PCI-MSIX-0000:3b:00.0";
    for driver in ["virtio_net", "igb"] {
        assert_eq!(how(&read_tree(driver, &[38, 39, 40], "0", address)), both(HowKnown::MsiIrqs));
        assert_eq!(how(&read_tree(driver, &[40], "38", address)), both(HowKnown::ChipAddress));
        assert_eq!(how(&read_tree(driver, &[], "38", "PCI-MSI")), [(38, HowKnown::IrqFile)]);
    }
    assert_eq!(how(&read_tree("virtio_net", &[], "0", "IO-APIC")), both(HowKnown::DeviceName));
    assert_eq!(how(&read_tree("igb", &[], "0", "PCI-MSI")), both(HowKnown::NameOnly));
}

/// `/dev/null` over it is how container runtimes mask it.
#[test]
fn an_empty_table_of_interrupts_is_a_doubt_and_no_table_is_none_of_a_virtual_interface_s_business() {
    let dir = tempfile::tempdir().unwrap();
    let files = KernelFiles::open(dir.path()).unwrap();
    let virtual_interface = Nic { device: None, ..device_nic("", "", 1, 1) };
    assert_eq!(read_map(&files, &virtual_interface).unwrap(), QueueIrqs::default());
    std::fs::create_dir(dir.path().join("proc")).unwrap();
    std::fs::write(dir.path().join("proc/interrupts"), "").unwrap();
    let masked = read_map(&files, &device_nic("igb", "", 1, 1)).unwrap();
    let doubt = masked.doubt.unwrap();
    assert!(doubt.contains("/proc/interrupts is empty here") && doubt.contains("on the host"), "{doubt}");
    let netvsc = read_map(&files, &device_nic("hv_netvsc", "", 1, 1)).unwrap();
    assert!(netvsc.doubt.unwrap().contains("VMBus"));
}
