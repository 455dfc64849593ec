//! `tune`: sets a Linux host up so that the packets of a TCP connection are received on the CPU whose worker
//! serves it.
//!
//! ```text
//!  /proc /sys ── kernel_files ──► host::Host ──┐
//!                                              ├─ plan ──► Desired ── diff ──► [Change] ── apply ──► /proc /sys
//!  profile.toml ── profile::Profile ───────────┘              │                   │                      │
//!                                                             │               journal ── restore ────────┤
//!                                                             └──────────── verify ◄── host::Host ◄──────┘
//! ```
//!
//! What is asked for ([`profile::Profile`]), what is there ([`host::Host`]), what shall be
//! ([`plan::Desired`]) and what is to be written ([`setting::Change`]) are separate values, and everything
//! between reading the host and writing it is pure. The modules, in the order in which data flows:

pub mod errno;
pub mod ethtool;
pub mod kernel_files;
pub mod named_netns;
pub mod netns;

pub mod affinity;
pub mod cpu_set;
pub mod host;
pub mod irqbalance;
pub mod setting;
pub mod setting_io;

pub mod profile;

pub mod plan;

pub mod diff;

pub mod journal;

pub mod apply;
pub mod restore;
mod stages;

pub mod verify;

pub mod check;

pub mod script;

pub mod keep_going;
pub mod watch;

pub mod capture;
pub mod compare;

pub mod explain;
pub mod measure;

pub mod cli;
pub mod report;

use std::path::Path;

use apply::ApplyError;
use host::{Host, HostError, InterfaceName};
use journal::{JournalError, State};
use kernel_files::KernelFiles;
use plan::{Desired, Kept, PlanError, Skipped};
use profile::Profile;
use restore::{RestoreError, Restored};
use setting::Change;
use verify::PendingMove;

/// Why a command failed. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The profile cannot be had on this host.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A setting that the host has once would be changed from a network namespace that is not the first one.
    /// Two of them would each journal what the other had set.
    #[error(
        "{0} belongs to the whole host, and this is not its first network namespace: run tune there, or \
         leave it out of the profile (irq = \"keep\" for interrupts)"
    )]
    HostWide(String),
    /// The state directory.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The changes could not be made.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The journal could not be followed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// A profile planned on a host.
#[derive(Debug)]
pub struct Planned {
    /// The host as it was read.
    pub host: Host,
    /// What every setting shall hold.
    pub desired: Desired,
    /// What is to be written; empty is nothing to do.
    pub changes: Vec<Change>,
}

/// A profile applied to a host.
#[derive(Debug)]
pub struct Applied {
    /// The interfaces.
    pub interfaces: Vec<InterfaceName>,
    /// What was written; empty is nothing to do.
    pub changes: Vec<Change>,
    /// The sysctls that stay above what the profile asks for.
    pub kept: Vec<Kept>,
    /// What the profile asks for and the host does not have.
    pub skipped: Vec<Skipped>,
    /// What who applied it should know.
    pub notes: Vec<String>,
    /// Interrupts that move to their new CPU when they fire next.
    pub pending: Vec<PendingMove>,
    /// A journal of another boot was there; it no longer counted and was replaced.
    pub replaced_journal: bool,
    /// What could not be set, with the error; only where the rest was to be kept all the same.
    pub failed: Vec<String>,
}

/// Reads the host and plans the profile on it; writes nothing.
///
/// # Errors
/// If the host cannot be read or cannot have what the profile asks for, or not from this network namespace.
pub fn plan_profile(files: &KernelFiles, profile: &Profile) -> Result<Planned, Error> {
    plan_host(files, profile, read_host(files, profile)?)
}

/// Plans the profile on a host that was read.
fn plan_host(files: &KernelFiles, profile: &Profile, host: Host) -> Result<Planned, Error> {
    let desired = plan::plan(profile, &host)?;
    let changes = diff::diff(&host, &desired);
    let mut host_wide = changes.iter().filter(|change| change.setting.is_host_wide());
    if !netns::is_first(files)
        && let Some(change) = host_wide.next()
    {
        return Err(Error::HostWide(change.setting.path()));
    }
    Ok(Planned { host, desired, changes })
}

/// Reads of the host what the profile sets.
///
/// # Errors
/// As [`Host::read`].
pub fn read_host(files: &KernelFiles, profile: &Profile) -> Result<Host, HostError> {
    let host = Host::read(files, &profile.interface, &profile.sysctl_names(), &profile.map)?;
    with_wishes(files, host, profile)
}

/// As [`read_host`], of interfaces that were chosen before.
fn read_again(
    files: &KernelFiles,
    profile: &Profile,
    interfaces: &[InterfaceName],
) -> Result<Host, HostError> {
    let host = Host::read_nics(files, interfaces, &profile.sysctl_names(), &profile.map)?;
    with_wishes(files, host, profile)
}

/// Adds what is read only where a profile asks for it.
fn with_wishes(files: &KernelFiles, host: Host, profile: &Profile) -> Result<Host, HostError> {
    if profile.cpu.governor.is_some() { host.with_governors(files) } else { Ok(host) }
}

/// Plans the profile, writes the differences as a transaction with its journal in `state_directory`, reads
/// the host again and verifies it.
///
/// # Errors
/// As [`plan_profile`], and if anything fails while writing; what was written is then undone.
pub fn apply_profile(
    files: &KernelFiles,
    state_directory: &Path,
    profile: &Profile,
) -> Result<Applied, Error> {
    apply_locked(files, state_directory, State::open_existing(state_directory, files)?, profile)
}

/// As [`apply_profile`], with the state directory's lock where it exists.
fn apply_locked(
    files: &KernelFiles,
    state_directory: &Path,
    mut state: Option<State>,
    profile: &Profile,
) -> Result<Applied, Error> {
    let mut planned = plan_profile(files, profile)?;
    if state.is_none() && !planned.changes.is_empty() {
        // The first apply. What is refused is refused before the directory is made, unless another run has
        // made it meanwhile and is changing what was looked at. What was planned without the lock is planned
        // again with it.
        state = Some(match apply::preflight(files, &planned.host, &planned.changes) {
            Ok(_) => State::open(state_directory, files)?,
            Err(refused) => State::open_existing(state_directory, files)?.ok_or(refused)?,
        });
        planned = plan_profile(files, profile)?;
    }
    let Some(state) = state else { return Ok(stages::applied(planned, Vec::new(), false)) };
    stages::run(files, &state, profile, planned)
}

/// Puts back what the journal in `state_directory` holds for this network namespace.
///
/// # Errors
/// If there is a journal that cannot be used. Single values that could not be put back are in
/// [`Restored::failed`].
pub fn restore(files: &KernelFiles, state_directory: &Path) -> Result<Restored, Error> {
    match State::open_existing(state_directory, files)? {
        Some(state) => Ok(restore::restore(files, &state)?),
        None => Ok(Restored::default()),
    }
}
