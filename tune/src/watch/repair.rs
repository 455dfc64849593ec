//! `watch --repair`: the profile is applied again, unless somebody has restored meanwhile what was applied.

use std::path::PathBuf;

use crate::journal::{JournalError, Loaded, State};
use crate::kernel_files::KernelFiles;
use crate::profile::Profile;
use crate::{Applied, Error, apply_locked};

/// Where the journal is, and whether there was one.
pub(super) struct Repair {
    state_directory: PathBuf,
    /// There was a journal that no restore had begun to follow.
    had_journal: bool,
}

/// What became of a repair.
pub(super) enum Repaired {
    /// The profile was applied.
    Applied(Applied),
    /// A restore came before it.
    Restored,
}

impl Repair {
    /// Looks whether there is a journal.
    ///
    /// # Errors
    /// If it cannot be read, or another run is at work.
    pub(super) fn begin(files: &KernelFiles, state_directory: PathBuf) -> Result<Self, JournalError> {
        let state = State::open_existing(&state_directory, files)?;
        Ok(Self { had_journal: has_journal(state.as_ref())?, state_directory })
    }

    /// Applies the profile, under the same lock under which it looks for the journal.
    ///
    /// # Errors
    /// As [`crate::apply_profile`].
    pub(super) fn run(&mut self, files: &KernelFiles, profile: &Profile) -> Result<Repaired, Error> {
        let state = State::open_existing(&self.state_directory, files)?;
        let has_journal = has_journal(state.as_ref())?;
        if self.had_journal && !has_journal {
            return Ok(Repaired::Restored);
        }
        // Somebody else's apply may be restored, too; and this one may fail and leave its journal.
        self.had_journal |= has_journal;
        let applied = apply_locked(files, &self.state_directory, state, profile)?;
        self.had_journal |= !applied.changes.is_empty();
        Ok(Repaired::Applied(applied))
    }
}

fn has_journal(state: Option<&State>) -> Result<bool, JournalError> {
    let Some(state) = state else { return Ok(false) };
    Ok(matches!(state.load()?, Loaded::Journal(journal) if !journal.restoring))
}
