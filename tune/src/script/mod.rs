//! `script`: the changes of a plan as a POSIX shell script that does what `apply` would. Pure.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use crate::Planned;
use crate::host::Irq;
use crate::host::names::list;
use crate::plan::Skipped;
use crate::setting::{Change, Setting, Value};

/// The functions of every script.
const HEAD: &str = include_str!("head.sh");

/// Why there is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A setting that the shell cannot write.
    #[error(
        "{0} is no file that a shell script could write; leave it out of the profile, or use tune apply on the host itself"
    )]
    NoFile(String),
}

/// The plan without irqbalance's list, which only a message on its socket changes: that is skipped, and said.
#[must_use]
pub fn feasible(mut planned: Planned) -> Planned {
    let bans = planned.changes.extract_if(.., |change| change.setting == Setting::IrqbalanceBan);
    for change in bans.collect::<Vec<_>>() {
        planned.desired.settings.remove(&change.setting);
        planned.desired.reasons.remove(&change.setting);
        let added = &change.after.irqs() - &change.before.irqs();
        let options: Vec<String> = added.iter().map(|irq| format!("--banirq={irq}")).collect();
        planned.desired.skipped.push(Skipped {
            wish: change.setting.path(),
            reason: format!(
                "a shell script cannot tell irqbalance, which may move the interrupts again; start it with {}",
                options.join(" ")
            ),
        });
    }
    planned
}

/// The script. `made_by` is the command that was run, for the reader.
///
/// # Errors
/// If a change is not one of a file.
pub fn script(planned: &Planned, made_by: &str) -> Result<String, ScriptError> {
    let (wanted, changes) = (planned.desired.settings.len(), planned.changes.len());
    let mut text = format!(
        "#!/bin/sh\n# Made by: {}\n# For {} on this host: {changes} of {wanted} settings differ and are written, in this order.\n",
        comment(made_by),
        list(planned.host.interfaces().iter()),
    );
    text.push_str(
        "#\n# Run it as root: sh FILE. Everything is looked at before the first write, each value is read back after it, and a\n\
         # failure undoes what was written; at its end it says how to undo it later. It needs awk, cat, mv, rm, sed and tr.\n\
         # TUNE_ROOT=DIRECTORY takes /proc, /sys and /run from below a directory, to try it.\n",
    );
    for skipped in &planned.desired.skipped {
        let _ = writeln!(text, "# Skipped: {}: {}", comment(&skipped.wish), comment(&skipped.reason));
    }
    if changes == 0 {
        text.push_str("set -eu\necho \"nothing to do\"\n");
        return Ok(text);
    }
    text.push_str(HEAD);
    text.push_str("\nchanges() {\n");
    for change in &planned.changes {
        push_change(&mut text, planned, change)?;
    }
    text.push_str("}\n\n");
    push_interrupts(&mut text, planned);
    text.push_str(
        "phase=look\nchanges\nmkdir -p \"$root/run\"\ntrap at_exit EXIT\ntrap 'exit 129' HUP\ntrap 'exit 130' INT\n\
         trap 'exit 143' TERM\nphase=put\nchanges\nfinished=yes\n\
         if [ \"$written\" -eq 0 ]; then\n    echo \"nothing to do\"\nelse\n    \
         echo \"applied $written changes; to undo: sh $undo_file\"\nfi\n",
    );
    Ok(text)
}

fn push_change(text: &mut String, planned: &Planned, change: &Change) -> Result<(), ScriptError> {
    let path = change.setting.path();
    if !path.starts_with('/') {
        return Err(ScriptError::NoFile(path));
    }
    if let Some(reason) = planned.desired.reasons.get(&change.setting) {
        let _ = writeln!(text, "    # {}", comment(reason));
    }
    let form = match change.after {
        Value::Mask(_) | Value::Queues(_) => "mask",
        _ => "words",
    };
    let [path, before, after] =
        [path, change.before.to_string(), change.after.to_string()].map(|word| quoted(&word));
    let _ = writeln!(text, "    step {form} {path} {before} {after}");
    Ok(())
}

/// The check that each interrupt still is whose it was.
fn push_interrupts(text: &mut String, planned: &Planned) {
    let irqs = planned.changes.iter().filter_map(|change| match change.setting {
        Setting::IrqAffinity(irq) => Some(irq),
        _ => None,
    });
    let name = |irq: Irq| {
        let mut rows = planned.host.nics.iter().flat_map(|on| &on.queue_irqs.rows);
        let row = rows.find(|row| row.irq == irq)?;
        Some((irq, row.name.clone()))
    };
    for (irq, name) in irqs.filter_map(name) {
        let _ = writeln!(text, "interrupt {irq} {}", quoted(&name));
    }
}

/// A text on one line of a comment.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A word in single quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
