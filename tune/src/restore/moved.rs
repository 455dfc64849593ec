//! Where an interrupt's affinity goes back to: a number may be another queue's or another device's since.

use crate::host::{HostError, InterruptRow, Interrupts, Irq, irq_owner};
use crate::journal::{Entry, Owner};
use crate::kernel_files::KernelFiles;
use crate::setting::Setting;

/// Where a value goes back to.
pub(super) enum Place {
    /// To this setting.
    At(Setting),
    /// Nowhere, and why.
    Gone(String),
}

/// The place of an entry. Channels that were changed and put back may leave a queue's interrupt with another
/// number; it is found by its handler's name among those of its device. Where the kernel does not say whose
/// an interrupt is, the handler's name does; without a handler it is still taken for the same one.
pub(super) fn place(
    files: &KernelFiles,
    setting: Setting,
    entry: &Entry,
    interrupts: &Interrupts,
) -> Result<Place, HostError> {
    let (Setting::IrqAffinity(irq), Some(Owner::Interrupt { name, device })) = (&setting, &entry.owner)
    else {
        return Ok(Place::At(setting));
    };
    let irq = *irq;
    let exists = files.exists(&setting.path());
    let row = interrupts.row(irq);
    let names: Vec<&str> = row.map(|row| row.actions().collect()).unwrap_or_default();
    let same_name = names.contains(&name.as_str());
    let owned = |irq: Irq, row| match device.as_str() {
        "" => Ok(None),
        device => irq_owner::belongs_to(files, irq, row, device),
    };
    let same_device = exists && owned(irq, row)?.unwrap_or(same_name || names.is_empty());
    if same_device && same_name {
        return Ok(Place::At(setting));
    }
    let mut elsewhere = Vec::new();
    for row in
        interrupts.rows.iter().filter(|row| row.irq != irq && row.actions().any(|action| action == name))
    {
        if owned(row.irq, Some(row))?.unwrap_or(device.is_empty())
            && files.exists(&Setting::IrqAffinity(row.irq).path())
        {
            elsewhere.push(row);
        }
    }
    match elsewhere.as_slice() {
        [InterruptRow { irq, .. }] => return Ok(Place::At(Setting::IrqAffinity(*irq))),
        _ if !exists => return Ok(Place::At(setting)),
        _ => {}
    }
    let other_queue = names.iter().any(|now| is_another_queue(name, now));
    if same_device && !other_queue {
        return Ok(Place::At(setting));
    }
    let now = if names.is_empty() { "that of another device".to_owned() } else { names.join(", ") };
    Ok(Place::Gone(format!("IRQ {irq} is {now} now, not {name} any more; left as it is")))
}

/// True of `eth0-TxRx-1` and `eth0-TxRx-9`, false of `eth0-TxRx-1` and `lan0-TxRx-1`: a driver names handlers
/// after the interface, and this one was renamed. What comes after `@` is the device
/// (`mlx5_comp1@pci:0000:3b:00.0`).
fn is_another_queue(was: &str, now: &str) -> bool {
    let stem = |name: &str| {
        let (name, device) = name.split_once('@').unwrap_or((name, ""));
        (name.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned(), device.to_owned())
    };
    was != now && stem(was) == stem(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_is_another_queue_and_another_prefix_another_name() {
        assert!(is_another_queue("eth0-TxRx-1", "eth0-TxRx-9"));
        assert!(!is_another_queue("eth0-TxRx-1", "lan0-TxRx-1"));
        assert!(!is_another_queue("eth0-TxRx-1", "eth0-TxRx-1"));
        assert!(is_another_queue("mlx5_comp1@pci:0000:3b:00.0", "mlx5_comp2@pci:0000:3b:00.0"));
        assert!(!is_another_queue("mlx5_comp1@pci:0000:3b:00.0", "mlx5_comp1@pci:0000:3b:00.1"));
    }
}
