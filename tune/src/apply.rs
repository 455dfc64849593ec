//! `apply`: changes -> kernel, as a transaction.
//!
//! Preflight (every file exists and can be written, every value is possible), journal, then the writes in the
//! order of [`Setting`], each read back, then a last look at the whole. The first failure undoes what was
//! written, in reverse order, and the error tells what could not be undone.

use std::collections::BTreeMap;
use std::fmt;

use crate::host::{Host, HostError, Topology, irq_owner};
use crate::journal::{Entry, Journal, JournalError, Loaded, Owner, State};
use crate::kernel_files::KernelFiles;
use crate::netns::{self, Links};
use crate::restore::{Restored, SetError, follow, set};
use crate::setting::{Change, Setting, Value};
use crate::setting_io;

/// Why a profile was not applied. Unless it says so ([`ApplyError::needs_restore`]), nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A file or a value is not possible; nothing was written.
    #[error("{first}{rest}; nothing was written", rest = and_more(.others))]
    Preflight {
        /// The first problem.
        first: String,
        /// How many more there are.
        others: usize,
    },
    /// The interfaces could not be listed.
    #[error("nothing was written")]
    Host(#[from] HostError),
    /// The journal could not be written; nothing else was.
    #[error("nothing was written to the kernel")]
    Journal(#[from] JournalError),
    /// A write failed, or the host did not hold the values afterwards.
    #[error("{cause}; {undo}")]
    Undone {
        /// The failure.
        cause: String,
        /// What became of the values that were written before.
        undo: Undo,
    },
    /// Where the rest is to be kept: the host cannot be read or planned any more.
    #[error("{cause}; {written} values were set before, and are kept")]
    CutShort {
        /// The failure.
        cause: String,
        /// How many.
        written: usize,
    },
}

impl ApplyError {
    /// What went wrong, without what became of the host.
    fn cause(&self) -> String {
        match self {
            Self::Preflight { first, others } => format!("{first}{}", and_more(others)),
            Self::Host(error) => error.to_string(),
            other => other.to_string(),
        }
    }

    /// True if some of the apply is left, and the journal with it: what a restore is for.
    #[must_use]
    pub fn needs_restore(&self) -> bool {
        match self {
            Self::Undone { undo, .. } => !undo.is_complete(),
            Self::CutShort { .. } => true,
            _ => false,
        }
    }
}

fn and_more(count: &usize) -> String {
    if *count == 0 { String::new() } else { format!(" (and {count} more)") }
}

/// How far a failed apply was undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undo {
    /// Values that are as they were before.
    pub restored: usize,
    /// What vanished meanwhile, and its value with it.
    pub gone: Vec<String>,
    /// Values that could not be put back, with the error.
    pub failures: Vec<String>,
}

impl Undo {
    /// True if nothing of the apply is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            match self.restored {
                1 => f.write_str("undone, 1 value is as before")?,
                restored => write!(f, "undone, {restored} values are as before")?,
            }
        } else {
            let failures = self.failures.join("; ");
            write!(f, "NOT wholly undone: {failures}; the journal is kept")?;
        }
        self.gone.iter().try_for_each(|gone| write!(f, "; {gone}"))
    }
}

/// A change that passed the preflight.
pub(crate) struct Step<'a> {
    change: &'a Change,
    entry: Entry,
}

/// Changes that are made and undone together, in one stage or in several: what is set by ethtool first, and
/// the rest when it is known what became of queues and interrupts.
pub struct Transaction<'a> {
    files: &'a KernelFiles,
    state: &'a State,
    /// The journal that was there before.
    previous: Option<Journal>,
    journal: Journal,
    /// A journal of another boot was there.
    pub(crate) replaced_journal: bool,
    /// What was tried in each stage, and what the driver may have overwritten meanwhile.
    tried: Vec<Vec<Entry>>,
    /// What was written.
    pub(crate) written: Vec<Change>,
    /// What the driver turned out not to have, with the error.
    pub(crate) unsupported: BTreeMap<Setting, String>,
}

