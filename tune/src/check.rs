//! `check`: is the host as the profile wants it? Reads, and writes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::host::{Host, HostError, Interrupts, Irq, IrqState};
use crate::kernel_files::KernelFiles;
use crate::plan::{self, Desired};
use crate::profile::Profile;
use crate::verify::{self, Fired, PendingMove, Verification};
use crate::{Error, read_host};

/// How long interrupts that lag behind are watched.
const WATCHED: Duration = Duration::from_millis(200);

/// What a look at the host found.
#[derive(Debug)]
pub struct Checked {
    /// The host as it was read.
    pub host: Host,
    /// What every setting shall hold.
    pub desired: Desired,
    /// Where it does not, and the interrupts that lag behind.
    pub found: Verification,
    /// Those of them that have fired again where they shall not any more.
    pub stuck: Vec<PendingMove>,
}

impl Checked {
    /// True if every setting holds what it shall, and every interrupt that fires does so where it shall.
    #[must_use]
    pub fn is_as_wanted(&self) -> bool {
        self.found.mismatches.is_empty() && self.stuck.is_empty()
    }
}

/// Reads the host, plans the profile on it and compares. Other than a plan it is made from every network
/// namespace, for what belongs to the whole host, too: looking does no harm.
///
/// # Errors
/// If the host cannot be read or cannot have what the profile asks for: then nobody can tell.
pub fn check_profile(files: &KernelFiles, profile: &Profile) -> Result<Checked, Error> {
    check_watching(files, profile, || std::thread::sleep(WATCHED))
}

/// As [`check_profile`]; interrupts that lag behind are looked at again after `pause`.
///
/// # Errors
/// As [`check_profile`].
pub fn check_watching(
    files: &KernelFiles,
    profile: &Profile,
    pause: impl FnOnce(),
) -> Result<Checked, Error> {
    let mut checked = look(files, profile)?;
    if !checked.found.pending.is_empty() {
        let before = fired(files, &checked.found.pending)?;
        pause();
        checked.stuck = verify::stuck(&before, &fired(files, &checked.found.pending)?);
    }
    Ok(checked)
}

/// One look, which cannot tell whether what lags behind is stuck.
pub(crate) fn look(files: &KernelFiles, profile: &Profile) -> Result<Checked, Error> {
    let host = read_host(files, profile)?;
    let desired = plan::plan(profile, &host)?;
    let found = verify::verify(&desired, &host);
    Ok(Checked { host, desired, found, stuck: Vec::new() })
}

/// How often the interrupts that lag behind, and still do, have fired where they shall not. Where
/// `/proc/interrupts` is masked nobody can tell.
pub(crate) fn fired(files: &KernelFiles, pending: &[PendingMove]) -> Result<Vec<Fired>, HostError> {
    let irqs: BTreeSet<Irq> = pending.iter().map(|pending| pending.irq).collect();
    let counts = match Interrupts::read_counts(files, &irqs) {
        Err(HostError::NoInterrupts) => return Ok(Vec::new()),
        counts => counts?,
    };
    let mut fired = Vec::new();
    for (irq, counts) in counts {
        if let Some(pending) = verify::pending(irq, &IrqState::read(files, irq)?) {
            let wrong = pending.effective.difference(&pending.affinity);
            let there = counts.iter().filter(|(cpu, _)| wrong.contains(**cpu));
            let count = there.map(|(_, count)| count).sum();
            fired.push((pending, count));
        }
    }
    Ok(fired)
}
