//! What the commands print, as text and as JSON with `"schema": 1`. Takes data and an `impl Write`.

mod asides;
mod check;
mod compare;
mod explain;
mod reasons;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::io::{self, Write};

use serde::Serialize;

pub use asides::{kept, notes, skipped};
pub use check::{check, pending, profile, script};
pub use compare::{capture, diff};
pub use explain::{Explained, explain};
pub use show::show;
pub use watch::watch;

use crate::host::InterfaceName;
use crate::plan::{Kept, Skipped};
use crate::restore::Restored;
use crate::setting::{Change, ChangeText};
use crate::verify::PendingMove;
use crate::{Applied, Planned};

const SCHEMA: u32 = 1;

/// Text for people or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines.
    Text,
    /// One JSON object and a newline.
    Json,
}

/// `plan --json`, and the part of it that `apply --json` shares.
#[derive(Serialize)]
struct ChangesJson<'a> {
    schema: u32,
    command: &'a str,
    interfaces: &'a [InterfaceName],
    changes: Vec<ChangeText>,
    kept: Vec<KeptJson>,
    skipped: Vec<SkippedJson<'a>>,
    notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Vec<PendingJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Vec<reasons::Explained<'a>>>,
}

/// A sysctl that stays above what the profile asks for.
#[derive(Serialize)]
struct KeptJson {
    path: String,
    value: String,
    asked: String,
}

/// A wish that the host cannot have.
#[derive(Serialize)]
struct SkippedJson<'a> {
    wish: &'a str,
    reason: &'a str,
}

/// An interrupt whose controller has not followed its affinity yet; CPUs as lists.
#[derive(Serialize)]
struct PendingJson {
    irq: crate::host::Irq,
    affinity: String,
    effective: String,
}

#[derive(Serialize)]
struct RestoreJson<'a> {
    schema: u32,
    command: &'a str,
    restored: &'a [ChangeText],
    unchanged: usize,
    renamed: &'a [String],
    gone: &'a [String],
    failed: &'a [String],
    other_boot: bool,
    elsewhere: Vec<String>,
}

/// The differences, one a line, and nothing else; with `explain` every setting and the reason for it.
///
/// # Errors
/// As `out` gives them.
pub fn plan(out: &mut impl Write, format: Format, planned: &Planned, explain: bool) -> io::Result<()> {
    match format {
        Format::Text if explain => reasons::write_text(out, planned),
        Format::Text => write_changes(out, &texts(&planned.changes)),
        Format::Json => write_json(
            out,
            &ChangesJson {
                schema: SCHEMA,
                command: "plan",
                interfaces: &planned.host.interfaces(),
                changes: texts(&planned.changes),
                kept: planned.desired.kept.iter().map(kept_json).collect(),
                skipped: planned.desired.skipped.iter().map(skipped_json).collect(),
                notes: &planned.desired.notes,
                pending: None,
                failed: None,
                settings: explain.then(|| reasons::explained(planned)),
            },
        ),
    }
}

/// What was written, and `way_back`, the command that puts it back.
///
/// # Errors
/// As `out` gives them.
pub fn apply(out: &mut impl Write, format: Format, applied: &Applied, way_back: &str) -> io::Result<()> {
    let changes = texts(&applied.changes);
    if format == Format::Json {
        let pending = applied.pending.iter().map(pending_json).collect();
        let kept = applied.kept.iter().map(kept_json).collect();
        let skipped = applied.skipped.iter().map(skipped_json).collect();
        let (interfaces, notes) = (&applied.interfaces, &applied.notes);
        let json = ChangesJson {
            schema: SCHEMA,
            command: "apply",
            interfaces,
            changes,
            kept,
            skipped,
            notes,
            pending: Some(pending),
            failed: Some(&applied.failed),
            settings: None,
        };
        return write_json(out, &json);
    }
    if changes.is_empty() && !applied.failed.is_empty() {
        return writeln!(out, "nothing was applied");
    }
    if changes.is_empty() {
        return writeln!(out, "nothing to do");
    }
    write_changes(out, &changes)?;
    for pending in &applied.pending {
        writeln!(out, "{pending}; it moves when it fires next")?;
    }
    if applied.replaced_journal {
        writeln!(out, "the journal was of another boot, which ended what it held; replaced it")?;
    }
    writeln!(out, "applied {}; \"{way_back}\" puts back what was there", count(changes.len(), "change"))
}

/// What was put back.
///
/// # Errors
/// As `out` gives them.
pub fn restore(out: &mut impl Write, format: Format, restored: &Restored) -> io::Result<()> {
    if format == Format::Json {
        let json = RestoreJson {
            schema: SCHEMA,
            command: "restore",
            restored: &restored.written,
            unchanged: restored.unchanged,
            renamed: &restored.renamed,
            gone: &restored.gone,
            failed: &restored.failed,
            other_boot: restored.other_boot,
            elsewhere: restored.elsewhere.iter().map(|path| path.display().to_string()).collect(),
        };
        return write_json(out, &json);
    }
    write_changes(out, &restored.written)?;
    for line in restored.renamed.iter().chain(&restored.gone) {
        writeln!(out, "{line}")?;
    }
    if restored.other_boot {
        return writeln!(
            out,
            "nothing to restore: the journal was of another boot, which ended what it held; removed it"
        );
    }
    let known = restored.written.len() + restored.unchanged + restored.gone.len() + restored.failed.len();
    if known == 0 {
        write!(out, "nothing to restore")?;
        for (index, journal) in restored.elsewhere.iter().enumerate() {
            let before = if index == 0 { " in this network namespace; of others there are " } else { ", " };
            write!(out, "{before}{}", journal.display())?;
        }
        return writeln!(out);
    }
    let unchanged = match restored.unchanged {
        0 => String::new(),
        1 => ", 1 had its old value already".to_owned(),
        number => format!(", {number} had their old values already"),
    };
    writeln!(out, "restored {}{unchanged}", count(restored.written.len(), "value"))
}

fn kept_json(kept: &Kept) -> KeptJson {
    KeptJson { path: kept.name.path(), value: kept.value.to_string(), asked: kept.asked.to_string() }
}

fn skipped_json(skipped: &Skipped) -> SkippedJson<'_> {
    SkippedJson { wish: &skipped.wish, reason: &skipped.reason }
}

fn pending_json(pending: &PendingMove) -> PendingJson {
    PendingJson {
        irq: pending.irq,
        affinity: pending.affinity.to_string(),
        effective: pending.effective.to_string(),
    }
}

fn texts(changes: &[Change]) -> Vec<ChangeText> {
    changes.iter().map(ChangeText::from).collect()
}

fn write_changes(out: &mut impl Write, changes: &[ChangeText]) -> io::Result<()> {
    changes
        .iter()
        .try_for_each(|ChangeText { path, before, after }| writeln!(out, "{path}: {before} -> {after}"))
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
