//! `/proc/interrupts`: per interrupt its chip and the names of its handlers.
//!
//! After the counts of the CPUs in the head line the rest of a line is free text: the chip's name may hold
//! spaces (`Hyper-V PCIe MSI 4138200989697-edge`), so nothing is found by counting columns there. The
//! handlers' names follow the trigger, with `, ` between them (`show_interrupts()` in `kernel/irq/proc.c`):
//! `Edge` or `Level` on some architectures, and the flow's name behind the hardware number and a hyphen
//! (`1-edge`, `9-fasteoi`; Xen has `-event` without a number), or both. Without a handler, as after `ifdown`,
//! the line ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::str::Lines;

use super::{HostError, Irq, PciAddress};
use crate::cpu_set::Cpu;
use crate::kernel_files::KernelFiles;

const PATH: &str = "/proc/interrupts";

/// The table of `/proc/interrupts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// The lines of numbered interrupts in the kernel's order; those of the architecture (`NMI`, `LOC`) are
    /// left out.
    pub rows: Vec<InterruptRow>,
}

/// One line of `/proc/interrupts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterruptRow {
    /// Its number.
    pub irq: Irq,
    /// Chip, hardware number, flow type and handlers, as printed.
    pub description: String,
}

impl InterruptRow {
    /// The PCI function in the chip's name (`PCI-MSIX-0000:00:03.0`), which newer kernels print.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        let (chip, _) = next_word(&self.description)?;
        chip.rsplit_once('-')?.1.parse().ok()
    }

    /// The names of the handlers; several where an interrupt is shared, none where nobody has asked for it.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        after_trigger(&self.description).split(", ").map(str::trim).filter(|name| !name.is_empty())
    }
}

impl Interrupts {
    /// Reads `/proc/interrupts`.
    ///
    /// # Errors
    /// If it cannot be read or has no head line; [`HostError::NoInterrupts`] if it is empty.
    pub fn read(files: &KernelFiles) -> Result<Self, HostError> {
        Self::parse(&text(files)?).map_err(|reason| HostError::text(PATH, &reason))
    }

    /// Reads how often these interrupts have fired, by CPU.
    ///
    /// # Errors
    /// As [`Interrupts::read`].
    pub fn read_counts(
        files: &KernelFiles,
        irqs: &BTreeSet<Irq>,
    ) -> Result<BTreeMap<Irq, BTreeMap<Cpu, u64>>, HostError> {
        Self::counts(&text(files)?, irqs).map_err(|reason| HostError::text(PATH, &reason))
    }

    /// Parses the text of `/proc/interrupts`.
    ///
    /// # Errors
    /// If the head line does not name CPUs.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (cpus, lines) = parse_head(text)?;
        let rows = lines.filter_map(|line| parse_row(line, cpus.len())).collect();
        Ok(Self { rows })
    }

    /// How often these interrupts have fired, by CPU: those that are in the text of `/proc/interrupts`.
    ///
    /// # Errors
    /// As [`Interrupts::parse`].
    pub fn counts(text: &str, irqs: &BTreeSet<Irq>) -> Result<BTreeMap<Irq, BTreeMap<Cpu, u64>>, String> {
        let (cpus, lines) = parse_head(text)?;
        let row = |line: &str| {
            let (label, rest) = line.split_once(':')?;
            let irq = label.trim().parse().ok().filter(|irq| irqs.contains(irq))?;
            let counts = rest.split_whitespace().map_while(|word| word.parse().ok());
            Some((irq, cpus.iter().copied().zip(counts).collect()))
        };
        Ok(lines.filter_map(row).collect())
    }

    /// The line of an interrupt.
    #[must_use]
    pub fn row(&self, irq: Irq) -> Option<&InterruptRow> {
        self.rows.iter().find(|row| row.irq == irq)
    }
}

fn text(files: &KernelFiles) -> Result<String, HostError> {
    let text = files.read(PATH)?;
    if text.is_empty() { Err(HostError::NoInterrupts) } else { Ok(text) }
}

/// The CPUs in the head line, of which those that are online have a column, and the lines after it.
fn parse_head(text: &str) -> Result<(Vec<Cpu>, Lines<'_>), String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let cpu = |word: &str| word.strip_prefix("CPU")?.parse().ok();
    let cpus: Option<Vec<Cpu>> = head.split_whitespace().map(cpu).collect();
    let cpus = cpus.filter(|cpus| !cpus.is_empty());
    Ok((cpus.ok_or_else(|| format!("head line \"{}\" names no CPUs", head.trim()))?, lines))
}