impl<'a> Transaction<'a> {
    /// Nothing is written yet.
    ///
    /// # Errors
    /// If there is a journal that cannot be used.
    pub fn begin(files: &'a KernelFiles, state: &'a State) -> Result<Self, ApplyError> {
        let (previous, replaced_journal) = match state.load()? {
            Loaded::Journal(journal) => (Some(journal), false),
            Loaded::Nothing => (None, false),
            Loaded::OtherBoot => (None, true),
        };
        let journal = previous.clone().unwrap_or_else(|| state.journal(Vec::new()));
        let (tried, written, unsupported) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { files, state, previous, journal, replaced_journal, tried, written, unsupported })
    }

    /// Writes changes that were planned on `host`, in this order, and keeps beside their old values those of
    /// what the driver may overwrite. A driver may say that it has a thing and refuse to set it (EOPNOTSUPP):
    /// what is not `required` is then noted in `unsupported`, and the rest goes on.
    ///
    /// # Errors
    /// If anything fails; this stage and those before it are then undone as far as the kernel allows.
    pub fn write(
        &mut self,
        host: &Host,
        changes: &[Change],
        overwritten: &[Setting],
        required: impl Fn(&Setting) -> bool,
    ) -> Result<(), ApplyError> {
        let (steps, links) = match preflight(self.files, host, changes) {
            Err(error) if !self.tried.is_empty() => return Err(self.fail(error.cause())),
            checked => checked?,
        };
        let kept = entries_of(self.files, host, &links, overwritten);
        let entries = steps.iter().map(|step| &step.entry).chain(&kept);
        self.journal = self.journal.clone().extended(entries.cloned().collect(), &links);
        if let Err(error) = self.state.store(&self.journal) {
            return Err(if self.tried.is_empty() { error.into() } else { self.fail(error.to_string()) });
        }
        let mut tried = kept;
        let mut result = Ok(());
        for Step { change, entry } in steps {
            tried.push(entry);
            match set(self.files, &change.setting, &change.after.to_string()) {
                Ok(()) => self.written.push(change.clone()),
                Err(SetError::Access(error)) if error.is_unsupported() && !required(&change.setting) => {
                    self.unsupported.insert(change.setting.clone(), error.to_string());
                }
                Err(error) => {
                    result = Err(error.to_string());
                    break;
                }
            }
        }
        self.tried.push(tried);
        result.map_err(|cause| self.fail(cause))
    }

    /// Undoes everything, for this reason. What the failed write may have left is looked at too.
    pub(crate) fn fail(&mut self, cause: String) -> ApplyError {
        // Of two stages the first found what was there before, as of two runs.
        let tried = std::mem::take(&mut self.tried).into_iter();
        let tried =
            tried.fold(self.state.journal(Vec::new()), |all, stage| all.extended(stage, &Links::new()));
        let mut restored = Restored::default();
        if let Err(error) = follow(self.files, &tried.entries, &mut restored) {
            restored.failed.push(error.to_string());
        }
        let mut undo = Undo {
            restored: restored.written.len() + restored.unchanged,
            gone: restored.gone,
            failures: restored.failed,
        };
        if undo.is_complete()
            && let Err(error) = put_journal_back(self.state, self.previous.take())
        {
            undo.failures.push(error.to_string());
        }
        ApplyError::Undone { cause, undo }
    }
}

/// Checks every change without writing, and reads what the journal must hold, the interfaces among it.
pub(crate) fn preflight<'a>(
    files: &KernelFiles,
    host: &Host,
    changes: &'a [Change],
) -> Result<(Vec<Step<'a>>, Links), ApplyError> {
    let links = netns::links(files)?;
    let mut steps = Vec::with_capacity(changes.len());
    let mut problems = Vec::new();
    for change in changes {
        match check(files, host, &links, change) {
            Ok(entry) => steps.push(Step { change, entry }),
            Err(problem) => problems.push(problem),
        }
    }
    match problems.split_first() {
        None => Ok((steps, links)),
        Some((first, others)) => Err(ApplyError::Preflight { first: first.clone(), others: others.len() }),
    }
}

/// What the journal must hold of settings that a driver may overwrite. What cannot be read cannot be put back
/// either.
pub(crate) fn entries_of(
    files: &KernelFiles,
    host: &Host,
    links: &Links,
    settings: &[Setting],
) -> Vec<Entry> {
    let entry = |setting: &Setting| {
        let before = setting_io::read_optional(files, setting).ok()??;
        Some(Entry { path: setting.path(), before, owner: owner(files, host, links, setting) })
    };
    settings.iter().filter_map(entry).collect()
}

