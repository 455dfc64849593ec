//! What stands beside the differences, on stderr: it is no difference, so not for the same stream. JSON has
//! it among the rest.

use std::io::{self, Write};

use super::Format;
use crate::plan::{Kept, Skipped};

/// The sysctls of which the profile asks less than they hold, one a line: no differences, so not for the same
/// stream. JSON has them among the rest.
///
/// # Errors
/// As `err` gives them.
pub fn kept(err: &mut impl Write, format: Format, kept: &[Kept]) -> io::Result<()> {
    if format == Format::Json {
        return Ok(());
    }
    kept.iter().try_for_each(|Kept { name, value, asked }| {
        writeln!(
            err,
            "tune: kept {}: {value}: the profile asks for less; write {{ exact = {} }} to lower it",
            name.path(),
            asked.in_toml()
        )
    })
}

/// The wishes that the host cannot have, one a line, for stderr. JSON has them among the rest.
///
/// # Errors
/// As `err` gives them.
pub fn skipped(err: &mut impl Write, format: Format, skipped: &[Skipped]) -> io::Result<()> {
    if format == Format::Json {
        return Ok(());
    }
    skipped.iter().try_for_each(|Skipped { wish, reason }| writeln!(err, "tune: skipped {wish}: {reason}"))
}

/// What who applies the profile should know, one a line, for stderr. JSON has it among the rest.
///
/// # Errors
/// As `err` gives them.
pub fn notes(err: &mut impl Write, format: Format, notes: &[String]) -> io::Result<()> {
    if format == Format::Json {
        return Ok(());
    }
    notes.iter().try_for_each(|note| writeln!(err, "tune: note: {note}"))
}
