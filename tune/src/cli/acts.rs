//! The subcommands that write: `apply` and `restore`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, anyhow, bail};

use super::{Session, print};
use crate::errno::describe;
use crate::report;

/// `apply PROFILE`.
pub(super) fn apply(session: &Session, profile: &Path) -> Result<()> {
    session.root.refuse_capture("apply")?;
    finish_what_is_begun()?;
    let way_back = session.options.restore_command();
    let applied = crate::apply_profile(session.files(), &session.state_dir()?, &session.profile(profile)?);
    let applied = applied.map_err(|error| match &error {
        crate::Error::Apply(apply) if apply.needs_restore() => anyhow!("{error}; run {way_back}"),
        _ => error.into(),
    })?;
    print(|out| report::apply(out, session.format, &applied, &way_back))?;
    session.print_asides(&applied.kept, &applied.skipped, &applied.notes);
    Ok(())
}

/// `restore`.
pub(super) fn restore(session: &Session) -> Result<()> {
    session.root.refuse_capture("restore")?;
    finish_what_is_begun()?;
    let restored = crate::restore(session.files(), &session.state_dir()?)?;
    print(|out| report::restore(out, session.format, &restored))?;
    if let Some(journal) = &restored.journal {
        let failures = restored.failed.join("; ");
        bail!("not restored: {failures}; the journal {} is kept, run again", journal.display());
    }
    Ok(())
}

/// From here on the first SIGHUP, SIGINT or SIGTERM does not end the program: a connection that is lost or Ctrl-C
/// would leave half of the values written, and all of them take milliseconds. A second signal ends it.
fn finish_what_is_begun() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&seen))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&seen)))
            .map_err(|error| anyhow!("handle signal {signal}: {}", describe(&error)))?;
    }
    Ok(())
}
