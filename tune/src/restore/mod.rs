//! `restore`: journal -> kernel. Also how `apply` undoes.

mod moved;
#[cfg(test)]
mod tests;

use moved::Place;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::host::{HostError, InterfaceName, Interrupts};
use crate::journal::{Entry, JournalError, Loaded, Owner, State};
use crate::kernel_files::KernelFiles;
use crate::netns;
use crate::setting::{ChangeText, Setting, Value, ValueError, satisfies};
use crate::setting_io::{self, AccessError, PutBack};

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    /// Values that were written back; `before` is what was found, `after` what was restored.
    pub written: Vec<ChangeText>,
    /// Files that held their old value already.
    pub unchanged: usize,
    /// Interfaces whose values were written back under another name, with both names.
    pub renamed: Vec<String>,
    /// Files, interfaces and interrupts that do not exist any more, with the reason.
    pub gone: Vec<String>,
    /// Values that could not be written back, with the error.
    pub failed: Vec<String>,
    /// The journal was of another boot and is removed.
    pub other_boot: bool,
    /// The journal, if it is still there: as long as anything failed.
    pub journal: Option<PathBuf>,
    /// There was no journal, but these of other network namespaces are in the same directory.
    pub elsewhere: Vec<PathBuf>,
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

/// Writes back what the journal holds, last written first. What does not exist any more is listed and does
/// not stop the rest. The journal is taken away when nothing failed.
///
/// # Errors
/// If the journal cannot be read, or `/sys` is that of another network namespace. Values that could not be
/// written, and a journal that could not be removed, are in [`Restored::failed`].
pub fn restore(files: &KernelFiles, state: &State) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    match state.load()? {
        Loaded::Nothing => {
            restored.elsewhere = state.others()?;
            // What a killed run left of its first journal is none, and the next one replaces it.
            let _ = state.remove();
            return Ok(restored);
        }
        Loaded::OtherBoot => {
            restored.other_boot = true;
            state.remove()?;
            return Ok(restored);
        }
        Loaded::Journal(journal) => {
            // Where this cannot be written, no apply can be either.
            let _ = state.store(&journal.clone().being_restored());
            follow(files, &journal.entries, &mut restored)?;
        }
    }
    if restored.failed.is_empty()
        && let Err(error) = state.finish()
    {
        restored.failed.push(format!("the values are as before, but {error}"));
    }
    if !restored.failed.is_empty() {
        restored.journal = Some(state.journal_path());
    }
    Ok(restored)
}

/// Finds every value's place of today, and writes them back, last written first. Nothing is written unless
/// `/sys` is that of this network namespace.
pub(crate) fn follow(
    files: &KernelFiles,
    entries: &[Entry],
    restored: &mut Restored,
) -> Result<(), HostError> {
    let links = netns::links(files)?;
    let mut values = Vec::new();
    let (mut interfaces, mut renamed, mut gone) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for entry in entries {
        let Some(was) = Setting::from_path(&entry.path) else {
            restored.failed.push(format!("{} is no file that tune sets", entry.path));
            continue;
        };
        let now = entry.now(&was, &links);
        if let Some(was) = was.interface() {
            let now = now.as_ref().and_then(Setting::interface);
            match &now {
                Some(now) if *now == was => {}
                Some(now) => {
                    renamed.insert(format!("interface {was} is {now} now"));
                }
                None => *gone.entry(describe_interface(&was, entry)).or_insert(0) += 1,
            }
            interfaces.insert(now.unwrap_or(was));
        }
        values.extend(now.map(|now| (now, entry)));
    }
    interfaces.iter().try_for_each(|interface| netns::check_sysfs(files, interface))?;
    restored.renamed.extend(renamed);
    restored.gone.extend(gone.into_iter().map(|(interface, values)| {
        format!("{interface} is not in this network namespace any more; its values ({values}) went with it")
    }));
    values.sort_by(|(a, _), (b, _)| b.cmp(a));
    put_back_in_order(files, values, restored)?;
    // What has got another name on the way looks as if it were gone.
    let links_now = netns::links(files)?;
    for interface in interfaces.iter().filter(|name| links.contains_key(*name)) {
        if links.get(interface) != links_now.get(interface) {
            restored.failed.push(format!("interface {interface} was renamed or removed meanwhile"));
        }
    }
    Ok(())
}

