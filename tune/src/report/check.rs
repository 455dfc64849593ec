//! `check`: one line for each setting that is not as wanted. Pure.

use std::io::{self, Write};

use serde::Serialize;

use super::write_json;
use super::{Format, KeptJson, PendingJson, SCHEMA, SkippedJson, kept_json, pending_json, skipped_json};
use crate::check::Checked;
use crate::host::InterfaceName;
use crate::script::Script;
use crate::verify::{Mismatch, PendingMove};

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

impl From<&PendingMove> for DriftJson {
    fn from(stuck: &PendingMove) -> Self {
        let PendingMove { affinity, effective, .. } = stuck;
        Self { path: stuck.path(), found: Some(effective.to_string()), wanted: affinity.to_string() }
    }
}

/// The drifts, and nothing where there is none: cron mails what is printed.
///
/// # Errors
/// As `out` gives them.
pub fn check(out: &mut impl Write, format: Format, checked: &Checked) -> io::Result<()> {
    let Checked { desired, found, stuck, .. } = checked;
    let drift = found.mismatches.iter().map(DriftJson::from).chain(stuck.iter().map(DriftJson::from));
    if format == Format::Text {
        return drift.map(drift_line).try_for_each(|line| writeln!(out, "{line}"));
    }
    let json = CheckJson {
        schema: SCHEMA,
        command: "check",
        interfaces: checked.host.interfaces(),
        settings: desired.settings.len(),
        drift: drift.collect(),
        kept: desired.kept.iter().map(kept_json).collect(),
        skipped: desired.skipped.iter().map(skipped_json).collect(),
        notes: &desired.notes,
        pending: found.pending.iter().map(pending_json).collect(),
    };
    write_json(out, &json)
}

/// A drift in one line.
fn drift_line(DriftJson { path, found, wanted }: DriftJson) -> String {
    format!("{path}: {}, wanted {wanted}", found.as_deref().unwrap_or("gone"))
}

/// The interrupts that lag behind, one a line, for stderr: no drift, unless they fire.
///
/// # Errors
/// As `err` gives them.
pub fn pending(err: &mut impl Write, format: Format, checked: &Checked) -> io::Result<()> {
    if format == Format::Json {
        return Ok(());
    }
    checked.found.pending.iter().try_for_each(|pending| {
        let next = if checked.stuck.contains(pending) {
            "it has fired there while this looked, and did not move"
        } else {
            "it moves when it fires next"
        };
        writeln!(err, "tune: note: {pending}; {next}")
    })
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
