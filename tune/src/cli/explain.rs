//! `tune explain IFACE [QUEUE]`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::{Overrides, print, read_profile};
use crate::explain::{QueueChoice, explain};
use crate::host::{Host, InterfaceChoice};
use crate::kernel_files::KernelFiles;
use crate::report::{self, Explained, Format};

/// What is asked for.
#[derive(clap::Args)]
pub(super) struct Asked {
    /// The interface
    #[arg(value_name = "IFACE")]
    name: String,
    /// One queue, to be drawn and explained in sentences: 3, rx-3 or tx-3
    #[arg(value_name = "QUEUE")]
    queue: Option<String>,
    /// Show what this profile wants beside what is
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

impl Asked {
    /// CPUs are those of a profile.
    pub(super) fn takes(&self, option: &str) -> bool {
        option == "--map" || (option == "--cpus" && self.profile.is_some())
    }
}

pub(super) fn run(files: &KernelFiles, format: Format, asked: &Asked, overrides: Overrides) -> Result<()> {
    let choice: InterfaceChoice = asked.name.parse()?;
    let queue: Option<QueueChoice> =
        asked.queue.as_deref().map(str::parse).transpose().map_err(|error: String| anyhow!(error))?;
    let told = overrides.map.clone();
    let overrides = Overrides { interface: Some(choice.clone()), ..overrides };
    let profile = asked.profile.as_deref().map(|path| read_profile(path, overrides)).transpose()?;
    // A profile that is refused wants nothing, and why is the last line.
    let (planned, refused) = match profile.map(|profile| crate::plan_profile(files, &profile)) {
        None => (None, None),
        Some(Ok(planned)) => (Some(planned), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let mut explanation = match &planned {
        Some(planned) => explain(&planned.host, Some(&planned.desired)),
        None => explain(&Host::read_told(files, &choice, &[], &told)?, None),
    };
    if let Some(queue) = queue {
        let count = explanation.chains.len();
        explanation.chains.retain(|chain| queue.is(chain));
        if explanation.chains.is_empty() {
            let name = asked.queue.as_deref().unwrap_or_default();
            bail!(
                "{} has no queue {name}; \"tune explain {}\" shows its {count}",
                explanation.interface,
                explanation.interface
            );
        }
    }
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let explained = Explained {
        explanation: &explanation,
        refused: refused.as_deref(),
        one: queue.is_some(),
        colour: io::stdout().is_terminal() && !no_colour,
    };
    print(|out| report::explain(out, format, explained))
}
