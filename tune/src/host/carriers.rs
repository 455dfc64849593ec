//! From what is asked for to the interfaces that carry its packets.

use super::{HostError, InterfaceChoice, InterfaceName, default_route, nic};
use crate::kernel_files::KernelFiles;

impl InterfaceChoice {
    /// The interfaces that were named, or that of the default route, whatever they stand on.
    ///
    /// # Errors
    /// If there is no default route to choose by.
    pub fn names(&self, files: &KernelFiles) -> Result<Vec<InterfaceName>, HostError> {
        match self {
            Self::Auto => Ok(vec![default_route::read(files)?]),
            Self::Named(name) => Ok(vec![name.clone()]),
            Self::Several(names) => Ok(names.clone()),
        }
    }
}

/// The interfaces that carry the packets of those asked for, each once, in that order: what stands on others
/// gives way to the lowest of them. One that stands on none that could be tuned stays, for the plan to say
/// so.
///
/// # Errors
/// If there is no default route to choose by, or `/sys/class/net` cannot be read.
pub(super) fn find(files: &KernelFiles, choice: &InterfaceChoice) -> Result<Vec<InterfaceName>, HostError> {
    let mut found: Vec<InterfaceName> = Vec::new();
    for name in choice.names(files)? {
        let lower = nic::lowest(files, &name)?.unwrap_or_default();
        let carriers = if lower.is_empty() { vec![name] } else { lower.into_iter().collect() };
        for carrier in carriers {
            if !found.contains(&carrier) {
                found.push(carrier);
            }
        }
    }
    Ok(found)
}
