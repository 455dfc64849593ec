//! `apply --keep-going`: what fails is reported and the rest is kept.
//!
//! Each setting is looked at, kept in the journal and written for itself: what ethtool sets first, and the
//! rest when that is done. Then the host is planned again, since a driver makes its queues anew when one of
//! its settings changes, until nothing is left to do but what failed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::apply::{ApplyError, check, entries_of};
use crate::host::Host;
use crate::journal::{Loaded, State};
use crate::kernel_files::KernelFiles;
use crate::netns;
use crate::profile::Profile;
use crate::restore::{Restored, SetError, put_back_all, set};
use crate::setting::{Change, Setting};
use crate::verify::verify;
use crate::{Applied, Error, Planned, plan_profile, stages};

/// How often the host is planned again: queues that come and go for ever are not waited for.
const ROUNDS: usize = 6;

/// As [`crate::apply_profile`], but what fails, be it before the first write or after, is in
/// [`Applied::failed`], and all else is kept. Its old values are in the journal all the same.
///
/// # Errors
/// If the host cannot be read or planned, or the journal not be written: then nothing was, or what was is
/// kept, and said.
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
    let interfaces = planned.host.interfaces();
    let mut done = Done::default();
    for _ in 0..ROUNDS {
        let mut left: Vec<Change> = planned
            .changes
            .iter()
            .filter(|change| !done.failed.contains_key(&change.setting))
            .cloned()
            .collect();
        let ethtool = stages::of_ethtool(&left);
        if !ethtool.is_empty() {
            left = ethtool;
        }
        if left.is_empty() {
            break;
        }
        let round = write_each(files, &state, profile, &planned.host, &left, &mut done)
            .and_then(|()| stages::settle(files, profile, &interfaces, &left));
        planned = match (round, done.written.len()) {
            (Ok(planned), _) => planned,
            (Err(error), 0) => return Err(error),
            (Err(error), written) => {
                return Err(ApplyError::CutShort { cause: error.to_string(), written }.into());
            }
        };
        stages::without(&mut planned, &done.unsupported);
    }
    let Done { written, mut failed, replaced_journal, .. } = done;
    for mismatch in verify(&planned.desired, &planned.host).mismatches {
        failed.entry(mismatch.setting.clone()).or_insert_with(|| format!("after writing, {mismatch}"));
    }
    // A queue that is gone by now is nothing that failed.
    failed.retain(|setting, _| planned.changes.iter().any(|change| change.setting == *setting));
    Ok(Applied { replaced_journal, ..applied(planned, written, &failed) })
}

/// What became of the changes.
#[derive(Default)]
struct Done {
    written: Vec<Change>,
    /// What could not be set, with the error.
    failed: BTreeMap<Setting, String>,
    /// What the driver turned out not to have, and the profile does not require, with the error.
    unsupported: BTreeMap<Setting, String>,
    /// A journal of another boot was replaced.
    replaced_journal: bool,
}

fn applied(planned: Planned, changes: Vec<Change>, failed: &BTreeMap<Setting, String>) -> Applied {
    let pending = verify(&planned.desired, &planned.host).pending;
    let failed = failed.values().cloned().collect();
    Applied { pending, failed, ..stages::applied(planned, changes, false) }
}

/// Journals and writes each change that can be, and journals what drivers may overwrite for them.
fn write_each(
    files: &KernelFiles,
    state: &State,
    profile: &Profile,
    host: &Host,
    changes: &[Change],
    done: &mut Done,
) -> Result<(), Error> {
    let links = netns::links(files).map_err(ApplyError::from)?;
    let mut steps = Vec::new();
    for change in changes {
        match check(files, host, &links, change) {
            Ok(entry) => steps.push((change, entry)),
            Err(problem) => {
                done.failed.insert(change.setting.clone(), problem);
            }
        }
    }
    if steps.is_empty() {
        return Ok(());
    }
    let (journal, replaced) = match state.load()? {
        Loaded::Journal(journal) => (journal, false),
        Loaded::Nothing => (state.journal(Vec::new()), false),
        Loaded::OtherBoot => (state.journal(Vec::new()), true),
    };
    done.replaced_journal |= replaced;
    let overwritten = entries_of(files, host, &links, &stages::overwritten(host, changes));
    let entries = steps.iter().map(|(_, entry)| entry.clone()).chain(overwritten).collect();
    state.store(&journal.extended(entries, &links))?;
    for (change, entry) in steps {
        match set(files, &change.setting, &change.after.to_string()) {
            Ok(()) => done.written.push(change.clone()),
            Err(SetError::Access(error))
                if error.is_unsupported() && !stages::requires(profile, &change.setting) =>
            {
                done.unsupported.insert(change.setting.clone(), error.to_string());
            }
            Err(error) => {
                // A write that the kernel refused may have left a trace.
                let mut undone = Restored::default();
                put_back_all(files, [(change.setting.clone(), entry.before.as_str())], &mut undone);
                let also =
                    undone.failed.first().map(|error| format!("; and then {error}")).unwrap_or_default();
                done.failed.insert(change.setting.clone(), format!("{error}{also}"));
            }
        }
    }
    Ok(())
}
