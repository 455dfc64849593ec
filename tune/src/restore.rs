//! `restore`: journal -> kernel. Also how `apply` undoes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::host::{HostError, Interrupts};
use crate::journal::{Entry, Journal, JournalError, Loaded, State};
use crate::kernel_files::{KernelFileError, KernelFiles};
use crate::netns;
use crate::setting::{ChangeText, Setting, Value, ValueError};

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    /// Values that were written back; `before` is what was found, `after` what was restored.
    pub written: Vec<ChangeText>,
    /// Files that held their old value already.
    pub unchanged: usize,
    /// Files and interrupts that do not exist any more, with the reason.
    pub gone: Vec<String>,
    /// Values that could not be written back, with the error.
    pub failed: Vec<String>,
    /// The journal was of another boot and is removed.
    pub other_boot: bool,
    /// The journal, if it is still there: as long as anything failed.
    pub journal: Option<PathBuf>,
}

/// Why nothing could be restored at all.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// `/proc/interrupts`, or the interfaces.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Writes back what the journal holds, last written first. What does not exist any more is listed and does not stop
/// the rest. The journal is removed when nothing failed.
///
/// # Errors
/// If the journal cannot be read or removed, or `/sys` is that of another network namespace. Values that could not be written are in [`Restored::failed`].
pub fn restore(files: &KernelFiles, state: &State) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    match state.load()? {
        Loaded::Nothing => {}
        Loaded::OtherBoot => restored.other_boot = true,
        Loaded::Journal(journal) => put_back_all(files, &journal, &mut restored)?,
    }
    if restored.failed.is_empty() {
        state.remove()?;
    } else {
        restored.journal = Some(state.journal_path());
    }
    Ok(restored)
}

fn put_back_all(files: &KernelFiles, journal: &Journal, restored: &mut Restored) -> Result<(), HostError> {
    // A container may mask it, which is no reason to keep what is not an interrupt's.
    let has_interrupts = journal.entries.iter().any(|entry| entry.interrupt.is_some());
    let interrupts = if has_interrupts { Interrupts::read(files)? } else { Interrupts::default() };
    let mut entries = Vec::new();
    for entry in &journal.entries {
        match Setting::from_path(&entry.path) {
            Some(setting) => entries.push((setting, entry)),
            None => restored.failed.push(format!("{} is no file that tune sets", entry.path)),
        }
    }
    let interfaces: BTreeSet<_> = entries.iter().filter_map(|(setting, _)| setting.interface()).collect();
    interfaces.into_iter().try_for_each(|interface| netns::check_sysfs(files, interface))?;
    entries.sort_by(|(a, _), (b, _)| b.cmp(a));
    for (setting, entry) in entries {
        if let Some(reason) = of_another_device(&setting, entry, &interrupts) {
            restored.gone.push(reason);
            continue;
        }
        match put_back(files, &setting, &entry.before) {
            Ok(PutBack::Written { found }) => restored.written.push(ChangeText {
                path: entry.path.clone(),
                before: found,
                after: setting.parse(&entry.before).map_or_else(|_| entry.before.clone(), |v| v.to_string()),
            }),
            Ok(PutBack::Unchanged) => restored.unchanged += 1,
            Ok(PutBack::Gone) => restored.gone.push(format!("{} does not exist any more", entry.path)),
            Err(error) => restored.failed.push(error.to_string()),
        }
    }
    Ok(())
}

/// Why an interrupt's affinity must not be written back: its number belongs to another handler now.
fn of_another_device(setting: &Setting, entry: &Entry, interrupts: &Interrupts) -> Option<String> {
    let (Setting::IrqAffinity(irq), Some(name)) = (setting, &entry.interrupt) else { return None };
    let names: Vec<&str> = interrupts.row(*irq)?.actions().collect();
    if names.is_empty() || names.contains(&name.as_str()) {
        return None;
    }
    Some(format!("IRQ {irq} is {} now, not {name} any more; left as it is", names.join(", ")))
}

/// What became of one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PutBack {
    /// Its old value was written and read back.
    Written {
        /// What it held.
        found: String,
    },
    /// It held the old value.
    Unchanged,
    /// It does not exist any more.
    Gone,
}

/// Why a value was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Reading or writing failed.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// The file's text has another form.
    #[error(transparent)]
    Text(#[from] ValueError),
    /// The kernel took the value and holds another.
    #[error("write \"{written}\" to {path}: it reads back \"{found}\"")]
    ReadBack {
        /// The kernel path.
        path: String,
        /// What was written.
        written: String,
        /// What it holds.
        found: Value,
    },
}

/// Writes a value and reads it back.
pub(crate) fn set(files: &KernelFiles, setting: &Setting, text: &str) -> Result<(), SetError> {
    let path = setting.path();
    files.write_existing(&path, text)?;
    let found = setting.parse(&files.read(&path)?)?;
    if found == setting.parse(text)? {
        return Ok(());
    }
    Err(SetError::ReadBack { path, written: text.to_owned(), found })
}

/// Writes an old value unless the file holds it.
pub(crate) fn put_back(files: &KernelFiles, setting: &Setting, before: &str) -> Result<PutBack, SetError> {
    let Some(text) = files.read_optional(&setting.path())? else { return Ok(PutBack::Gone) };
    let wanted = setting.parse(before)?;
    // A text that cannot be read as a value is not the old one either, and no reason to leave it there.
    let found = setting.parse(&text).ok();
    if found.as_ref() == Some(&wanted) {
        return Ok(PutBack::Unchanged);
    }
    set(files, setting, before)?;
    Ok(PutBack::Written { found: found.map_or(text, |value| value.to_string()) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
        Entry { path: path.into(), before: before.into(), interrupt: interrupt.map(Into::into) }
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
                "/proc/irq/42/smp_affinity_list does not exist any more",
                "IRQ 41 is nvme0q1 now, not eth0-TxRx-1 any more; left as it is"
            ]
        );
        assert!(restored.failed.is_empty() && restored.journal.is_none());
        let affinity =
            |irq| fs::read_to_string(dir.path().join(format!("proc/irq/{irq}/smp_affinity_list"))).unwrap();
        assert_eq!((affinity(40).as_str(), affinity(41).as_str()), ("0-1\n", "1\n"));
        assert_eq!(state.load().unwrap(), Loaded::Nothing);
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
        assert_eq!(put_back, PutBack::Written { found: "1 47".into() });
        assert_eq!(fs::read_to_string(&file).unwrap(), "0\n");
    }
}
