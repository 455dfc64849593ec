//! `tune explain IFACE [QUEUE]`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::profile_file::{Overrides, read_profile};
use super::{Session, print};
use crate::explain::{Explanation, QueueChoice, explain};
use crate::host::{Host, InterfaceChoice};
use crate::report::{self, Explained};

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
    pub(super) fn has_profile(&self) -> bool {
        self.profile.is_some()
    }
}

pub(super) fn run(session: &Session, asked: &Asked) -> Result<()> {
    let (files, format) = (session.files(), session.format);
    let choice: InterfaceChoice = asked.name.parse()?;
    let queue: Option<QueueChoice> =
        asked.queue.as_deref().map(str::parse).transpose().map_err(|error: String| anyhow!(error))?;
    let overrides = Overrides { interface: Some(choice.clone()), ..session.overrides.clone() };
    let profile = asked.profile.as_deref().map(|path| read_profile(path, &overrides)).transpose()?;
    // A profile that is refused wants nothing, and why is the last line.
    let (planned, refused) = match profile.map(|profile| crate::plan_profile(files, &profile)) {
        None => (None, None),
        Some(Ok(planned)) => (Some(planned), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let (host, desired) = match planned {
        Some(planned) => (planned.host, Some(planned.desired)),
        None => (Host::read(files, &choice, &[], &overrides.map)?, None),
    };
    let explained = host.nics.iter().map(|nic| explain(nic, &host.topology, desired.as_ref()));
    let mut interfaces: Vec<Explanation> = explained.collect();
    if let Some(queue) = queue {
        for explanation in &mut interfaces {
            let (name, count) = (&explanation.interface, explanation.chains.len());
            explanation.chains.retain(|chain| queue.is(chain));
            if explanation.chains.is_empty() {
                let queue = asked.queue.as_deref().unwrap_or_default();
                bail!("{name} has no queue {queue}; \"tune explain {name}\" shows its {count}");
            }
        }
    }
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let explained = Explained {
        interfaces: &interfaces,
        refused: refused.as_deref(),
        one: queue.is_some(),
        colour: io::stdout().is_terminal() && !no_colour,
    };
    print(|out| report::explain(out, format, explained))
}
