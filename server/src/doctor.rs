//! `server doctor`: what this host gives the server.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::worker::Features;

/// Prints which features of the kernel the server would use.
///
/// # Errors
/// If there is no io_uring, or stdout takes nothing.
pub(crate) fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let features = Features::detect()?.without(&config.without);
    let names =
        [("direct-descriptors", features.direct_descriptors), ("receive-credit", features.receive_credit)];
    let mut out = std::io::stdout().lock();
    let written = if json {
        let features: serde_json::Map<_, _> =
            names.into_iter().map(|(name, used)| (name.to_owned(), used.into())).collect();
        writeln!(out, "{}", serde_json::json!({ "features": features }))
    } else {
        names
            .iter()
            .try_for_each(|(name, used)| writeln!(out, "{name}: {}", if *used { "used" } else { "absent" }))
    };
    written.context("write to stdout")?;
    Ok(ExitCode::SUCCESS)
}
