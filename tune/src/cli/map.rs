//! `--map`: a queue map on the command line, or in a file.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};

use crate::errno::describe;
use crate::host::ToldMap;

/// Bytes of a file. The most queues that a device can have would take a tenth of it.
const LONGEST: u64 = 1 << 20;

/// The map that `given` is, where an equals sign is in it, else that in the file of this name.
pub(super) fn read(given: &str) -> Result<ToldMap> {
    if given.contains('=') {
        return given.parse().context("--map");
    }
    let fail = |error| {
        let description = describe(&error);
        anyhow!("--map: read {given}: {description}; write rx-0=irq 42,tx-0=irq 43, or name a file with that")
    };
    // A pipe might never end, and to open it already waits.
    if !std::fs::metadata(given).map_err(fail)?.is_file() {
        bail!("--map: read {given}: not a regular file; name one with a map in it");
    }
    let mut text = String::new();
    let file = File::open(given).map_err(fail)?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > LONGEST {
        bail!("--map: read {given}: longer than {LONGEST} bytes; is it a map?");
    }
    text.parse().with_context(|| format!("--map {given}"))
}
