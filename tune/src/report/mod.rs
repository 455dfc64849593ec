//! What the commands print, as text and as JSON with `"schema": 1`. Takes data and an `impl Write`.

mod show;
mod table;

use std::io::{self, Write};

use serde::Serialize;

pub use show::show;

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
    interface: &'a InterfaceName,
    changes: Vec<ChangeText>,
    kept: Vec<KeptJson>,
    skipped: Vec<SkippedJson<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Vec<PendingJson>>,
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
    restored: &'a [ChangeText],
    unchanged: usize,
    renamed: &'a [String],
    gone: &'a [String],
    failed: &'a [String],
    other_boot: bool,
    elsewhere: Vec<String>,
}

/// The differences, one a line, and nothing else.
///
/// # Errors
/// As `out` gives them.
pub fn plan(out: &mut impl Write, format: Format, planned: &Planned) -> io::Result<()> {
    match format {
        Format::Text => write_changes(out, &texts(&planned.changes)),
        Format::Json => write_json(
            out,
            &ChangesJson {
                schema: SCHEMA,
                interface: &planned.host.nic.name,
                changes: texts(&planned.changes),
                kept: planned.desired.kept.iter().map(kept_json).collect(),
                skipped: planned.desired.skipped.iter().map(skipped_json).collect(),
                notes: &planned.desired.notes,
                pending: None,
            },
        ),
    }
}

/// The sysctls of which the profile asks less than they hold, one a line: no differences, so not for the same stream.
/// JSON has them among the rest.
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

