//! The command line: parse, run, print, exit code.

mod acts;
mod arguments;
mod captures;
mod explain;
mod generated;
mod map;
mod profile_file;
mod root;
mod unpacked;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use arguments::{Cli, Command, Options, ProfileCommand, parse};
use profile_file::{Overrides, read_profile};
use root::Root;

use crate::errno::describe;
use crate::host::{Host, InterfaceChoice, NicReader, Sysctls, Topology, nic};
use crate::irqbalance::Irqbalance;
use crate::journal::State;
use crate::kernel_files::KernelFiles;
use crate::plan::{Desired, Kept, Skipped};
use crate::profile::Profile;
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

/// A message may quote what was given: a line break becomes a space, and no other control character reaches
/// the terminal.
fn one_line(message: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => " ".to_owned(),
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    message.chars().map(shown).collect()
}

/// What every subcommand that looks at a host works with.
struct Session<'a> {
    options: &'a Options,
    root: Root,
    overrides: Overrides,
    format: Format,
}

impl Session<'_> {
    fn files(&self) -> &KernelFiles {
        &self.root.files
    }

    /// The profile with the overrides of the command line.
    fn profile(&self, path: &Path) -> Result<Profile> {
        read_profile(path, &self.overrides)
    }

    /// Where the journal is.
    fn state_dir(&self) -> Result<PathBuf> {
        let given = self.options.state_dir.clone();
        Ok(given.map_or_else(|| State::default_directory(self.files()), Ok)?)
    }

    /// What is no difference and is said all the same, on stderr; JSON has it among the rest.
    fn print_asides(&self, kept: &[Kept], skipped: &[Skipped], notes: &[String]) {
        let _ = report::kept(&mut io::stderr(), self.format, kept);
        let _ = report::skipped(&mut io::stderr(), self.format, skipped);
        let _ = report::notes(&mut io::stderr(), self.format, notes);
    }
}

fn execute(cli: &Cli) -> Result<ExitCode> {
    let options = &cli.options;
    if let Some(done) = generated::run(&cli.command)? {
        print(|out| out.write_all(&done))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = &options.netns {
        crate::named_netns::enter(name)?;
    }
    let format = if options.json { Format::Json } else { Format::Text };
    if let Command::Diff { a, b } = &cli.command {
        return captures::diff(a, b, format);
    }
    let session =
        Session { options, root: Root::open(&options.root)?, overrides: Overrides::parse(options)?, format };
    run_on_host(&session, &cli.command)
}

fn run_on_host(session: &Session, command: &Command) -> Result<ExitCode> {
    let (files, format) = (session.files(), session.format);
    match command {
        Command::Show { name } => {
            let (host, failed) = read_host(session, name.as_deref())?;
            if !host.nics.is_empty() || failed.is_empty() {
                print(|out| report::show(out, format, &host))?;
            }
            failed.iter().for_each(complain);
            return Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Explain(asked) => explain::run(session, asked)?,
        Command::Plan { profile, explain } => {
            let planned = crate::plan_profile(files, &session.profile(profile)?)?;
            print(|out| report::plan(out, format, &planned, *explain))?;
            session.print_asides(&planned.desired.kept, &planned.desired.skipped, &planned.desired.notes);
            return Ok(if planned.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) });
        }
        Command::Apply { profile, keep_going } => return acts::apply(session, profile, *keep_going),
        Command::Watch { profile, repair, interval } => acts::watch(session, profile, *repair, *interval)?,
        Command::Profile { command: ProfileCommand::Init { name } } => {
            let sysctls = crate::profile::init_sysctl_names();
            let host = Host::read(files, &name.parse()?, &sysctls, &session.overrides.map)?;
            let host = host.with_governors(files)?;
            let text = crate::profile::init(&host);
            print(|out| report::profile(out, format, &host.interfaces(), &text))?;
        }
        Command::Restore => acts::restore(session)?,
        Command::Check { profile } => return check(session, profile),
        Command::Script { profile } => {
            let wanted = session.profile(profile)?;
            let script = crate::script::Script::new(&wanted, crate::plan_profile(files, &wanted)?)?;
            let (command, netns) = (session.options.command_line("script", profile), &session.options.netns);
            let origin = crate::script::Origin::read(files, &script.planned.host, command, netns.as_deref())?;
            let text = script.text(&wanted, &origin);
            print(|out| report::script(out, format, &script, &text))?;
            let desired = &script.planned.desired;
            session.print_asides(&desired.kept, &desired.skipped, &desired.notes);
        }
        Command::Capture { file, interfaces, profile } => {
            return captures::capture(session, file, interfaces, profile.as_deref());
        }
        Command::Completions { .. } | Command::Man { .. } | Command::Diff { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// `check PROFILE`. Interrupts that have not moved yet are always said; what else is no drift only beside one:
/// cron mails what is printed.
fn check(session: &Session, profile: &Path) -> Result<ExitCode> {
    let checked = crate::check::check_profile(session.files(), &session.profile(profile)?)?;
    print(|out| report::check(out, session.format, &checked))?;
    let _ = report::pending(&mut io::stderr(), session.format, &checked);
    if checked.is_as_wanted() {
        return Ok(ExitCode::SUCCESS);
    }
    let Desired { kept, skipped, notes, .. } = &checked.desired;
    session.print_asides(kept, skipped, notes);
    Ok(ExitCode::from(CHANGES))
}

/// The interfaces that `show` prints, and why others cannot be read.
fn read_host(session: &Session, name: Option<&str>) -> Result<(Host, Vec<anyhow::Error>)> {
    let (files, overrides) = (session.files(), &session.overrides);
    let topology = Topology::read(files)?;
    let named: Option<InterfaceChoice> = name.map(str::parse).transpose()?;
    let names = match named.as_ref().or(overrides.interface.as_ref()) {
        Some(choice) => choice.names(files)?,
        None => nic::interesting(files)?,
    };
    if !overrides.map.is_empty() && names.len() != 1 {
        bail!("--map is of one interface; name it: tune show IFACE --map …");
    }
    let (mut nics, mut failed) = (Vec::new(), Vec::new());
    let reader = NicReader::new(files, overrides.map.clone());
    for name in &names {
        match reader.read(name) {
            Ok(nic) => nics.push(nic),
            Err(error) => failed.push(error.into()),
        }
    }
    let host = Host {
        topology,
        nics,
        governors: BTreeMap::new(),
        irqbalance: Irqbalance::Unknown("not asked".to_owned()),
        sysctls: Sysctls::new(),
        rps_default_mask: None,
    };
    Ok((host, failed))
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