/// Checks one change without writing, and reads what the journal must hold.
pub(crate) fn check(
    files: &KernelFiles,
    host: &Host,
    links: &Links,
    change: &Change,
) -> Result<Entry, String> {
    let path = change.setting.path();
    check_value(change, &host.topology)?;
    setting_io::check_writable(files, &change.setting).map_err(|error| error.to_string())?;
    let text = setting_io::read(files, &change.setting).map_err(|error| error.to_string())?;
    let found = change.setting.parse(&text).map_err(|error| error.to_string())?;
    if found != change.before {
        return Err(format!("{path} changed from \"{}\" to \"{found}\" meanwhile; run again", change.before));
    }
    let before = setting_io::journal_text(files, change, text).map_err(|error| error.to_string())?;
    Ok(Entry { path, before, owner: owner(files, host, links, &change.setting) })
}

fn owner(files: &KernelFiles, host: &Host, links: &Links, setting: &Setting) -> Option<Owner> {
    if let Setting::IrqAffinity(irq) = setting {
        return host.nics.iter().find_map(|on| {
            let row = on.queue_irqs.rows.iter().find(|row| row.irq == *irq)?;
            let device = on.nic.device.as_ref()?.interrupt_directory();
            // One interface may stand on two functions of a card, and netlink says whose interrupts it has.
            let is_other = irq_owner::belongs_to(files, *irq, None, device).ok()? == Some(false);
            let device = if is_other { String::new() } else { device.to_owned() };
            Some(Owner::Interrupt { name: row.name.clone(), device })
        });
    }
    links.get(&setting.interface()?).cloned().map(Owner::Interface)
}

/// CPUs must be online, which also keeps masks below `nr_cpu_ids`; an interrupt must have one.
fn check_value(change: &Change, topology: &Topology) -> Result<(), String> {
    let Some(cpus) = change.after.cpus() else { return Ok(()) };
    let offline = cpus.difference(&topology.online);
    if !offline.is_empty() {
        return Err(format!(
            "{}: CPUs {offline} are not online; online are {}",
            change.setting.path(),
            topology.online
        ));
    }
    if cpus.is_empty() && matches!(change.after, Value::List(_)) {
        return Err(format!("{}: an interrupt needs a CPU", change.setting.path()));
    }
    Ok(())
}

fn put_journal_back(state: &State, previous: Option<Journal>) -> Result<(), JournalError> {
    match previous {
        Some(journal) => state.store(&journal),
        None => state.remove(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::nic_host;
    use crate::host::{Irq, QueueIndex};

    fn affinity(cpus: &str) -> Change {
        Change {
            setting: Setting::IrqAffinity(Irq(40)),
            before: Value::List("0".parse().unwrap()),
            after: Value::List(cpus.parse().unwrap()),
        }
    }

    #[test]
    fn the_cause_of_a_failure_does_not_say_that_nothing_was_written() {
        let error = ApplyError::Preflight { first: "it changed".to_owned(), others: 2 };
        assert_eq!(error.cause(), "it changed (and 2 more)");
        assert_eq!(error.to_string(), "it changed (and 2 more); nothing was written");
    }

    #[test]
    fn values_that_the_kernel_would_refuse_are_found_before_it_is_asked() {
        let topology = nic_host(2, 1).topology;
        assert!(check_value(&affinity("0-1"), &topology).is_ok());
        let error = check_value(&affinity("1-3"), &topology).unwrap_err();
        assert_eq!(error, "/proc/irq/40/smp_affinity_list: CPUs 2-3 are not online; online are 0-1");
        assert!(check_value(&affinity(""), &topology).unwrap_err().contains("needs a CPU"));
        let rps = Setting::RpsCpus("eth0".parse().unwrap(), QueueIndex(0));
        let off = Change {
            setting: rps,
            before: Value::Mask("0".parse().unwrap()),
            after: Value::Mask("".parse().unwrap()),
        };
        assert!(check_value(&off, &topology).is_ok(), "an empty RPS mask is off");
    }

    #[test]
    fn what_could_not_be_undone_is_part_of_the_message() {
        let undo = Undo { restored: 3, gone: vec!["it is gone".into()], failures: Vec::new() };
        assert_eq!(undo.to_string(), "undone, 3 values are as before; it is gone");
        let one = Undo { restored: 1, ..Undo::default() };
        assert_eq!(one.to_string(), "undone, 1 value is as before");
        let undo = Undo { failures: vec!["write x: EIO".into(), "write y: EIO".into()], ..undo };
        assert_eq!(
            undo.to_string(),
            "NOT wholly undone: write x: EIO; write y: EIO; the journal is kept; it is gone"
        );
    }
}
