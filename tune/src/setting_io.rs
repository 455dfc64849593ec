//! Reading and writing what a [`Setting`] names, be it a kernel file or not. The texts are those that
//! [`Setting::parse`] takes.

use crate::cpu_set::CpuSet;
use crate::host::netdev;
use crate::kernel_files::{KernelFileError, KernelFiles, Operation};
use crate::setting::Setting;

/// What the setting holds, as text.
///
/// # Errors
/// If it does not exist or cannot be read.
pub(crate) fn read(files: &KernelFiles, setting: &Setting) -> Result<String, KernelFileError> {
    match setting {
        Setting::NapiThread(interface, id) => netdev::cpus_of(files, interface, *id)
            .map(|cpus| cpus.to_string())
            .map_err(|source| KernelFileError::new(Operation::Read, setting.path(), source)),
        _ => files.read(&setting.path()),
    }
}

/// As [`read`]; `None` if it does not exist.
///
/// # Errors
/// As [`read`], ENOENT excepted.
pub(crate) fn read_optional(
    files: &KernelFiles,
    setting: &Setting,
) -> Result<Option<String>, KernelFileError> {
    match read(files, setting) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it exists and this process may write it; writes nothing.
///
/// # Errors
/// With the errno that a write would give.
pub(crate) fn check_writable(files: &KernelFiles, setting: &Setting) -> Result<(), KernelFileError> {
    match setting {
        Setting::NapiThread(interface, id) => netdev::check_settable(files, interface, *id)
            .map_err(|source| KernelFileError::new(Operation::CheckWritable, setting.path(), source)),
        _ => files.check_writable(&setting.path()),
    }
}

/// Writes a value.
///
/// # Errors
/// If it does not exist or the kernel refuses the value.
pub(crate) fn write(files: &KernelFiles, setting: &Setting, text: &str) -> Result<(), KernelFileError> {
    match setting {
        Setting::NapiThread(interface, id) => CpuSet::parse_list(text)
            .map_err(std::io::Error::other)
            .and_then(|cpus| netdev::set_cpus(files, interface, *id, &cpus))
            .map_err(|source| {
                KernelFileError::new(Operation::Write(text.to_owned()), setting.path(), source)
            }),
        _ => files.write_existing(&setting.path(), text),
    }
}
