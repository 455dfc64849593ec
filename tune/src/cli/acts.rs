//! The subcommands that write: `apply`, `restore` and `watch`.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow, bail};

use super::{Session, complain, print};
use crate::errno::describe;
use crate::keep_going::apply_keeping_going;
use crate::report::{self, Format};
use crate::watch::{self, Event};

/// `apply PROFILE`.
pub(super) fn apply(session: &Session, profile: &Path, keep_going: bool) -> Result<ExitCode> {
    session.root.refuse_capture("apply")?;
    finish_what_is_begun()?;
    let way_back = session.options.restore_command();
    let apply = if keep_going { apply_keeping_going } else { crate::apply_profile };
    let applied = apply(session.files(), &session.state_dir()?, &session.profile(profile)?);
    let applied = applied.map_err(|error| match &error {
        crate::Error::Apply(apply) if apply.needs_restore() => anyhow!("{error}; run {way_back}"),
        _ => error.into(),
    })?;
    print_done("applied", |out| report::apply(out, session.format, &applied, &way_back));
    session.print_asides(&applied.kept, &applied.skipped, &applied.notes);
    applied.failed.iter().for_each(|failure| complain(&anyhow!("not set: {failure}")));
    Ok(if applied.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `restore`.
pub(super) fn restore(session: &Session) -> Result<()> {
    session.root.refuse_capture("restore")?;
    finish_what_is_begun()?;
    let restored = crate::restore(session.files(), &session.state_dir()?)?;
    print_done("restored", |out| report::restore(out, session.format, &restored));
    if let Some(journal) = &restored.journal {
        let failures = restored.failed.join("; ");
        bail!("not restored: {failures}; the journal {} is kept, run again", journal.display());
    }
    Ok(())
}

/// Prints what was done to the host. Where that cannot be printed, it stands all the same, and so does its
/// exit code.
fn print_done(done: &str, report: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
    if let Err(error) = print(report) {
        complain(&error.context(format!("{done}, but the report of it could not be written")));
    }
}

/// `watch PROFILE`, until SIGHUP, SIGINT or SIGTERM, or, where it repairs, a `restore`; a repair that is
/// begun is finished.
pub(super) fn watch(session: &Session, profile: &Path, repair: bool, interval: Duration) -> Result<()> {
    session.root.refuse_capture("watch")?;
    if !session.files().is_live() {
        bail!("watch: --root {} is not of the running kernel", session.files().root().display());
    }
    let profile = session.profile(profile)?;
    let stop = stop_signals()?;
    let repair = if repair { Some(session.state_dir()?) } else { None };
    let watchdog = sd_notify::watchdog_enabled().map_or(interval, |watchdog| interval.min(watchdog / 2));
    let options = watch::Options { interval: watchdog, repair };
    let mut is_ready = false;
    let mut alive = || {
        // Without a service manager there is nobody to tell.
        let state = if is_ready { sd_notify::NotifyState::Watchdog } else { sd_notify::NotifyState::Ready };
        let _ = sd_notify::notify(&[state]);
        is_ready = true;
    };
    let mut say = |event: Event| say(session.format, &event);
    match watch::watch(session.files(), &profile, &options, &stop, &mut alive, &mut say) {
        Err(watch::WatchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn say(format: Format, event: &Event) -> io::Result<()> {
    if matches!(event, Event::Stopped | Event::Restored) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    }
    let mut line = Vec::new();
    report::watch(&mut line, format, SystemTime::now(), event)?;
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush())
}

/// A socket that can be read once a signal has come that ends the program.
fn stop_signals() -> Result<UnixStream> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let (stop, signalled) =
        UnixStream::pair().map_err(|error| anyhow!("socketpair: {}", describe(&error)))?;
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signalled
            .try_clone()
            .and_then(|signalled| signal_hook::low_level::pipe::register(signal, signalled))
            .map_err(|error| anyhow!("handle signal {signal}: {}", describe(&error)))?;
    }
    Ok(stop)
}

/// From here on the first SIGHUP, SIGINT or SIGTERM does not end the program: a connection that is lost or
/// Ctrl-C would leave half of the values written, and all of them take milliseconds. A second signal ends it.
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
