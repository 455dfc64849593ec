//! The signals that end the server: SIGINT, SIGTERM, and SIGHUP, which the kernel sends when a terminal goes,
//! unless whoever started the server has it ignored, as nohup(1) does.

use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::iterator::Signals;
use tune::kernel_files::KernelFiles;

use crate::workers::no_thread;

/// From now on each of the signals calls `tell`, on a thread of its own, until that gives false. The server
/// may have been started with one blocked, which would keep it from ever ending.
///
/// # Errors
/// If a handler can't be installed or the thread not be started.
pub(crate) fn forward(mut tell: impl FnMut() -> bool + Send + 'static) -> Result<()> {
    let mut ends = vec![Signal::SIGINT, Signal::SIGTERM];
    if !ignores_hangup() {
        ends.push(Signal::SIGHUP);
    }
    let mut signals = Signals::new(ends.iter().map(|&signal| signal as i32))
        .with_context(|| format!("install the handlers of {ends:?}"))?;
    let all: SigSet = ends.iter().copied().collect();
    all.thread_unblock().with_context(|| format!("unblock {ends:?}"))?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().all(|_| tell()))
        .map_err(|error| no_thread("start the signal thread", &error))?;
    Ok(())
}

/// Whether SIGHUP is ignored; where /proc can't tell, it is not.
fn ignores_hangup() -> bool {
    let status = KernelFiles::open("/").and_then(|files| files.read("/proc/self/status"));
    status
        .is_ok_and(|status| ignored(&status).is_some_and(|mask| mask & 1 << (Signal::SIGHUP as u64 - 1) != 0))
}

/// The mask `SigIgn` of `/proc/PID/status` (proc(5)).
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_found_among_the_others() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        assert_eq!(ignored(status), Some(0x1001));
        assert_eq!((ignored("Name:\tserver\n"), ignored("SigIgn:\tx\n")), (None, None));
    }
}
