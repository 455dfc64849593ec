//! later

use anyhow::Result;

use super::table::Table;

pub(super) fn run(_table: &mut Table) -> Result<()> {
    Ok(())
}
