//! One process per core.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tune::cpu_set::Cpu;

use crate::role;

/// Processes that die with this one.
#[derive(Default)]
pub(super) struct Processes {
    count: usize,
    /// They were told to end.
    ending: Arc<AtomicBool>,
}

impl Processes {
    /// Starts one, pinned to a CPU: a role with this program, arguments and standard input. In a group of its
    /// own: Ctrl-C on a terminal is for this process alone.
    pub(super) fn start(&mut self, cpu: Cpu, program: Vec<OsString>, stdin: Stdio) -> anyhow::Result<()> {
        Command::new("/proc/self/exe")
            .arg0("peers")
            .args([role::COMMAND, &std::process::id().to_string(), &cpu.to_string()])
            .args(program)
            .stdin(stdin)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start a process on CPU {cpu}"))?;
        self.count += 1;
        Ok(())
    }

    /// Has `stop` end them at SIGTERM or SIGINT. A second signal ends this process, and them with it.
    pub(super) fn on_signal(&self, stop: impl Fn() + Send + 'static) -> anyhow::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT]).context("handle signals")?;
        let ending = self.ending.clone();
        let handle = move || {
            for signal in signals.forever() {
                if ending.swap(true, Ordering::AcqRel) {
                    std::process::exit(128 + signal);
                }
                stop();
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(handle).context("start a thread")?;
        Ok(())
    }

    /// Waits for them. An error if one ends that was not told to, or fails.
    pub(super) fn wait_for_all(self) -> anyhow::Result<()> {
        let mut left = self.count;
        while left > 0 {
            let (_, status) = match wait(WaitOptions::empty()) {
                Err(Errno::INTR) => continue,
                ended => ended.context("wait for a process")?.context("wait: no process")?,
            };
            match (status.exit_status(), status.terminating_signal()) {
                (Some(0), _) if self.ending.load(Ordering::Acquire) => left -= 1,
                (_, Some(signal)) => bail!("a process was ended by signal {signal}"),
                (status, None) => {
                    bail!("a process has ended with exit status {}", status.unwrap_or_default())
                }
            }
        }
        Ok(())
    }
}
