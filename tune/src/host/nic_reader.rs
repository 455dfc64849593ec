//! Reading several interfaces of one host: what they share is read once.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::{
    Ethtool, HostError, InterfaceName, Interrupts, IrqState, Netdev, Nic, NicHost, QueueIrqs, Sriov, ToldMap,
};
use crate::kernel_files::KernelFiles;

/// Reads interfaces; `/proc/interrupts`, which is megabytes on a large host, once for all of them.
pub struct NicReader<'a> {
    files: &'a KernelFiles,
    told: ToldMap,
    interrupts: OnceCell<Interrupts>,
}

impl<'a> NicReader<'a> {
    /// `told` is what the user says of the queue map of each interface that is read, which should then be
    /// one.
    #[must_use]
    pub fn new(files: &'a KernelFiles, told: ToldMap) -> Self {
        Self { files, told, interrupts: OnceCell::new() }
    }

    /// Reads one interface and its interrupts.
    ///
    /// # Errors
    /// As [`Host::read`](super::Host::read).
    pub fn read(&self, name: &InterfaceName) -> Result<NicHost, HostError> {
        let nic = Nic::read(self.files, name)?;
        let ethtool = Ethtool::read(self.files, name)?;
        let netdev = Netdev::read(self.files, name)?;
        let queue_irqs = QueueIrqs::read(self.files, &nic, &netdev, &self.told, || self.interrupts())?;
        let mut irqs = BTreeMap::new();
        for row in &queue_irqs.rows {
            irqs.insert(row.irq, IrqState::read(self.files, row.irq)?);
        }
        let sriov = Sriov::read(self.files, nic.device.as_ref())?;
        Ok(NicHost { nic, ethtool, netdev, queue_irqs, irqs, sriov })
    }

    fn interrupts(&self) -> Result<&Interrupts, HostError> {
        if let Some(read) = self.interrupts.get() {
            return Ok(read);
        }
        let read = Interrupts::read(self.files)?;
        Ok(self.interrupts.get_or_init(|| read))
    }
}