/// What is not known before it is written, one a line, for stderr. JSON has it among the rest.
///
/// # Errors
/// As `err` gives them.
pub fn notes(err: &mut impl Write, format: Format, notes: &[String]) -> io::Result<()> {
    if format == Format::Json {
        return Ok(());
    }
    notes.iter().try_for_each(|note| writeln!(err, "tune: {note}"))
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
        let interface = &applied.interface;
        let json = ChangesJson {
            schema: SCHEMA,
            interface,
            changes,
            kept,
            skipped,
            notes: &[],
            pending: Some(pending),
        };
        return write_json(out, &json);
    }
    if changes.is_empty() {
        return writeln!(out, "nothing to do");
    }
    write_changes(out, &changes)?;
    for PendingMove { irq, affinity, effective } in &applied.pending {
        writeln!(out, "IRQ {irq} is still on CPU {effective}; it moves to {affinity} when it fires next")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::{nic_host, veth_host};

    fn text(report: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        report(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn applied() -> Applied {
        let host = nic_host(2, 1);
        let before = crate::setting::Value::List("0-1".parse().unwrap());
        let after = crate::setting::Value::List("0".parse().unwrap());
        let setting = crate::setting::Setting::IrqAffinity(crate::host::Irq(40));
        let (affinity, effective) = ("0".parse().unwrap(), "1".parse().unwrap());
        Applied {
            interface: host.nic.name,
            changes: vec![Change { setting, before, after }],
            pending: vec![PendingMove { irq: crate::host::Irq(40), affinity, effective }],
            skipped: Vec::new(),
            kept: vec![Kept {
                name: "net.ipv4.tcp_rmem".parse().unwrap(),
                value: crate::setting::Value::from_sysctl("4096 131072 33554432"),
                asked: crate::setting::Value::from_sysctl("4096 131072 16777216"),
            }],
            replaced_journal: false,
        }
    }

    #[test]
    fn what_is_kept_is_said_with_the_way_to_lower_it() {
        assert_eq!(
            text(|err| kept(err, Format::Text, &applied().kept)),
            "tune: kept /proc/sys/net/ipv4/tcp_rmem: 4096 131072 33554432: the profile asks for less; \
             write { exact = \"4096 131072 16777216\" } to lower it\n"
        );
        assert_eq!(text(|err| kept(err, Format::Json, &applied().kept)), "");
    }

    #[test]
    fn apply_prints_changes_lagging_interrupts_and_the_way_back() {
        assert_eq!(
            text(|out| apply(out, Format::Text, &applied(), "tune restore")),
            "/proc/irq/40/smp_affinity_list: 0-1 -> 0\n\
             IRQ 40 is still on CPU 1; it moves to 0 when it fires next\n\
             applied 1 change; \"tune restore\" puts back what was there\n"
        );
        assert_eq!(
            text(|out| apply(out, Format::Json, &applied(), "tune restore")),
            "{\"schema\":1,\"interface\":\"eth0\",\"changes\":[{\"path\":\"/proc/irq/40/smp_affinity_list\",\
             \"before\":\"0-1\",\"after\":\"0\"}],\"kept\":[{\"path\":\"/proc/sys/net/ipv4/tcp_rmem\",\
             \"value\":\"4096 131072 33554432\",\"asked\":\"4096 131072 16777216\"}],\"skipped\":[],\"pending\":[{\"irq\":40,\"affinity\":\"0\",\"effective\":\"1\"}]}\n"
        );
        let nothing = Applied { changes: Vec::new(), ..applied() };
        assert_eq!(text(|out| apply(out, Format::Text, &nothing, "tune restore")), "nothing to do\n");
    }

    #[test]
    fn restore_says_what_it_did() {
        assert_eq!(text(|out| restore(out, Format::Text, &Restored::default())), "nothing to restore\n");
        let elsewhere = vec!["/run/a/journal.3.json".into(), "/run/a/journal.4.json".into()];
        assert_eq!(
            text(|out| restore(out, Format::Text, &Restored { elsewhere, ..Restored::default() })),
            "nothing to restore in this network namespace; of others there are /run/a/journal.3.json, \
             /run/a/journal.4.json\n"
        );
        let gone = Restored { gone: vec!["/a is gone".into()], unchanged: 2, ..Restored::default() };
        assert_eq!(
            text(|out| restore(out, Format::Text, &gone)),
            "/a is gone\nrestored 0 values, 2 had their old values already\n"
        );
        let one = Restored { unchanged: 1, ..Restored::default() };
        assert_eq!(
            text(|out| restore(out, Format::Text, &one)),
            "restored 0 values, 1 had its old value already\n"
        );
    }

    #[test]
    fn show_has_a_row_for_each_queue() {
        let mut host = nic_host(2, 2);
        host.nic.tx_queues[1].xps_cpus = Some("1".parse().unwrap());
        host.queue_irqs.doubt = Some("it is doubtful".into());
        assert_eq!(
            text(|out| show(out, Format::Text, &[host])),
            "eth0: ixgbe (0000:3b:00.0), NUMA node none, 2 RX queues, 2 TX queues, online CPUs 0-1\n\
             QUEUE  IRQ  SET  EFFECTIVE  NODE  RPS  XPS  KNOWN BY  INTERRUPT\n\
             0      40   0-1  0          -     off  off  msi_irqs  eth0-TxRx-0\n\
             1      41   0-1  1          -     off  1    msi_irqs  eth0-TxRx-1\n\
             its interrupts are not set, since it is doubtful\n"
        );
    }

    #[test]
    fn show_of_a_virtual_interface_says_so() {
        let shown = text(|out| show(out, Format::Text, &[veth_host(2, 1)]));
        assert!(shown.contains("eth0: virtual, NUMA node none, 1 RX queue, 1 TX queue"), "{shown}");
        assert!(shown.contains("0      -    -    -          -     off  -    no interrupt  -"), "{shown}");
        let json: serde_json::Value =
            serde_json::from_str(&text(|out| show(out, Format::Json, &[veth_host(2, 1)]))).unwrap();
        assert_eq!(
            (&json["schema"], &json["interfaces"][0]["driver"]),
            (&1.into(), &serde_json::Value::Null)
        );
        assert_eq!(json["interfaces"][0]["queues"][0]["rps"], "");
    }
}
