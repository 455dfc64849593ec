//! How each [`Setting`] is read and written: a kernel file through [`KernelFiles`], ethtool's by netlink, and in a captured
//! tree its JSON.

use std::time::{Duration, Instant};

use crate::host::ethtool::{Ethtool, Knob, KnobError};
use crate::host::{HostError, InterfaceName};
use crate::kernel_files::{KernelFileError, KernelFiles};
use crate::netlink::ethtool::SetKnobError;
use crate::netlink::{self, NetlinkError};
use crate::setting::Setting;

/// How long a driver is asked again that says EBUSY or EAGAIN, as while it resets after another change.
const BUSY_DEADLINE: Duration = Duration::from_secs(2);
const BUSY_POLL: Duration = Duration::from_millis(20);

/// Why a setting was not read or written. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A kernel file.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The captured data of a tree.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A text that is no value of the setting, or none that the interface can have.
    #[error("set {path}: {source}")]
    Value {
        /// The setting.
        path: String,
        /// Why.
        source: KnobError,
    },
    /// The interface does not have it.
    #[error("{0} does not exist: the driver does not have it, or the kernel cannot be asked for it")]
    Absent(String),
}

impl AccessError {
    /// True if the driver or the kernel has no way to set it, which some say only when they are asked to.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Netlink(error) => error.is_unsupported(),
            Self::File(error) => error.is_unsupported(),
            Self::Host(_) | Self::Value { .. } | Self::Absent(_) => false,
        }
    }
}

/// The text of a setting as the kernel gives it.
///
/// # Errors
/// If it does not exist or cannot be read.
pub fn read(files: &KernelFiles, setting: &Setting) -> Result<String, AccessError> {
    match setting {
        Setting::Ethtool(..) => {
            read_optional(files, setting)?.ok_or_else(|| AccessError::Absent(setting.path()))
        }
        _ => Ok(files.read(&setting.path())?),
    }
}

/// As [`read`]; `None` if it does not exist.
///
/// # Errors
/// As [`read`], what does not exist excepted.
pub fn read_optional(files: &KernelFiles, setting: &Setting) -> Result<Option<String>, AccessError> {
    let Setting::Ethtool(interface, knob) = setting else {
        return Ok(files.read_optional(&setting.path())?);
    };
    if !files.is_live() {
        return Ok(Ethtool::read(files, interface)?.text(*knob));
    }
    match netlink::ethtool::read_one(interface, *knob) {
        Ok(ethtool) => Ok(ethtool.text(*knob)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Checks that a setting exists and that this process may set it, without setting it.
///
/// # Errors
/// As setting it would give.
pub fn check_writable(files: &KernelFiles, setting: &Setting) -> Result<(), AccessError> {
    match setting {
        Setting::Ethtool(interface, _) if !files.is_live() => {
            Ok(files.check_writable(&Ethtool::captured_path(interface))?)
        }
        Setting::Ethtool(interface, knob) => netlink::check_net_admin().map_err(|error| {
            let mut error = NetlinkError::new(format!("set {} of {interface}", knob.name()), error);
            error.detail = ": that takes CAP_NET_ADMIN; run as root".to_owned();
            error.into()
        }),
        _ => Ok(files.check_writable(&setting.path())?),
    }
}

/// Sets a setting that exists. The caller reads it back.
///
/// # Errors
/// If it does not exist or the kernel refuses the value.
pub fn write(files: &KernelFiles, setting: &Setting, text: &str) -> Result<(), AccessError> {
    let Setting::Ethtool(interface, knob) = setting else {
        return Ok(files.write_existing(&setting.path(), text)?);
    };
    if !files.is_live() {
        return write_captured(files, interface, *knob, text);
    }
    let deadline = Instant::now() + BUSY_DEADLINE;
    loop {
        match netlink::ethtool::set(interface, *knob, text) {
            Ok(()) => return Ok(()),
            Err(SetKnobError::Netlink(error)) if error.is_busy() && Instant::now() < deadline => {
                std::thread::sleep(BUSY_POLL);
            }
            Err(SetKnobError::Netlink(error)) => return Err(error.into()),
            Err(SetKnobError::Value(source)) => {
                return Err(AccessError::Value { path: setting.path(), source });
            }
        }
    }
}

/// Sets a knob in the JSON of a tree.
fn write_captured(
    files: &KernelFiles,
    interface: &InterfaceName,
    knob: Knob,
    text: &str,
) -> Result<(), AccessError> {
    let path = Setting::Ethtool(interface.clone(), knob).path();
    let mut ethtool = Ethtool::read(files, interface)?;
    ethtool.set(knob, text).map_err(|source| AccessError::Value { path, source })?;
    let json = serde_json::to_string_pretty(&ethtool).expect("strings and numbers");
    Ok(files.write_existing(&Ethtool::captured_path(interface), &json)?)
}
