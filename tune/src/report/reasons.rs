//! `plan --explain`: every setting of the plan, also those that hold their value, with the reason for it.

use std::io::{self, Write};

use serde::Serialize;

use crate::Planned;

/// A setting as `plan --explain --json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Explained<'a> {
    /// The kernel path, without the root.
    path: String,
    /// What it holds; null if the host has no such file.
    before: Option<String>,
    /// What it shall hold.
    after: String,
    /// Whether that differs.
    change: bool,
    /// Why it shall hold that.
    reason: &'a str,
}

/// The settings in the order of writing.
pub(super) fn explained(planned: &Planned) -> Vec<Explained<'_>> {
    let settings = planned.desired.settings.iter();
    let explain = settings.map(|(setting, after)| {
        let before = planned.host.value(setting);
        Explained {
            path: setting.path(),
            change: before.as_ref().is_some_and(|before| before != after),
            before: before.map(|value| value.to_string()),
            after: after.to_string(),
            reason: planned.desired.reasons.get(setting).map_or("", String::as_str),
        }
    });
    explain.collect()
}

/// Two lines for each setting: what is or becomes of it, and why.
pub(super) fn write_text(out: &mut impl Write, planned: &Planned) -> io::Result<()> {
    explained(planned).iter().try_for_each(|Explained { path, before, after, change, reason }| {
        let before = before.as_deref().unwrap_or("nothing");
        if *change {
            writeln!(out, "{path}: {before} -> {after}")?;
        } else {
            writeln!(out, "{path}: {after}, as it is")?;
        }
        writeln!(out, "    {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::nic_host;
    use crate::profile::Profile;
    use crate::{diff, plan};

    #[test]
    fn each_setting_has_a_line_for_what_becomes_of_it_and_one_for_why() {
        let host = nic_host(2, 2);
        let profile = Profile::parse("[queues]\nxps = \"off\"\nrps = \"keep\"", "p").unwrap();
        let desired = plan::plan(&profile, &host).unwrap();
        let changes = diff::diff(&host, &desired);
        let planned = Planned { host, desired, changes };
        let mut out = Vec::new();
        write_text(&mut out, &planned).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 * planned.desired.settings.len());
        assert_eq!(lines[0], "/proc/irq/40/smp_affinity_list: 0-1 -> 0");
        assert!(
            lines[1].starts_with("    eth0-TxRx-0 (RX and TX queue 0 of eth0) fires on CPU 0 "),
            "{text}"
        );
        assert_eq!(
            lines[4..6],
            ["/sys/class/net/eth0/queues/tx-0/xps_cpus: 0, as it is", "    queues.xps = \"off\""]
        );
        let changes = explained(&planned).iter().filter(|setting| setting.change).count();
        assert_eq!(changes, planned.changes.len());
    }
}
