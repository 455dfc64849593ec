//! How an interface polls: the files of NAPI below `/sys/class/net/IF/`.

use std::collections::BTreeMap;

use super::{HostError, InterfaceName, read_optional_as};
use crate::kernel_files::KernelFiles;

/// A file of an interface that says how it polls, in the order of writing: the threads first, since their
/// CPUs are set after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NapiFile {
    /// `threaded`: 1 if threads of their own poll, 0 if softirqs do. Since Linux 5.12.
    Threaded,
    /// `gro_flush_timeout`: nanoseconds after which a queue whose interrupts are deferred is polled. Since
    /// 3.19.
    GroFlushTimeout,
    /// `napi_defer_hard_irqs`: polls without a packet before the interrupt is switched on again. Since 5.8.
    DeferHardIrqs,
}

impl NapiFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Threaded, Self::GroFlushTimeout, Self::DeferHardIrqs];

    /// The name of the file, and of the key below `[napi]`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Threaded => "threaded",
            Self::GroFlushTimeout => "gro_flush_timeout",
            Self::DeferHardIrqs => "napi_defer_hard_irqs",
        }
    }

    /// The kernel that brought it.
    #[must_use]
    pub fn since(self) -> &'static str {
        match self {
            Self::Threaded => "5.12",
            Self::GroFlushTimeout => "3.19",
            Self::DeferHardIrqs => "5.8",
        }
    }

    /// The kernel path, without a root.
    #[must_use]
    pub fn path(self, interface: &InterfaceName) -> String {
        format!("/sys/class/net/{interface}/{}", self.name())
    }
}

/// Those that the kernel has, with what they hold.
pub(super) fn read(
    files: &KernelFiles,
    interface: &InterfaceName,
) -> Result<BTreeMap<NapiFile, u64>, HostError> {
    let mut found = BTreeMap::new();
    for file in NapiFile::ALL {
        match read_optional_as(files, &file.path(interface), |text| text.trim().parse()) {
            // `threaded` of an interface that is just taken down.
            Err(HostError::File(error)) if error.is_invalid() => {}
            value => {
                found.extend(value?.map(|value| (file, value)));
            }
        }
    }
    Ok(found)
}
