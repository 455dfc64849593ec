//! Apply and restore with nobody else who writes: every file byte for byte.

use anyhow::{Context, Result};

use super::files::Files;
use super::table::Table;
use super::{nic, programs, serving};

pub(super) fn run(table: &mut Table) -> Result<()> {
    nic::scatter()?;
    let before = Files::read()?;
    programs::tune(&["capture", "/tmp/before.tar", "--profile", "40g.toml"])?.expect(0)?;
    serving::check_apply(table)?;
    let config = nic::vectors()?.config.context("eth0 has no config interrupt")?;
    let changes = before.differences(&Files::read()?);
    let is_config = |change: &&String| change.starts_with(&format!("/proc/irq/{config}/"));
    let touched: Vec<String> = changes.iter().filter(is_config).cloned().collect();
    table.none("apply leaves the config interrupt alone", &touched, format!("IRQ {config}"));
    table.check("apply changes files", !changes.is_empty(), format!("{} of {}", changes.len(), before.len()));
    let restored = programs::tune(&["restore"])?.expect(0)?;
    table.check("restore", true, restored.lines().last().unwrap_or_default());
    let after = Files::read()?;
    table.none(
        "restore: every file byte for byte as before",
        &before.differences(&after),
        format!("{} files", after.len()),
    );
    programs::tune(&["capture", "/tmp/after.tar", "--profile", "40g.toml"])?.expect(0)?;
    let diff = programs::tune(&["diff", "/tmp/before.tar", "/tmp/after.tar"])?;
    table.check(
        "tune diff of captures from before and after",
        diff.code == 0,
        format!("exit status {}: {}", diff.code, diff.stdout.trim_end()),
    );
    Ok(())
}
