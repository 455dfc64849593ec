//! later

use anyhow::Result;

use super::table::Table;

pub(super) fn run(_kills: u32, _table: &mut Table) -> Result<()> {
    Ok(())
}