/// Puts values back: what ethtool sets first, since queues and interrupts are made anew for it, the numbers
/// of channels first of all, and once more what failed, since a table may have to go before the channels that
/// it names; then the rest in the given order, each interrupt of a queue under the number that it has now.
fn put_back_in_order(
    files: &KernelFiles,
    values: Vec<(Setting, &Entry)>,
    restored: &mut Restored,
) -> Result<(), HostError> {
    let (mut ethtool, rest): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(setting, _)| matches!(setting, Setting::Ethtool(..)));
    // A container may mask it, which is no reason to keep what is not an interrupt's, or was written without
    // it.
    let has_handler =
        |entry: &&Entry| matches!(&entry.owner, Some(Owner::Interrupt { name, .. }) if !name.is_empty());
    let needed = rest.iter().any(|(_, entry)| has_handler(entry));
    let interrupts = || if needed { Interrupts::read(files) } else { Ok(Interrupts::default()) };
    interrupts()?; // or nothing is written
    ethtool.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut once = Restored::default();
    let texts = ethtool.iter().map(|(setting, entry)| (setting.clone(), entry.before.as_str()));
    let again = put_back_all(files, texts, &mut once);
    restored.written.append(&mut once.written);
    restored.unchanged += once.unchanged;
    restored.gone.append(&mut once.gone);
    put_back_all(files, again, restored);
    let interrupts = interrupts()?;
    let mut placed = Vec::new();
    for (setting, entry) in rest.into_iter().rev() {
        match moved::place(files, setting, entry, &interrupts)? {
            Place::At(setting) => placed.push((setting, entry.before.as_str())),
            Place::Gone(reason) => restored.gone.push(reason),
        }
    }
    put_back_all(files, placed.into_iter().rev(), restored);
    Ok(())
}

fn describe_interface(name: &InterfaceName, entry: &Entry) -> String {
    match &entry.owner {
        Some(Owner::Interface(link)) => {
            format!("interface {name} (index {}, address {})", link.index, link.address)
        }
        _ => format!("interface {name}"),
    }
}

/// Puts values back in this order, each as far as the kernel allows, and notes what became of it. Gives back
/// those that failed.
pub(crate) fn put_back_all<'a>(
    files: &KernelFiles,
    values: impl IntoIterator<Item = (Setting, &'a str)>,
    restored: &mut Restored,
) -> Vec<(Setting, &'a str)> {
    let mut failed = Vec::new();
    for (setting, before) in values {
        match put_back(files, &setting, before) {
            Ok(PutBack::Written { found, now }) => {
                restored.written.push(ChangeText { path: setting.path(), before: found, after: now });
            }
            Ok(PutBack::Unchanged) => restored.unchanged += 1,
            Ok(PutBack::Gone(reason)) => restored.gone.push(reason),
            Err(error) => {
                restored.failed.push(error.to_string());
                failed.push((setting, before));
            }
        }
    }
    failed
}

/// Why a value was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Reading or writing failed.
    #[error(transparent)]
    Access(#[from] AccessError),
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
    setting_io::write(files, setting, text)?;
    let found = setting.parse(&setting_io::read(files, setting)?)?;
    if satisfies(setting, &found, &setting.parse(text)?) {
        return Ok(());
    }
    Err(SetError::ReadBack { path: setting.path(), written: text.to_owned(), found })
}

/// Writes an old value unless the file holds it.
fn put_back(files: &KernelFiles, setting: &Setting, before: &str) -> Result<PutBack, SetError> {
    if *setting == Setting::IrqbalanceBan {
        return Ok(setting_io::give_back(files, before)?);
    }
    let Some(text) = setting_io::read_optional(files, setting)? else {
        return Ok(PutBack::Gone(format!("{} does not exist any more", setting.path())));
    };
    let wanted = setting.parse(before)?;
    // A text that cannot be read as a value is not the old one either, and no reason to leave it there.
    let found = setting.parse(&text).ok();
    if found.as_ref() == Some(&wanted) {
        return Ok(PutBack::Unchanged);
    }
    set(files, setting, before)?;
    Ok(PutBack::Written { found: found.map_or(text, |value| value.to_string()), now: wanted.to_string() })
}
