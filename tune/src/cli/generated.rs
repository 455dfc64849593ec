//! What is made from the arguments' own description: shell completions and manual pages.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::arguments::{self, Command};
use crate::errno::describe;

/// The output of a subcommand that needs no host; `None` for all others.
pub(super) fn run(command: &Command) -> Result<Option<Vec<u8>>> {
    match command {
        Command::Completions { shell } => Ok(Some(completions(*shell))),
        Command::Man { directory } => manual_pages(directory).map(|()| Some(Vec::new())),
        _ => Ok(None),
    }
}

/// What completes this program's arguments in a shell.
fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut arguments::offered(), "tune", &mut text);
    text
}

/// Writes `tune.1`, and `tune-SUBCOMMAND.1` for each subcommand.
fn manual_pages(directory: &Path) -> Result<()> {
    let command = arguments::offered().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).map_err(|error| {
        let directory = directory.display();
        anyhow!("write manual pages to {directory}: {}; name a directory that exists", describe(&error))
    })
}
