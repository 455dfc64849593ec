//! `check`: one line for each setting that is not as wanted. Pure.

use std::io::{self, Write};

use serde::Serialize;

use super::write_json;
use super::{Format, KeptJson, PendingJson, SCHEMA, SkippedJson, kept_json, pending_json, skipped_json};
use crate::check::Checked;
use crate::host::InterfaceName;
use crate::script::Script;
use crate::verify::Mismatch;

#[derive(Serialize)]
struct CheckJson<'a> {
    schema: u32,
    command: &'a str,
    interfaces: Vec<InterfaceName>,
    settings: usize,
    drift: Vec<DriftJson>,
    kept: Vec<KeptJson>,
    skipped: Vec<SkippedJson<'a>>,
    notes: &'a [String],
    pending: Vec<PendingJson>,
}

/// A setting that is not as wanted: the kernel path without the root, values in the kernel's syntax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DriftJson {
    /// The kernel path.
    path: String,
    /// What it holds; null if it is gone.
    found: Option<String>,
    /// What it shall hold.
    wanted: String,
}

impl From<&Mismatch> for DriftJson {
    fn from(mismatch: &Mismatch) -> Self {
        Self {
            path: mismatch.setting.path(),
            found: mismatch.found.as_ref().map(ToString::to_string),
            wanted: mismatch.desired.to_string(),
        }
    }
}

/// A drift in one line.
fn drift_line(mismatch: &Mismatch) -> String {
    let DriftJson { path, found, wanted } = mismatch.into();
    format!("{path}: {}, wanted {wanted}", found.as_deref().unwrap_or("gone"))
}

/// The drifts, and nothing where there is none: cron mails what is printed.
///
/// # Errors
/// As `out` gives them.
pub fn check(out: &mut impl Write, format: Format, checked: &Checked) -> io::Result<()> {
    let Checked { desired, found, .. } = checked;
    if format == Format::Text {
        return found.mismatches.iter().try_for_each(|drift| writeln!(out, "{}", drift_line(drift)));
    }
    let json = CheckJson {
        schema: SCHEMA,
        command: "check",
        interfaces: checked.host.interfaces(),
        settings: desired.settings.len(),
        drift: found.mismatches.iter().map(DriftJson::from).collect(),
        kept: desired.kept.iter().map(kept_json).collect(),
        skipped: desired.skipped.iter().map(skipped_json).collect(),
        notes: &desired.notes,
        pending: found.pending.iter().map(pending_json).collect(),
    };
    write_json(out, &json)
}

#[derive(Serialize)]
struct ScriptJson<'a> {
    schema: u32,
    command: &'a str,
    interfaces: Vec<InterfaceName>,
    script: &'a str,
    again: Vec<&'a InterfaceName>,
    kept: Vec<KeptJson>,
    skipped: Vec<SkippedJson<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ProfileJson<'a> {
    schema: u32,
    command: &'a str,
    interfaces: &'a [InterfaceName],
    profile: &'a str,
}

/// The profile itself.
///
/// # Errors
/// As `out` gives them.
pub fn profile(
    out: &mut impl Write,
    format: Format,
    interfaces: &[InterfaceName],
    profile: &str,
) -> io::Result<()> {
    if format == Format::Text {
        return out.write_all(profile.as_bytes());
    }
    write_json(out, &ProfileJson { schema: SCHEMA, command: "profile init", interfaces, profile })
}

/// The script itself.
///
/// # Errors
/// As `out` gives them.
pub fn script(out: &mut impl Write, format: Format, made: &Script, script: &str) -> io::Result<()> {
    if format == Format::Text {
        return out.write_all(script.as_bytes());
    }
    let desired = &made.planned.desired;
    let json = ScriptJson {
        schema: SCHEMA,
        command: "script",
        interfaces: made.planned.host.interfaces(),
        script,
        again: made.again.iter().collect(),
        kept: desired.kept.iter().map(kept_json).collect(),
        skipped: desired.skipped.iter().map(skipped_json).collect(),
        notes: &desired.notes,
    };
    write_json(out, &json)
}
