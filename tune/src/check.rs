//! `check`: is the host as the profile wants it? Reads, and writes nothing.

use crate::host::Host;
use crate::kernel_files::KernelFiles;
use crate::plan::{self, Desired};
use crate::profile::Profile;
use crate::verify::{self, Verification};
use crate::{Error, read_host};

/// What a look at the host found.
#[derive(Debug)]
pub struct Checked {
    /// The host as it was read.
    pub host: Host,
    /// What every setting shall hold.
    pub desired: Desired,
    /// Where it does not, and the interrupts that lag behind.
    pub found: Verification,
}

impl Checked {
    /// True if every setting holds what it shall.
    #[must_use]
    pub fn is_as_wanted(&self) -> bool {
        self.found.mismatches.is_empty()
    }
}

/// Reads the host, plans the profile on it and compares. Other than a plan it is made from every network
/// namespace, for what belongs to the whole host, too: looking does no harm.
///
/// # Errors
/// If the host cannot be read or cannot have what the profile asks for: then nobody can tell.
pub fn check_profile(files: &KernelFiles, profile: &Profile) -> Result<Checked, Error> {
    let host = read_host(files, profile)?;
    let desired = plan::plan(profile, &host)?;
    let found = verify::verify(&desired, &host);
    Ok(Checked { host, desired, found })
}
