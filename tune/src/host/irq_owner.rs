//! Whether an interrupt is still of the device that it was of. Its number may have been given to another
//! device since, and its handler's name changes when the interface is renamed, or is gone while the interface
//! is down.

use super::{HostError, InterruptRow, Irq};
use crate::kernel_files::KernelFiles;

/// Whether the interrupt belongs to the device at this path, as [`Device::interrupt_directory`] gave it;
/// `None` where the kernel does not say.
///
/// # Errors
/// If a file of the device exists and cannot be read.
///
/// [`Device::interrupt_directory`]: super::nic::Device::interrupt_directory
pub fn belongs_to(
    files: &KernelFiles,
    irq: Irq,
    row: Option<&InterruptRow>,
    device: &str,
) -> Result<Option<bool>, HostError> {
    let number = irq.to_string();
    let vectors = files.list_optional(&format!("{device}/msi_irqs"))?.unwrap_or_default();
    if vectors.contains(&number) {
        return Ok(Some(true));
    }
    if let Some(pci) = row.and_then(InterruptRow::pci) {
        return Ok(Some(device.ends_with(&format!("/{pci}"))));
    }
    if files.read_optional(&format!("{device}/irq"))?.is_some_and(|text| text.trim() == number) {
        return Ok(Some(true));
    }
    Ok(if vectors.is_empty() { None } else { Some(false) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Interrupts;

    #[test]
    fn vectors_then_the_chip_then_the_irq_file_say_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let make = |device: &str, vectors: &[u32], irq: &str| {
            let device = dir.path().join("sys/devices").join(device);
            std::fs::create_dir_all(device.join("msi_irqs")).unwrap();
            vectors.iter().for_each(|vector| {
                std::fs::write(device.join(format!("msi_irqs/{vector}")), "msix\n").unwrap();
            });
            std::fs::write(device.join("irq"), irq).unwrap();
        };
        make("0000:3b:00.0", &[40], "0\n");
        make("0000:3b:00.1", &[], "42\n");
        let text = "CPU0\n 40: 1 PCI-MSIX 0-edge  a\n 41: 1 PCI-MSIX-0000:3B:00.1 0-edge  b\n 42: 1 IO-APIC \
                    9-edge  c\n";
        let interrupts = Interrupts::parse(text).unwrap();
        let files = KernelFiles::open(dir.path()).unwrap();
        let says = |irq, device| {
            let device = format!("/sys/devices/{device}");
            belongs_to(&files, Irq(irq), interrupts.row(Irq(irq)), &device).unwrap()
        };
        assert_eq!([40, 41, 42].map(|irq| says(irq, "0000:3b:00.0")), [Some(true), Some(false), Some(false)]);
        assert_eq!([40, 41, 42].map(|irq| says(irq, "0000:3b:00.1")), [None, Some(true), Some(true)]);
        assert_eq!(says(40, "gone"), None);
    }
}
