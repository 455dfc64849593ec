//! `script`: the changes of a plan as a POSIX shell script that does what `apply` would. Pure.

mod origin;
mod stages;
#[cfg(test)]
mod tests;

use std::fmt::Write;

pub use origin::Origin;
pub use stages::{Script, Step};

use crate::host::ethtool::Knob;
use crate::host::names::list;
use crate::host::{Host, Irq};
use crate::irqbalance::Irqbalance;
use crate::profile::Profile;
use crate::setting::{Setting, Value};

/// The functions of every script.
const FUNCTIONS: &str = concat!(
    include_str!("head.sh"),
    include_str!("values.sh"),
    include_str!("undo.sh"),
    include_str!("steps.sh")
);

/// The programs that they call, besides those of some settings, as the head names them.
const TOOLS: [&str; 16] = [
    "awk",
    "cat",
    "flock",
    "grep",
    "id",
    "ip (else a foreign /sys is not noticed)",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sh",
    "sleep",
    "sort",
    "tee",
    "tr",
];

impl Script {
    /// The text.
    #[must_use]
    pub fn text(&self, profile: &Profile, origin: &Origin) -> String {
        let host = &self.planned.host;
        let mut text = format!(
            "#!/bin/sh\n# Made by: {}\n# For {} on this host: {} settings, in this order.\n",
            comment(&origin.command),
            list(host.interfaces().iter()),
            self.steps.len(),
        );
        text.push_str(&self.head(origin));
        if self.steps.is_empty() {
            text.push_str("set -eu\necho \"nothing to do\"\n");
            return text;
        }
        text.push_str(FUNCTIONS);
        text.push_str("\nchanges() {\n");
        for setting in &self.overwritten {
            push_keep(&mut text, host, setting);
        }
        for step in &self.steps {
            self.push_step(&mut text, profile, step);
        }
        text.push_str("}\n\n");
        let _ = writeln!(text, "inside={}", quoted(&origin.inside));
        for (interface, mark) in &origin.marks {
            let _ = writeln!(text, "made_for {}{}", quoted(interface.as_str()), mark.arguments());
        }
        push_interrupts(&mut text, host, &self.steps);
        text.push_str("run\n");
        if !self.again.is_empty() {
            // 2, as of a plan with changes.
            let _ = writeln!(
                text,
                "[ \"$written\" -eq 0 ] || {{\n    echo \"tune script: the queues of \"{}\" were made anew, \
                 and what is set of them depends on what they are now: make this script once more, from a \
                 new capture where it was made from one, and run that\" >&2\n    exit 2\n}}",
                quoted(&list(self.again.iter()))
            );
        }
        text
    }

    /// What it needs, and what is left out.
    fn head(&self, origin: &Origin) -> String {
        let mut tools = TOOLS.to_vec();
        for Step { setting, .. } in &self.steps {
            let more = match setting {
                Setting::Ethtool(..) => "ethtool",
                Setting::NapiThread(..) => "taskset (util-linux)",
                Setting::IrqbalanceBan => "socat (else irqbalance is not told)",
                _ => continue,
            };
            if !tools.contains(&more) {
                tools.push(more);
            }
        }
        let mut text = format!(
            "#\n# Run it as root: {}sh FILE. It refuses where the interface is not the one it was made for.\n\
             # Everything is looked at before the first write, each value is read back after it, and a\n\
             # failure undoes what was written; at its end it says how to undo it later, with what earlier\n\
             # runs wrote and nobody undid. A second run has nothing to do. It runs beside no other one and \
             no\n\
             # tune (a lock on /run/corelocal), and knows nothing of tune's journal: of an apply and a \
             script\n\
             # undo the later one first.\n\
             # It needs {}.\n\
             # TUNE_ROOT=DIRECTORY takes /proc, /sys and /run from below a directory, to try it.\n",
            comment(&origin.inside),
            tools.join(", ")
        );
        let desired = &self.planned.desired;
        for skipped in &desired.skipped {
            let _ = writeln!(text, "# Skipped: {}: {}", comment(&skipped.wish), comment(&skipped.reason));
        }
        for note in &desired.notes {
            let _ = writeln!(text, "# Note: {}", comment(note));
        }
        text
    }

