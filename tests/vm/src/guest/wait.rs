//! Waiting for something to become true.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longer than anything takes in an emulated machine whose host is busy, or stops it for some minutes (its
/// clock goes on); only what hangs gets there.
pub(super) const LIMIT: Duration = Duration::from_secs(900);

/// Looks until there is something.
pub(super) fn until<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    every(Duration::from_millis(100), what, look)
}

/// As [`until`], for what lasts only some milliseconds.
pub(super) fn often<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    every(Duration::from_millis(1), what, look)
}

fn every<T>(pause: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > LIMIT {
            bail!("waited {} s in vain: {what}", LIMIT.as_secs());
        }
        thread::sleep(pause);
    }
}