/// What follows the trigger. On a line without any (an 8259's) it is what follows the last two spaces, unless
/// that is the hardware number.
fn after_trigger(description: &str) -> &str {
    let mut rest = description;
    while let Some((word, after)) = next_word(rest) {
        rest = after;
        if is_flow(word) {
            return rest;
        }
        if matches!(word, "Edge" | "Level") {
            return next_word(rest).filter(|(word, _)| is_flow(word)).map_or(rest, |(_, after)| after);
        }
    }
    let (_, last) = description.rsplit_once("  ").unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) { "" } else { last }
}

/// `1-edge`, `-event`: the hardware number, which may be missing, and the flow's name.
fn is_flow(word: &str) -> bool {
    let (number, name) = word.split_once('-').unwrap_or_default();
    number.bytes().all(|byte| byte.is_ascii_digit())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// The first word and what follows it.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A number, a colon, at most `columns` counts, and the rest.
fn parse_row(line: &str, columns: usize) -> Option<InterruptRow> {
    let (label, rest) = line.split_once(':')?;
    let irq = label.trim().parse().ok()?;
    // Bytes, since on a large host this is most of what is read: half a million counts.
    let bytes = rest.as_bytes();
    let run = |from: usize, of: fn(&u8) -> bool| bytes[from..].iter().take_while(|byte| of(byte)).count();
    let mut end = 0;
    for _ in 0..columns {
        let first = end + run(end, u8::is_ascii_whitespace);
        let last = first + run(first, u8::is_ascii_digit);
        let is_count = last > first && bytes.get(last).is_none_or(u8::is_ascii_whitespace);
        if !is_count {
            break;
        }
        end = last;
    }
    let rest = &rest[end..];
    Some(InterruptRow { irq, description: rest.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn actions(row: &InterruptRow) -> Vec<&str> {
        row.actions().collect()
    }

    #[test]
    fn lines_of_several_chips() {
        let text = "           CPU0       CPU2
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
 38:          3        969 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 40:          5          6  Hyper-V PCIe MSI 4138200989697-edge      mana_q0@pci:7870:00:00.0
 41:          5          6  ITS-MSI 524289 Edge      eth0-TxRx-1
 42:          5          6  GICv3  79 Level     i801_smbus, ahci[0000:00:1f.2], a name
NMI:          0          0   Non-maskable interrupts
ERR:          7
MIS:          0
";
        let interrupts = Interrupts::parse(text).unwrap();
        let virtio = interrupts.row(Irq(38)).unwrap(); // CPU 1 is offline and has no column
        assert_eq!(virtio.description, "PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0");
        assert_eq!(actions(virtio), ["virtio2-input.0"]);
        assert_eq!(actions(interrupts.row(Irq(40)).unwrap()), ["mana_q0@pci:7870:00:00.0"]);
        assert_eq!(actions(interrupts.row(Irq(41)).unwrap()), ["eth0-TxRx-1"]);
        assert_eq!(actions(interrupts.row(Irq(42)).unwrap()), ["i801_smbus", "ahci[0000:00:1f.2]", "a name"]);
        assert_eq!(interrupts.rows.len(), 5, "NMI, ERR and MIS have no number");
    }

    #[test]
    fn counts_are_those_of_the_cpus_in_the_head_line() {
        let text = "           CPU0       CPU2\n 38:  3   969  PCI-MSIX-0000:00:03.0   1-edge  x\n\
                    39: 1 2 IO-APIC 9-edge y\n 40: 7\nNMI: 4 4\n";
        let counts = Interrupts::counts(text, &[Irq(38), Irq(40), Irq(99)].into()).unwrap();
        let expected = [(Irq(38), [(0, 3), (2, 969)].into()), (Irq(40), [(0, 7)].into())];
        assert_eq!(counts, BTreeMap::from(expected));
        assert!(Interrupts::counts("", &BTreeSet::new()).is_err());
    }

    #[test]
    fn single_spaces_before_the_name_are_enough() {
        let interrupts = Interrupts::parse("CPU0\n 1: 5 PCI-MSI 1-edge eth0-TxRx-0\n").unwrap();
        assert_eq!(actions(&interrupts.rows[0]), ["eth0-TxRx-0"]);
    }

    #[test]
    fn a_handler_is_what_follows_the_trigger_and_there_may_be_none() {
        for (description, expected) in [
            ("PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0", &["virtio2-input.0"][..]),
            ("PCI-MSIX-0000:00:03.0   1-edge    ", &[]),
            ("IO-APIC   9-fasteoi   acpi", &["acpi"]),
            ("IO-APIC   9-fasteoi ", &[]),
            (
                "Hyper-V PCIe MSI 4138200989697-edge      mana_q0@pci:7870:00:00.0",
                &["mana_q0@pci:7870:00:00.0"],
            ),
            ("Hyper-V PCIe MSI 4138200989697-edge    ", &[]),
            ("ITS-PCI-MSIX-0000:01:00.0   3 Edge      eth0-TxRx-3", &["eth0-TxRx-3"]),
            ("ITS-PCI-MSIX-0000:01:00.0   3 Edge    ", &[]),
            (
                "GICv3  79 Level   -fasteoi   i801_smbus, ahci[0000:00:1f.2]",
                &["i801_smbus", "ahci[0000:00:1f.2]"],
            ),
            ("GICv3  79 Level   -fasteoi ", &[]),
            ("xen-dyn    -event     eth0-q0-tx", &["eth0-q0-tx"]),
            ("xen-pirq    -msi-x     eth0-TxRx-0", &["eth0-TxRx-0"]),
            ("xen-dyn    -event   ", &[]),
            ("XT-PIC   2  cascade", &["cascade"]),
            ("XT-PIC   2", &[]),
            ("None", &[]),
        ] {
            let text = format!("CPU0 CPU1\n 38: 5 6 {description}\n");
            let interrupts = Interrupts::parse(&text).unwrap();
            assert_eq!(actions(&interrupts.rows[0]), expected, "{description}");
        }
    }

    /// As the kernel prints it for the largest hosts, and a chip whose name has spaces beside that.
    #[test]
    fn a_table_as_wide_as_1152_cpus() {
        let head: String = (0..1152).map(|cpu| format!("{:<11}", format!("CPU{cpu}"))).collect();
        let counts = |count: u64| format!("{count:>10} ").repeat(1152);
        let text = format!(
            "      {head}\n 1189: {}IR-PCI-MSIX-0000:c3:00.1  188-edge      i40e-enp195s0f1-TxRx-187\n\
             40: {}Hyper-V PCIe MSI 4138200989697-edge      mana_q0@pci:7870:00:00.0\nERR: {}\n",
            counts(u64::MAX),
            counts(0),
            counts(7)
        );
        let interrupts = Interrupts::parse(&text).unwrap();
        assert_eq!(interrupts.rows.len(), 2);
        let wide = interrupts.row(Irq(1189)).unwrap();
        assert_eq!(actions(wide), ["i40e-enp195s0f1-TxRx-187"]);
        assert_eq!(wide.pci().unwrap().as_str(), "0000:c3:00.1");
        assert_eq!(actions(interrupts.row(Irq(40)).unwrap()), ["mana_q0@pci:7870:00:00.0"]);
    }

    #[test]
    fn a_head_line_is_needed() {
        assert!(Interrupts::parse("").is_err());
        assert!(Interrupts::parse(" 24: 1 2 x\n").is_err());
        assert!(Interrupts::parse("CPU0 CPUs\n").is_err());
    }

    proptest! {
        #[test]
        fn names_and_numbers_come_back(
            cpus in prop::collection::btree_set(0..1152u32, 1..400),
            counts in prop::collection::vec(any::<u64>(), 400),
            irq in 0..100_000u32,
            chip in "[A-Za-z][A-Za-z-]{0,12}( [A-Z][A-Za-z]{0,5}){0,3}",
            name in "[a-z][a-z0-9@:.-]{0,30}",
        ) {
            let counts = &counts[..cpus.len()];
            let mut text: String = cpus.iter().map(|cpu| format!("       CPU{cpu}")).collect();
            text.push_str(&format!("\n {irq}:"));
            counts.iter().for_each(|count| text.push_str(&format!(" {count:>10}")));
            text.push_str(&format!(" {chip} {irq}-edge      {name}\n"));
            let interrupts = Interrupts::parse(&text).unwrap();
            let row = interrupts.row(Irq(irq)).unwrap();
            prop_assert_eq!(actions(row), [name.as_str()]);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(CPU[0-9]{1,5} ?){0,3}\n[ a-z0-9:,.-]{0,60}\n\\PC{0,30}") {
            if let Ok(interrupts) = Interrupts::parse(&text) {
                interrupts.rows.iter().for_each(|row| { let _ = row.actions().count(); });
            }
        }
    }
}
