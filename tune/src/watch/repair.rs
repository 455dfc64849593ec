//! `watch --repair`: the profile is applied again, unless somebody has restored meanwhile what was applied.

use std::path::PathBuf;

use crate::journal::{JournalError, Loaded, State};
use crate::kernel_files::KernelFiles;
use crate::profile::Profile;
use crate::{Applied, Error, apply_locked};

/// Where the journal is, and whether there was one.
pub(super) struct Repair {
    state_directory: PathBuf,
    /// There was a journal that no restore had begun to follow; `None` while another run kept it from being
    /// looked at.
    had_journal: Option<bool>,
}

/// What became of a repair.
pub(super) enum Repaired {
    /// The profile was applied.
    Applied(Applied),
    /// A restore came before it.
    Restored,
}

/// What became of the journal.
#[derive(PartialEq, Eq)]
enum Found {
    /// It is there.
    Journal,
    /// A restore has begun to follow it, or has followed it.
    Restored,
    /// There is none.
    Nothing,
}

impl Repair {
    /// Looks whether there is a journal.
    ///
    /// # Errors
    /// If it cannot be read. (Another run that is at work is waited for.)
    pub(super) fn begin(files: &KernelFiles, state_directory: PathBuf) -> Result<Self, JournalError> {
        let mut repair = Self { had_journal: None, state_directory };
        match repair.learn(files) {
            Ok(()) | Err(JournalError::Locked(_)) => Ok(repair),
            Err(error) => Err(error),
        }
    }

    /// Looks whether there is a journal, unless that is known.
    ///
    /// # Errors
    /// If it cannot be read, or another run is at work.
    pub(super) fn learn(&mut self, files: &KernelFiles) -> Result<(), JournalError> {
        if self.had_journal.is_none() {
            let state = State::open_existing(&self.state_directory, files)?;
            self.had_journal = Some(look(state.as_ref())? == Found::Journal);
        }
        Ok(())
    }

    /// Applies the profile, under the same lock under which it looks for the journal.
    ///
    /// # Errors
    /// As [`crate::apply_profile`], and if the journal has gone without a restore: its values were the first
    /// ones.
    pub(super) fn run(&mut self, files: &KernelFiles, profile: &Profile) -> Result<Repaired, Error> {
        let state = State::open_existing(&self.state_directory, files)?;
        let found = look(state.as_ref())?;
        if self.had_journal == Some(true) {
            match found {
                Found::Journal => {}
                Found::Restored => return Ok(Repaired::Restored),
                Found::Nothing => {
                    let path =
                        state.map_or_else(|| self.state_directory.clone(), |state| state.journal_path());
                    return Err(JournalError::Vanished(path).into());
                }
            }
        }
        // Somebody else's apply may be restored, too; and this one may fail and leave its journal.
        let had_journal = self.had_journal == Some(true) || found == Found::Journal;
        self.had_journal = Some(had_journal);
        let applied = apply_locked(files, &self.state_directory, state, profile)?;
        self.had_journal = Some(had_journal || !applied.changes.is_empty());
        Ok(Repaired::Applied(applied))
    }
}

fn look(state: Option<&State>) -> Result<Found, JournalError> {
    let Some(state) = state else { return Ok(Found::Nothing) };
    Ok(match state.load()? {
        Loaded::Journal(journal) if journal.restoring => Found::Restored,
        Loaded::Journal(_) => Found::Journal,
        Loaded::Nothing | Loaded::OtherBoot if state.was_restored() => Found::Restored,
        Loaded::Nothing | Loaded::OtherBoot => Found::Nothing,
    })
}
