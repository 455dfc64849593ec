//! The command line: parse, run, print, exit code.

mod arguments;
mod generated;
mod profile_file;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, anyhow, bail};
use arguments::{Cli, Command, parse};
use profile_file::{Overrides, read_profile};

use crate::errno::describe;
use crate::host::{Host, InterfaceChoice, nic};
use crate::journal::State;
use crate::kernel_files::KernelFiles;
use crate::report::{self, Format};

/// `plan` found differences.
const CHANGES: u8 = 2;

/// Runs the program; `args` begins with its name.
///
/// An error is one line on stderr that begins with `tune: `.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do where even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match execute(&cli) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// An error as one line on stderr; where even that cannot be written nothing is left to do.
fn complain(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "tune: {}", one_line(&format!("{error:#}")));
}

/// A message may quote what was given: a line break becomes a space, and no other control character reaches the terminal.
fn one_line(message: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => " ".to_owned(),
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    message.chars().map(shown).collect()
}

fn execute(cli: &Cli) -> Result<ExitCode> {
    let options = &cli.options;
    // These need no host.
    match &cli.command {
        Command::Completions { shell } => {
            let text = generated::completions(*shell);
            print(|out| out.write_all(&text))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man { directory } => {
            generated::manual_pages(directory)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    if let Some(name) = &options.netns {
        crate::named_netns::enter(name)?;
    }
    let overrides = Overrides::parse(options)?;
    let files = KernelFiles::open(&options.root)
        .map_err(|error| anyhow!("--root: {error}; name a directory that holds proc/ and sys/"))?;
    let format = if options.json { Format::Json } else { Format::Text };
    let state_dir = || options.state_dir.clone().map_or_else(|| State::default_directory(&files), Ok);
    match &cli.command {
        Command::Show { name } => {
            let (hosts, failed) = read_hosts(&files, overrides, name.as_deref())?;
            if !hosts.is_empty() || failed.is_empty() {
                print(|out| report::show(out, format, &hosts))?;
            }
            failed.iter().for_each(complain);
            if !failed.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Plan { profile } => {
            let planned = crate::plan_profile(&files, &read_profile(profile, overrides)?)?;
            print(|out| report::plan(out, format, &planned))?;
            let _ = report::kept(&mut io::stderr(), format, &planned.desired.kept);
            let _ = report::skipped(&mut io::stderr(), format, &planned.desired.skipped);
            if !planned.changes.is_empty() {
                return Ok(ExitCode::from(CHANGES));
            }
        }
        Command::Apply { profile } => {
            finish_what_is_begun()?;
            let way_back = options.restore_command();
            let applied = crate::apply_profile(&files, &state_dir()?, &read_profile(profile, overrides)?);
            let applied = applied.map_err(|error| match &error {
                crate::Error::Apply(apply) if apply.needs_restore() => anyhow!("{error}; run {way_back}"),
                _ => error.into(),
            })?;
            print(|out| report::apply(out, format, &applied, &way_back))?;
            let _ = report::kept(&mut io::stderr(), format, &applied.kept);
            let _ = report::skipped(&mut io::stderr(), format, &applied.skipped);
        }
        Command::Check { profile } => {
            let checked = crate::check::check_profile(&files, &read_profile(profile, overrides)?)?;
            print(|out| report::check(out, format, &checked))?;
            if !checked.is_as_wanted() {
                return Ok(ExitCode::from(CHANGES));
            }
        }
        Command::Script { profile } => {
            let planned = crate::plan_profile(&files, &read_profile(profile, overrides)?)?;
            let text = crate::script::script(&planned, &options.command_line("script", profile))?;
            print(|out| report::script(out, format, &planned.host.nic.name, &text))?;
            let _ = report::kept(&mut io::stderr(), format, &planned.desired.kept);
            let _ = report::skipped(&mut io::stderr(), format, &planned.desired.skipped);
        }
        Command::Completions { .. } | Command::Man { .. } => {}
        Command::Restore => {
            finish_what_is_begun()?;
            let restored = crate::restore(&files, &state_dir()?)?;
            print(|out| report::restore(out, format, &restored))?;
            if let Some(journal) = &restored.journal {
                let failures = restored.failed.join("; ");
                bail!("not restored: {failures}; the journal {} is kept, run again", journal.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
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

/// The hosts that `show` prints, one for each interface, and why others cannot be read.
fn read_hosts(
    files: &KernelFiles,
    overrides: Overrides,
    name: Option<&str>,
) -> Result<(Vec<Host>, Vec<anyhow::Error>)> {
    let named = name.map(str::parse).transpose()?;
    let choices = match named.or(overrides.interface) {
        Some(choice) => vec![choice],
        None => nic::interesting(files)?.into_iter().map(InterfaceChoice::Named).collect(),
    };
    let (mut hosts, mut failed) = (Vec::new(), Vec::new());
    for choice in &choices {
        match Host::read(files, choice, &[]) {
            Ok(host) => hosts.push(host),
            Err(error) => failed.push(error.into()),
        }
    }
    Ok((hosts, failed))
}

/// Writes a report to stdout at once. A reader that has gone away is no error.
fn print(report: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<()> {
    let mut text = Vec::new();
    report(&mut text)?;
    let mut out = io::stdout().lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            bail!("write to stdout: {}", describe(&error))
        }
        _ => Ok(()),
    }
}
