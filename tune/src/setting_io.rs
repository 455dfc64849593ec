//! How a [`Setting`] is read, written, journalled and put back, be it a kernel file, the CPUs of a thread,
//! irqbalance's list, or what ethtool sets (in a captured tree, in its JSON). The texts are those that
//! [`Setting::parse`] takes.

use std::time::{Duration, Instant};

use crate::cpu_set::CpuSet;
use crate::ethtool::{self, EthtoolError, SetKnobError};
use crate::host::ethtool::{Ethtool, Knob, KnobError};
use crate::host::{HostError, InterfaceName, netdev};
use crate::irqbalance::{self, GivenBack, IrqbalanceError, message};
use crate::kernel_files::{KernelFileError, KernelFiles, Operation};
use crate::setting::{Change, Setting, Value};

/// How long a driver is asked again that says EBUSY or EAGAIN, as while it resets after another change.
const BUSY_DEADLINE: Duration = Duration::from_secs(2);
const BUSY_POLL: Duration = Duration::from_millis(20);

/// Why a setting was not read or written. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A kernel file.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// irqbalance.
    #[error(transparent)]
    Irqbalance(#[from] IrqbalanceError),
    /// irqbalance has ended.
    #[error("irqbalance has ended meanwhile; run again")]
    NoIrqbalance,
    /// A text in the journal that is not of the setting's form.
    #[error("{path}: \"{text}\" in the journal is not what tune writes there")]
    Journal {
        /// [`Setting::path`].
        path: String,
        /// The text.
        text: String,
    },
    /// What ethtool sets.
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
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
            Self::Ethtool(error) => error.is_unsupported(),
            Self::File(error) => error.is_unsupported(),
            _ => false,
        }
    }
}

/// Whether it exists and this process may write it; writes nothing.
///
/// # Errors
/// With the errno that a write would give.
pub(crate) fn check_writable(files: &KernelFiles, setting: &Setting) -> Result<(), AccessError> {
    match setting {
        Setting::Ethtool(interface, knob) => check_ethtool(files, interface, *knob),
        Setting::IrqbalanceBan => Ok(irqbalance::check(files)?),
        Setting::NapiThread(interface, id) => netdev::check_settable(files, interface, *id)
            .map_err(|source| KernelFileError::new(Operation::CheckWritable, setting.path(), source).into()),
        _ => Ok(files.check_writable(&setting.path())?),
    }
}

/// What the setting holds, as text.
///
/// # Errors
/// If it does not exist or cannot be read.
pub(crate) fn read(files: &KernelFiles, setting: &Setting) -> Result<String, AccessError> {
    match setting {
        Setting::Ethtool(interface, knob) => {
            read_ethtool(files, interface, *knob)?.ok_or_else(|| AccessError::Absent(setting.path()))
        }
        Setting::IrqbalanceBan => {
            let banned = irqbalance::ask(files)?.banned().ok_or(AccessError::NoIrqbalance)?;
            Ok(message::list(&banned))
        }
        Setting::NapiThread(interface, id) => netdev::cpus_of(files, interface, *id)
            .map(|cpus| cpus.to_string())
            .map_err(|source| KernelFileError::new(Operation::Read, setting.path(), source).into()),
        _ => Ok(files.read(&setting.path())?),
    }
}

