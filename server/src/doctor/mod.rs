//! `server doctor`: would the server start here as configured, what does it use of this kernel, and does the
//! host let it do its best? It changes nothing, and tells the next step with everything that is not as it
//! should be.
//!
//! ```text
//! kernel, /proc, /sys, rtnetlink ── gather ──► Facts ──┐
//!                                  features of rings ──┼─ judge, catalogue ──► [Finding] ─┬─ text
//!                                    config::Config ───┘        (pure)                    └─ json
//! ```
//!
//! [`gather`] is the edge: it reads files, makes rings for a moment and binds addresses without listening.
//! All that decides is pure and takes [`facts`].

mod catalogue;
mod facts;
mod finding;
mod gather;
mod json;
mod judge;
mod text;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use tune::errno::describe;

use crate::config::Config;
use finding::{Mark, worst};
use text::Head;

/// What `server doctor --help` ends with.
pub const EXIT_STATUS: &str = "Exit status: 0 the server would start and there is no warning, 2 it would \
                               start and there are warnings (2 is wrong usage, too, which prints nothing on \
                               stdout), 1 it would not start: the last line says why.";

/// Looks at this host for a server with this configuration and prints what it finds on stdout, as one JSON
/// object if asked.
///
/// The exit code is 0 if the server would start and there is no warning (notes do not count), 2 if it would
/// start and there are warnings, 1 if it would not start; the last line says why. So `server doctor &&
/// server` starts only where all is well, and a provisioning script that takes 2 for good refuses only what
/// cannot work. 2 is also what wrong usage gives; that prints nothing on stdout.
///
/// # Errors
/// If the CPUs can't be read or stdout can't be written.
pub fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let facts = gather::gather(config)?;
    let findings = judge::judge(config, &facts);
    let cores = judge::worker_cpus(config, &facts).to_string();
    let head = Head { kernel: &facts.kernel, cores: &cores };
    let stdout = io::stdout();
    let mut text = Vec::new();
    if json {
        json::write(&mut text, &head, &findings)?;
    } else {
        text::write(&mut text, &head, &findings, wants_colours(&stdout))?;
    }
    let mut out = stdout.lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow!("write to stdout: {}", describe(&error)))
        }
        _ => Ok(ExitCode::from(exit_code(worst(&findings)))),
    }
}

/// What the process ends with.
fn exit_code(worst: Mark) -> u8 {
    match worst {
        Mark::Ok | Mark::Note => 0,
        Mark::Problem => 1,
        Mark::Warning => 2,
    }
}

/// Only on a terminal, and never against <https://no-color.org>.
fn wants_colours(out: &impl IsTerminal) -> bool {
    let is_forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    out.is_terminal() && !is_forbidden && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
