//! The scheduler's priority of the runner and of what it starts.

use std::fs;
use std::io;

use anyhow::Context;
use tune::errno::describe;

/// Where a session's nice value stands, if the kernel schedules sessions as groups (sched(7)): there a
/// process's own nice value counts among the processes of its session only.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// Gives the session back its nice value when dropped.
pub(crate) struct Priority {
    before: Option<String>,
}

impl Priority {
    /// Sets the nice value of this process, of all that it starts from now on, and of its session.
    pub(crate) fn set(nice: i32) -> anyhow::Result<Self> {
        rustix::process::setpriority_process(None, nice)
            .with_context(|| format!("setpriority to nice {nice}: below 0 needs root or CAP_SYS_NICE"))?;
        let before = match fs::read_to_string(AUTOGROUP) {
            Ok(text) => text.split_whitespace().last().map(str::to_owned),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None, // no CONFIG_SCHED_AUTOGROUP
            Err(error) => return Err(error).context(format!("read {AUTOGROUP}")),
        };
        let priority = Self { before };
        if priority.before.is_some() {
            fs::write(AUTOGROUP, nice.to_string())
                .with_context(|| format!("write \"{nice}\" to {AUTOGROUP}"))?;
        }
        Ok(priority)
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(AUTOGROUP, before)
        {
            eprintln!(
                "peers: write \"{before}\" to {AUTOGROUP}: {}; the session keeps its nice value",
                describe(&error)
            );
        }
    }
}