    fn push_step(&self, text: &mut String, profile: &Profile, Step { setting, before, after }: &Step) {
        if let Some(reason) = self.planned.desired.reasons.get(setting) {
            let _ = writeln!(text, "    # {}", comment(reason));
        }
        if *setting == Setting::IrqbalanceBan {
            return push_bans(text, &self.planned.host.irqbalance, after);
        }
        let optional = matches!(setting, Setting::Ethtool(_, knob) if !profile.ethtool.requires(*knob));
        let how = match before {
            None => "later",
            Some(_) if optional => "try",
            Some(_) => "step",
        };
        let _ = write!(text, "    {how} {} {}", form(setting, after), quoted(&setting.path()));
        for value in before.iter().chain([after]) {
            let _ = write!(text, " {}", quoted(&value.to_string()));
        }
        text.push('\n');
    }
}

/// How values are compared.
fn form(setting: &Setting, value: &Value) -> &'static str {
    match (setting, value) {
        (Setting::Ethtool(_, Knob::Rings), _) => "rings",
        (Setting::Ethtool(_, Knob::Hash(_)), _) => "fields",
        (_, Value::Mask(_) | Value::Queues(_)) => "mask",
        (_, Value::List(_)) => "list",
        (_, Value::Numbers(_) | Value::Words(_)) => "words",
    }
}

/// Each irqbalance is told for itself, besides what it leaves alone already.
fn push_bans(text: &mut String, irqbalance: &Irqbalance, wanted: &Value) {
    let Irqbalance::Running(daemons) = irqbalance else { return };
    for daemon in daemons {
        let before = Value::from_irqs(&daemon.banned_irqs);
        let after = Value::from_irqs(&(&daemon.banned_irqs | &wanted.irqs()));
        let _ = writeln!(text, "    step words 'irqbalance/{}' '{before}' '{after}'", daemon.pid);
    }
}

fn push_keep(text: &mut String, host: &Host, setting: &Setting) {
    let path = quoted(&setting.path());
    let _ = match setting {
        Setting::IrqAffinity(irq) => match handler(host, *irq) {
            Some(name) => writeln!(text, "    keep {path} {irq} {}", quoted(name)),
            None => return,
        },
        // Another thread polls when the queues have been made anew; `set_to` knows of a table that it gives
        // back.
        Setting::NapiThread(..) | Setting::Ethtool(..) => return,
        _ => writeln!(text, "    keep {path}"),
    };
}

/// The check that each interrupt still is whose it was.
fn push_interrupts(text: &mut String, host: &Host, steps: &[Step]) {
    for step in steps {
        if let Setting::IrqAffinity(irq) = step.setting
            && let Some(name) = handler(host, irq)
        {
            let _ = writeln!(text, "interrupt {irq} {}", quoted(name));
        }
    }
}

fn handler(host: &Host, irq: Irq) -> Option<&str> {
    let mut rows = host.nics.iter().flat_map(|on| &on.queue_irqs.rows);
    rows.find(|row| row.irq == irq).map(|row| row.name.as_str()).filter(|name| !name.is_empty())
}

/// A text on one line of a comment.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A word in single quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// True if `ethtool -X` can make this table: a rule, or runs whose queues ascend, by weights.
fn ethtool_can_make(table: &str) -> bool {
    let mut queues =
        table.split_whitespace().skip(1).filter_map(|run| run.split_once('*')?.0.parse::<u32>().ok());
    table.starts_with("equal ") || queues.by_ref().is_sorted_by(|one, next| one < next)
}

/// True if the setting is the indirection table.
fn is_table(setting: &Setting) -> bool {
    matches!(setting, Setting::Ethtool(_, Knob::Rss))
}
