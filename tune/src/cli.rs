//! The command line: parse, run, print, exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::errno::describe;
use crate::host::{Host, InterfaceChoice, nic};
use crate::journal::State;
use crate::kernel_files::KernelFiles;
use crate::profile::{CpuChoice, Profile};
use crate::report::{self, Format};

/// `plan` found differences.
const CHANGES: u8 = 2;

#[derive(Parser)]
#[command(name = "tune", version, about, after_help = EXIT_STATUS)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str =
    "Exit status: 0 done or nothing to do, 1 error, 2 usage error; plan: 2 there are changes";

#[derive(clap::Args)]
struct Options {
    /// Take /proc and /sys from below this directory
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    /// plan, apply: the CPUs of the workers, such as 0-3,8 or "online", instead of the profile's
    #[arg(long, global = true, value_name = "LIST")]
    cpus: Option<String>,
    /// show, plan, apply: the interface instead of the profile's; "auto" is that of the default route
    #[arg(long, global = true, value_name = "IFACE")]
    interface: Option<String>,
    /// apply, restore: where the journal is [default: run/corelocal below the root]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Print queues, interrupts, CPUs, RPS, XPS, channels, rings and the like of an interface, or of all that have a
    /// device or several queues
    Show {
        /// The interface
        #[arg(value_name = "IFACE")]
        name: Option<String>,
    },
    /// Print what apply would change, and nothing else
    #[command(after_help = "Exit status: 0 nothing to do, 2 there are changes (and usage errors), 1 error")]
    Plan {
        /// TOML, see profiles/README.md
        profile: PathBuf,
    },
    /// Write the differences, all of them or none, and keep the old values for restore
    Apply {
        /// TOML, see profiles/README.md
        profile: PathBuf,
    },
    /// Put back what the first apply found
    Restore,
}

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

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(args)?;
    if matches!(cli.command, Command::Show { name: Some(_) }) && cli.options.interface.is_some() {
        let message = "show takes IFACE or --interface IFACE, not both";
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    }
    if let Some(option) = cli.options.given().into_iter().find(|option| !cli.command.takes(option)) {
        let message = format!("{} does not take {option}", cli.command.name());
        return Err(Cli::command().error(ErrorKind::UnknownArgument, message));
    }
    Ok(cli)
}

impl Options {
    /// Which of the options were given that not every subcommand takes.
    fn given(&self) -> Vec<&'static str> {
        let options = [
            ("--cpus", self.cpus.is_some()),
            ("--interface", self.interface.is_some()),
            ("--state-dir", self.state_dir.is_some()),
        ];
        options.into_iter().filter(|(_, given)| *given).map(|(option, _)| option).collect()
    }

    /// The command that restores what this one applied: with the same root and state directory.
    fn restore_command(&self) -> String {
        let mut command = "tune restore".to_owned();
        let root = Some(&self.root).filter(|root| *root != Path::new("/"));
        for (option, path) in [("--root", root), ("--state-dir", self.state_dir.as_ref())] {
            if let Some(path) = path {
                command.push_str(&format!(" {option} {}", shell_word(&path.display().to_string())));
            }
        }
        command
    }
}

/// A text as a shell reads it back, in quotes where it needs them.
fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:,@=".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Show { .. } => "show",
            Self::Plan { .. } => "plan",
            Self::Apply { .. } => "apply",
            Self::Restore => "restore",
        }
    }

    /// Whether this one of [`Options::given`] has a meaning for the subcommand.
    fn takes(&self, option: &str) -> bool {
        match self {
            Self::Show { .. } => option == "--interface",
            Self::Plan { .. } => option != "--state-dir",
            Self::Apply { .. } => true,
            Self::Restore => option == "--state-dir",
        }
    }
}

/// What the command line says instead of the profile.
struct Overrides {
    interface: Option<InterfaceChoice>,
    cpus: Option<CpuChoice>,
}

impl Overrides {
    fn parse(options: &Options) -> Result<Self> {
        let interface = options.interface.as_deref().map(str::parse).transpose().context("--interface")?;
        let cpus = options.cpus.as_deref().map(str::parse).transpose().context("--cpus")?;
        Ok(Self { interface, cpus })
    }
}

fn execute(cli: &Cli) -> Result<ExitCode> {
    let options = &cli.options;
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
            let _ = report::notes(&mut io::stderr(), format, &planned.desired.notes);
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

/// Bytes of a profile file. The largest that could make sense has a line for each sysctl.
const LONGEST_PROFILE: u64 = 1 << 20;

/// The profile with the overrides of the command line.
fn read_profile(path: &Path, overrides: Overrides) -> Result<Profile> {
    let fail = |error: io::Error| {
        anyhow!("read profile {}: {}; {}", path.display(), describe(&error), instead(&error))
    };
    // A pipe or a device might never end.
    let file = std::fs::metadata(path).map_err(fail)?;
    if file.is_file() && file.len() > LONGEST_PROFILE {
        bail!("read profile {}: longer than {LONGEST_PROFILE} bytes; is it a profile?", path.display());
    }
    if !file.is_file() && !file.is_dir() {
        bail!("read profile {}: not a regular file; name one such as profiles/auto.toml", path.display());
    }
    let text = std::fs::read_to_string(path).map_err(fail)?;
    let mut profile = Profile::parse(&text, &path.display().to_string())?;
    profile.interface = overrides.interface.unwrap_or(profile.interface);
    profile.cpus = overrides.cpus.unwrap_or(profile.cpus);
    Ok(profile)
}

/// What to do about a profile that cannot be read.
fn instead(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "a profile is TOML in UTF-8, see profiles/README.md",
        io::ErrorKind::PermissionDenied => "run as a user who may read it",
        _ => "name a file such as profiles/auto.toml",
    }
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
