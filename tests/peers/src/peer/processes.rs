//! One process per core.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::{WaitOptions, wait};
use tune::cpu_set::Cpu;

use crate::role;

/// Starts a process for each core, pinned to it: a role whose program, arguments and standard input `child`
/// gives. They die with this process. Comes back only with an error, when one has ended.
pub(crate) fn per_core(
    cores: &[Cpu],
    child: impl Fn() -> anyhow::Result<(Vec<OsString>, Stdio)>,
) -> anyhow::Result<()> {
    for cpu in cores {
        let (program, stdin) = child()?;
        Command::new("/proc/self/exe")
            .arg0("peers")
            .args([role::COMMAND, &std::process::id().to_string(), &cpu.to_string()])
            .args(program)
            .stdin(stdin)
            .spawn()
            .with_context(|| format!("start a process on CPU {cpu}"))?;
    }
    let (_, status) =
        wait(WaitOptions::empty()).context("wait for a process")?.context("wait: no process")?;
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => bail!("a process was ended by signal {signal}"),
        (status, None) => bail!("a process has ended with exit status {}", status.unwrap_or_default()),
    }
}
