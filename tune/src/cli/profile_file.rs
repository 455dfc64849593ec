//! A profile from its file, with what the command line says instead.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::arguments::Options;
use super::map;
use crate::errno::describe;
use crate::host::{InterfaceChoice, ToldMap};
use crate::profile::{CpuChoice, Profile};

/// What the command line says instead of the profile.
#[derive(Clone)]
pub(super) struct Overrides {
    pub(super) interface: Option<InterfaceChoice>,
    pub(super) cpus: Option<CpuChoice>,
    pub(super) map: ToldMap,
}

impl Overrides {
    /// Checks the options.
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let interface = options.interface.as_deref().map(str::parse).transpose().context("--interface")?;
        let cpus = options.cpus.as_deref().map(str::parse).transpose().context("--cpus")?;
        let map = options.map.as_deref().map(map::read).transpose()?.unwrap_or_default();
        Ok(Self { interface, cpus, map })
    }
}

/// Bytes of a profile file. The largest that could make sense has a line for each sysctl.
const LONGEST_PROFILE: u64 = 1 << 20;

/// The profile with the overrides of the command line.
pub(super) fn read_profile(path: &Path, overrides: &Overrides) -> Result<Profile> {
    let text = read_text(path)?;
    let mut profile = Profile::parse(&text, &path.display().to_string())?;
    profile.interface = overrides.interface.clone().unwrap_or(profile.interface);
    profile.cpus = overrides.cpus.clone().unwrap_or(profile.cpus);
    profile.map = overrides.map.clone();
    Ok(profile)
}

/// The text of a profile file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let fail = |error: io::Error| {
        anyhow!("read profile {}: {}; {}", path.display(), describe(&error), instead(&error))
    };
    // A pipe or a device might never end.
    let file = std::fs::metadata(path).map_err(fail)?;
    if file.is_file() && file.len() > LONGEST_PROFILE {
        bail!("read profile {}: longer than {LONGEST_PROFILE} bytes; is it a profile?", path.display());
    }
    if !file.is_file() && !file.is_dir() {
        bail!("read profile {}: not a regular file; name one such as profiles/auto.toml", path.display());
    }
    std::fs::read_to_string(path).map_err(fail)
}

/// What to do about a profile that cannot be read.
fn instead(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "a profile is TOML in UTF-8, see profiles/README.md",
        io::ErrorKind::PermissionDenied => "run as a user who may read it",
        _ => "name a file such as profiles/auto.toml",
    }
}
