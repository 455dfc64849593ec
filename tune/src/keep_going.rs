//! `apply --keep-going`: what fails is reported and the rest is kept.
//!
//! Each setting is looked at, kept in the journal and written for itself. Then the host is planned again, since a driver
//! makes its queues anew when one of its settings changes, until nothing is left to do but what failed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::apply::{ApplyError, check};
use crate::host::Host;
use crate::journal::{Loaded, State};
use crate::kernel_files::KernelFiles;
use crate::netns;
use crate::profile::Profile;
use crate::restore::{Restored, put_back_all, set};
use crate::setting::{Change, Setting};
use crate::verify::verify;
use crate::{Applied, Error, Planned, plan_profile};

/// How often the host is planned again: queues that come and go for ever are not waited for.
const ROUNDS: usize = 4;

/// As [`crate::apply_profile`], but what fails, be it before the first write or after, is in [`Applied::failed`], and all
/// else is kept. Its old values are in the journal all the same.
///
/// # Errors
/// If the host cannot be read or planned, or the journal not be written: then nothing was.
pub fn apply_keeping_going(
    files: &KernelFiles,
    state_directory: &Path,
    profile: &Profile,
) -> Result<Applied, Error> {
    let planned = plan_profile(files, profile)?;
    if planned.changes.is_empty() {
        return Ok(applied(planned, Vec::new(), &BTreeMap::new()));
    }
    let state = State::open(state_directory, files)?;
    let mut planned = plan_profile(files, profile)?;
    let mut written: Vec<Change> = Vec::new();
    let mut failed = BTreeMap::new();
    let mut replaced_journal = false;
    for _ in 0..ROUNDS {
        let left: Vec<Change> =
            planned.changes.iter().filter(|change| !failed.contains_key(&change.setting)).cloned().collect();
        if left.is_empty() {
            break;
        }
        replaced_journal |= write_each(files, &state, &planned.host, left, &mut written, &mut failed)?;
        planned = plan_profile(files, profile)?;
    }
    for mismatch in verify(&planned.desired, &planned.host).mismatches {
        failed.entry(mismatch.setting.clone()).or_insert_with(|| format!("after writing, {mismatch}"));
    }
    // A queue that is gone by now is nothing that failed.
    failed.retain(|setting, _| planned.changes.iter().any(|change| change.setting == *setting));
    Ok(Applied { replaced_journal, ..applied(planned, written, &failed) })
}

fn applied(planned: Planned, changes: Vec<Change>, failed: &BTreeMap<Setting, String>) -> Applied {
    let pending = verify(&planned.desired, &planned.host).pending;
    Applied {
        interfaces: planned.host.interfaces(),
        changes,
        kept: planned.desired.kept,
        skipped: planned.desired.skipped,
        notes: planned.desired.notes,
        pending,
        replaced_journal: false,
        failed: failed.values().cloned().collect(),
    }
}

/// Journals and writes each change that can be; true if a journal of another boot was replaced.
fn write_each(
    files: &KernelFiles,
    state: &State,
    host: &Host,
    changes: Vec<Change>,
    written: &mut Vec<Change>,
    failed: &mut BTreeMap<Setting, String>,
) -> Result<bool, Error> {
    let links = netns::links(files).map_err(ApplyError::from)?;
    let mut steps = Vec::new();
    for change in changes {
        match check(files, host, &links, &change) {
            Ok(entry) => steps.push((change, entry)),
            Err(problem) => {
                failed.insert(change.setting, problem);
            }
        }
    }
    if steps.is_empty() {
        return Ok(false);
    }
    let (journal, replaced) = match state.load()? {
        Loaded::Journal(journal) => (journal, false),
        Loaded::Nothing => (state.journal(Vec::new()), false),
        Loaded::OtherBoot => (state.journal(Vec::new()), true),
    };
    let entries = steps.iter().map(|(_, entry)| entry.clone()).collect();
    state.store(&journal.extended(entries, &links))?;
    for (change, entry) in steps {
        match set(files, &change.setting, &change.after.to_string()) {
            Ok(()) => written.push(change),
            Err(error) => {
                // A write that the kernel refused may have left a trace.
                let mut undone = Restored::default();
                put_back_all(files, [(change.setting.clone(), entry.before.as_str())], &mut undone);
                let also =
                    undone.failed.first().map(|error| format!("; and then {error}")).unwrap_or_default();
                failed.insert(change.setting, format!("{error}{also}"));
            }
        }
    }
    Ok(replaced)
}