/// As [`read`]; `None` if it does not exist.
///
/// # Errors
/// As [`read`], ENOENT excepted.
pub(crate) fn read_optional(files: &KernelFiles, setting: &Setting) -> Result<Option<String>, AccessError> {
    match read(files, setting) {
        Ok(text) => Ok(Some(text)),
        Err(AccessError::Absent(_)) => Ok(None),
        Err(AccessError::File(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a text that [`Setting::parse`] understands.
///
/// # Errors
/// If it does not exist, or the kernel or irqbalance refuses the value.
pub(crate) fn write(files: &KernelFiles, setting: &Setting, text: &str) -> Result<(), AccessError> {
    match setting {
        Setting::Ethtool(interface, knob) => write_ethtool(files, interface, *knob, text),
        Setting::IrqbalanceBan => {
            let irqs = message::parse_list(text).ok_or_else(|| not_ours(setting, text))?;
            Ok(irqbalance::ban(files, &irqs)?)
        }
        Setting::NapiThread(interface, id) => CpuSet::parse_list(text)
            .map_err(std::io::Error::other)
            .and_then(|cpus| netdev::set_cpus(files, interface, *id, &cpus))
            .map_err(|source| {
                KernelFileError::new(Operation::Write(text.to_owned()), setting.path(), source).into()
            }),
        _ => Ok(files.write_existing(&setting.path(), text)?),
    }
}

/// What ethtool says; `None` where the interface does not have it.
fn read_ethtool(
    files: &KernelFiles,
    interface: &InterfaceName,
    knob: Knob,
) -> Result<Option<String>, AccessError> {
    if !files.is_live() {
        return Ok(Ethtool::read(files, interface)?.text(knob));
    }
    match ethtool::read_one(interface, knob) {
        Ok(ethtool) => Ok(ethtool.text(knob)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_ethtool(files: &KernelFiles, interface: &InterfaceName, knob: Knob) -> Result<(), AccessError> {
    if !files.is_live() {
        return Ok(files.check_writable(&Ethtool::captured_path(interface))?);
    }
    Ok(ethtool::check_settable(interface, knob)?)
}

fn write_ethtool(
    files: &KernelFiles,
    interface: &InterfaceName,
    knob: Knob,
    text: &str,
) -> Result<(), AccessError> {
    let refused =
        |source| AccessError::Value { path: Setting::Ethtool(interface.clone(), knob).path(), source };
    if !files.is_live() {
        let mut ethtool = Ethtool::read(files, interface)?;
        ethtool.set(knob, text).map_err(refused)?;
        let json = serde_json::to_string_pretty(&ethtool).expect("strings and numbers");
        return Ok(files.write_existing(&Ethtool::captured_path(interface), &json)?);
    }
    let deadline = Instant::now() + BUSY_DEADLINE;
    loop {
        match ethtool::set(interface, knob, text) {
            Ok(()) => return Ok(()),
            Err(SetKnobError::Kernel(error)) if error.is_busy() && Instant::now() < deadline => {
                std::thread::sleep(BUSY_POLL);
            }
            Err(SetKnobError::Kernel(error)) => return Err(error.into()),
            Err(SetKnobError::Value(source)) => return Err(refused(source)),
        }
    }
}

/// What the journal holds of a change, for a restore: the text that was read, and of irqbalance's list, which
/// others change, too, only what is added to it.
pub(crate) fn journal_text(
    files: &KernelFiles,
    change: &Change,
    read: String,
) -> Result<String, AccessError> {
    match change.setting {
        Setting::IrqbalanceBan => {
            Ok(message::additions(&irqbalance::additions(files, &change.after.irqs())?))
        }
        _ => Ok(read),
    }
}

/// A journal's text of two changes of the same setting, of which `first` was made first.
pub(crate) fn merged(setting: &Setting, first: &str, second: &str) -> String {
    let both = message::parse_additions(first).zip(message::parse_additions(second));
    match (setting, both) {
        (Setting::IrqbalanceBan, Some((mut all, second))) => {
            for (pid, irqs) in second {
                all.entry(pid).or_default().extend(irqs);
            }
            message::additions(&all)
        }
        _ => first.to_owned(),
    }
}

/// What became of a setting that was put back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PutBack {
    /// The old value was written and read back.
    Written {
        /// What it held.
        found: String,
        /// What it holds now.
        now: String,
    },
    /// It held the old value.
    Unchanged,
    /// It does not exist any more; the reason.
    Gone(String),
}

/// Gives irqbalance back what [`journal_text`] says that it was told to leave alone, whatever else it was
/// told.
pub(crate) fn give_back(files: &KernelFiles, text: &str) -> Result<PutBack, AccessError> {
    let ours = message::parse_additions(text).ok_or_else(|| not_ours(&Setting::IrqbalanceBan, text))?;
    let value = |irqs| Value::from_irqs(&irqs).to_string();
    match irqbalance::give_back(files, &ours)? {
        GivenBack::Gone => Ok(PutBack::Gone(
            "irqbalance has ended or was restarted since; the bans ended with it".to_owned(),
        )),
        GivenBack::Unchanged => Ok(PutBack::Unchanged),
        GivenBack::Done { found, left } => Ok(PutBack::Written { found: value(found), now: value(left) }),
    }
}

fn not_ours(setting: &Setting, text: &str) -> AccessError {
    AccessError::Journal { path: setting.path(), text: text.escape_debug().to_string() }
}
