//! `[cpu]` and `[napi]`: what costs power for latency, and is therefore only set where it is asked for. Pure.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::section::{ProfileError, Section};
use crate::host::NapiFile;

/// The most nanoseconds that a packet may be kept waiting: one second.
const MAX_TIMEOUT: i128 = 1_000_000_000;

/// The most polls without a packet; each is one `gro_flush_timeout`.
const MAX_POLLS: i128 = 1000;

/// `[cpu]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuWish {
    /// The governor of the workers' CPUs; `None` leaves it.
    pub governor: Option<String>,
    /// Refuse the profile where a CPU does not have it.
    pub require: bool,
}

/// `[napi]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NapiWish {
    /// What each file shall hold; one that is absent is left.
    pub files: BTreeMap<NapiFile, u32>,
    /// Refuse the profile where the kernel lacks a file.
    pub require: bool,
}

impl NapiWish {
    /// The value as it is written in a profile.
    #[must_use]
    pub fn shown(&self, file: NapiFile) -> String {
        match (file, self.files.get(&file)) {
            (NapiFile::Threaded, Some(value)) => (*value == 1).to_string(),
            (_, value) => value.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

pub(super) fn parse_cpu(section: &Section) -> Result<CpuWish, ProfileError> {
    section.refuse_unknown(&["governor", "require"])?;
    let governor = section.text("governor", |text| {
        // CPUFREQ_NAME_LEN is 16; the kernel's own names are words.
        let is_name = !text.is_empty()
            && text.len() < 16
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if is_name {
            Ok(text.to_owned())
        } else {
            Err(format!("\"{}\" is no name of a governor, such as performance", text.escape_debug()))
        }
    })?;
    Ok(CpuWish { governor, require: section.flag("require")?.unwrap_or(false) })
}

pub(super) fn parse_napi(section: &Section) -> Result<NapiWish, ProfileError> {
    section.refuse_unknown(&["gro_flush_timeout", "napi_defer_hard_irqs", "threaded", "require"])?;
    let number = |file: NapiFile, most| -> Result<_, ProfileError> {
        let value = section.integer(file.name(), 0..=most)?;
        Ok(value.and_then(|value| u32::try_from(value).ok()).map(|value| (file, value)))
    };
    let mut files = BTreeMap::new();
    files.extend(number(NapiFile::GroFlushTimeout, MAX_TIMEOUT)?);
    files.extend(number(NapiFile::DeferHardIrqs, MAX_POLLS)?);
    files.extend(threaded(section)?.map(|threaded| (NapiFile::Threaded, u32::from(threaded))));
    let polls = files.get(&NapiFile::DeferHardIrqs).copied().unwrap_or_default();
    if polls > 0 && files.get(&NapiFile::GroFlushTimeout) == Some(&0) {
        let key = NapiFile::DeferHardIrqs.name();
        let span = section.get(key).map(toml::Spanned::span).unwrap_or_default();
        return Err(section.error(key, &span, "has no effect with gro_flush_timeout = 0"));
    }
    Ok(NapiWish { files, require: section.flag("require")?.unwrap_or(false) })
}

/// `true`, `false`, or `None` for `"keep"` and for nothing.
fn threaded(section: &Section) -> Result<Option<bool>, ProfileError> {
    const KEY: &str = "threaded";
    let Some(value) = section.get(KEY) else { return Ok(None) };
    match value.get_ref() {
        DeValue::Boolean(value) => Ok(Some(*value)),
        DeValue::String(text) if text == "keep" => Ok(None),
        _ => Err(section.error(KEY, &value.span(), "must be true, false or \"keep\"")),
    }
}
