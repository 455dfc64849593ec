//! `capture` and `diff`. Pure.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::{Format, SCHEMA, count, write_json};
use crate::capture::Capture;
use crate::compare::Difference;
use crate::host::InterfaceName;

#[derive(Serialize)]
struct CaptureJson<'a> {
    schema: u32,
    command: &'a str,
    file: String,
    interfaces: &'a [InterfaceName],
    entries: usize,
    failed: &'a [String],
}

/// What was captured, and where to.
///
/// # Errors
/// As `out` gives them.
pub fn capture(out: &mut impl Write, format: Format, file: &Path, captured: &Capture) -> io::Result<()> {
    let Capture { tree, interfaces, failed } = captured;
    if format == Format::Json {
        let (command, file) = ("capture", file.display().to_string());
        let json = CaptureJson { schema: SCHEMA, command, file, interfaces, entries: tree.len(), failed };
        return write_json(out, &json);
    }
    let names: Vec<&str> = interfaces.iter().map(InterfaceName::as_str).collect();
    let names = if names.is_empty() { "no interface".to_owned() } else { names.join(", ") };
    writeln!(out, "{}: {names}, {}", file.display(), count(tree.len(), "file"))
}

#[derive(Serialize)]
struct DiffJson<'a> {
    schema: u32,
    command: &'a str,
    kind: &'a str,
    a: String,
    b: String,
    differences: &'a [Difference],
}

/// The differences between `names`, one a line.
///
/// # Errors
/// As `out` gives them.
pub fn diff(
    out: &mut impl Write,
    format: Format,
    kind: &str,
    names: (&Path, &Path),
    differences: &[Difference],
) -> io::Result<()> {
    if format == Format::Json {
        let (a, b) = (names.0.display().to_string(), names.1.display().to_string());
        return write_json(out, &DiffJson { schema: SCHEMA, command: "diff", kind, a, b, differences });
    }
    differences.iter().try_for_each(|Difference { path, a, b }| {
        let [a, b] = [a, b].map(|value| value.as_deref().unwrap_or("absent"));
        writeln!(out, "{path}: {a} -> {b}")
    })
}
