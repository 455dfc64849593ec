//! The arguments: subcommands, options, and which of them go together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "tune", version, about, after_help = EXIT_STATUS)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done or nothing to do, 1 error, 2 usage error; plan: 2 there are \
                           changes; check: 2 drifted, 1 could not tell; diff: 2 there are differences";

/// They stand before or after the subcommand. Which of them it takes is in [`takes`].
#[derive(clap::Args)]
pub(super) struct Options {
    /// Take /proc and /sys from below this directory, or from a file that "tune capture" wrote
    #[arg(long, global = true, value_name = "DIR|FILE", default_value = "/")]
    pub(super) root: PathBuf,
    /// Do it in the network namespace /run/netns/NAME, with its own /sys
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) netns: Option<String>,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The CPUs of the workers, such as 0-3,8 or "online", instead of the profile's
    #[arg(long, global = true, value_name = "LIST")]
    pub(super) cpus: Option<String>,
    /// The interface, whatever the profile says; "auto" is that of the default route
    #[arg(long, global = true, value_name = "IFACE")]
    pub(super) interface: Option<String>,
    /// Which interrupt serves which queue, such as "rx-0=irq 42,tx-0=irq 43", or a file with that
    #[arg(long, global = true, value_name = "MAP")]
    pub(super) map: Option<String>,
    /// Where the journal is [default: run/corelocal below the root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print queues, interrupts, CPUs, RPS, XPS, channels, rings and the like of an interface, or of all that
    /// have a device or several queues
    Show {
        /// The interface
        #[arg(value_name = "IFACE")]
        name: Option<String>,
    },
    /// Print the way of a packet through each queue: NAPI, interrupt, CPUs, XPS, RPS, and what breaks it
    Explain(super::explain::Asked),
    /// Print what apply would change, and nothing else
    #[command(after_help = "Exit status: 0 nothing to do, 2 there are changes (and usage errors), 1 error")]
    Plan {
        /// TOML, see profiles/README.md
        profile: PathBuf,
        /// Print every setting, also those that hold their value, and why
        #[arg(long)]
        explain: bool,
    },
    /// Write the differences, all of them or none, and keep the old values for restore
    Apply {
        /// TOML, see profiles/README.md
        profile: PathBuf,
        /// Report what cannot be set and keep the rest, instead of undoing all; exit status 1 then
        #[arg(long)]
        keep_going: bool,
    },
    /// Put back what the first apply found
    Restore,
    /// Say where the host is not as the profile wants it, one line for each setting
    #[command(after_help = "Exit status: 0 as wanted, 2 drifted (and usage errors), 1 could not tell")]
    Check {
        /// TOML, see profiles/README.md
        profile: PathBuf,
    },
    /// Print a shell script that does what apply would do now, for review and for hosts without this program
    ///
    /// Where a device's queues change with it, what is set of those comes with a second script, made after
    /// the first has run.
    #[command(after_help = "Exit status of the script: 0 done, 2 done and to be made once more, 1 undone")]
    Script {
        /// TOML, see profiles/README.md
        profile: PathBuf,
    },
    /// Look again and again, and say in one line each what is not as the profile wants it any more, until
    /// SIGTERM
    ///
    /// A link event leads to a look at once; between them a poll opens few files. A restore ends a watch that
    /// repairs. Under systemd, Type=notify and WatchdogSec work.
    Watch {
        /// TOML, see profiles/README.md
        profile: PathBuf,
        /// Apply the profile again where it drifted
        #[arg(long)]
        repair: bool,
        /// Time between two polls, such as 500ms or 1m
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_interval)]
        interval: Duration,
    },
    /// Make profiles
    Profile {
        #[command(subcommand)]
        command: ProfileCommand,
    },
    /// Write what tune reads on this host into a file, for --root and diff elsewhere; nothing that is secret
    Capture {
        /// A new file that ends in .tar.gz or .tar; - is stdout
        file: PathBuf,
        /// The interfaces [default: all that have a device or several queues]
        #[arg(value_name = "IFACE")]
        interfaces: Vec<String>,
        /// Also the sysctls that this profile names
        #[arg(long)]
        profile: Option<PathBuf>,
    },
    /// Print the settings in which two captures (or directories as for --root) differ, or the keys in which
    /// two profiles do
    #[command(after_help = "Exit status: 0 no differences, 2 there are some (and usage errors), 1 error")]
    Diff {
        /// A capture or a profile
        a: PathBuf,
        /// Another one of the kind
        b: PathBuf,
    },
    /// Print what completes this program's arguments in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, tune.1 and one for each subcommand
    Man {
        /// The directory, which must exist
        directory: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum ProfileCommand {
    /// Print a profile for this host with every section that it has; what is not recommended is commented out
    Init {
        /// The interface; "auto" is that of the default route
        #[arg(value_name = "IFACE")]
        name: String,
    },
}

/// A poll more often than this is no cheap one.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < LEAST_INTERVAL || interval > Duration::from_secs(86_400) {
        return Err("must be from 100ms to 1day".to_owned());
    }
    Ok(interval)
}

/// True if an option, by the name of its field in [`Options`], has a meaning for a subcommand: it is offered
/// there, and refused elsewhere.
fn takes(subcommand: &str, option: &str) -> bool {
    let applies = ["apply", "watch"].contains(&subcommand);
    let plans = applies || ["plan", "check", "script"].contains(&subcommand);
    match option {
        "cpus" => plans || subcommand == "explain",
        "interface" => plans || subcommand == "show",
        "map" => plans || ["show", "explain", "profile"].contains(&subcommand),
        "state_dir" => applies || subcommand == "restore",
        // What these print is for a shell and for man.
        "json" => !["completions", "man"].contains(&subcommand),
        // What looks at no host, or at those that its arguments name.
        "root" | "netns" => !["completions", "man", "diff"].contains(&subcommand),
        _ => true,
    }
}

/// The description of all arguments, for the parser and `--help`: what a subcommand does not take is hidden
/// there, to be refused by its name.
fn command() -> clap::Command {
    described(|option, is_taken| Some(option.hide(!is_taken)))
}

/// The same without what is refused, for manual pages and for completions, which offer what is hidden, too.
pub(super) fn offered() -> clap::Command {
    described(|option, is_taken| is_taken.then_some(option)).mut_args(|option| option.global(false))
}

/// Each subcommand has of the options of all what `keep` makes of them; its second argument says whether the
/// subcommand takes this one.
fn described(keep: impl Fn(Arg, bool) -> Option<Arg>) -> clap::Command {
    let cli = Cli::command();
    let options: Vec<Arg> = cli.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let cli = cli.mut_subcommands(|command| {
        let is_taken = |option: &Arg| takes(command.get_name(), option.get_id().as_str());
        let kept = options.iter().filter_map(|option| keep(option.clone(), is_taken(option)));
        let kept: Vec<Arg> = kept.collect();
        command.args(kept)
    });
    cli.mut_args(|option| match option.get_help() {
        Some(help) if option.is_global_set() => {
            let help = format!("{}: {help}", takers(&names, option.get_id().as_str()));
            option.help(help)
        }
        _ => option,
    })
}

/// Where all options stand together: the subcommands that take one, or, if they are fewer, those that do not.
fn takers(subcommands: &[String], option: &str) -> String {
    let (takers, others): (Vec<&str>, Vec<&str>) =
        subcommands.iter().map(String::as_str).partition(|subcommand| takes(subcommand, option));
    if takers.len() <= others.len() { takers.join(", ") } else { format!("all but {}", others.join(", ")) }
}

/// Parses the arguments, of which the first is the program's name.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    if let Some((name, given)) = matches.subcommand()
        && let Some(option) = refused(name, given)
    {
        let message = format!("{name} does not take {option}");
        return Err(command().error(ErrorKind::UnknownArgument, message));
    }
    let cli = Cli::from_arg_matches(&matches)?;
    if let Some(message) = cli.contradiction() {
        return Err(command().error(ErrorKind::ArgumentConflict, message));
    }
    Ok(cli)
}

/// The first option that was given and that the subcommand does not take.
fn refused(subcommand: &str, given: &ArgMatches) -> Option<String> {
    let of_all = Cli::command();
    let mut options = of_all.get_arguments().filter(|option| option.is_global_set());
    let refused = options.find(|option| {
        let id = option.get_id().as_str();
        given.value_source(id) == Some(ValueSource::CommandLine) && !takes(subcommand, id)
    })?;
    refused.get_long().map(|long| format!("--{long}"))
}

impl Cli {
    /// What of the arguments does not go together.
    fn contradiction(&self) -> Option<&'static str> {
        let options = &self.options;
        match &self.command {
            Command::Show { name: Some(_) } if options.interface.is_some() => {
                Some("show takes IFACE or --interface IFACE, not both")
            }
            Command::Explain(asked) if options.cpus.is_some() && !asked.has_profile() => {
                Some("explain does not take --cpus without --profile")
            }
            _ if options.netns.is_some() && options.root != Path::new("/") => {
                Some("--netns is of the running kernel and --root is not; give one of them")
            }
            _ => None,
        }
    }
}

impl Options {
    /// The command that restores what this one applied: with the same root and state directory.
    pub(super) fn restore_command(&self) -> String {
        let mut command = "tune restore".to_owned();
        if let Some(netns) = &self.netns {
            command.push_str(&format!(" --netns {}", shell_word(netns)));
        }
        let root = Some(&self.root).filter(|root| *root != Path::new("/"));
        for (option, path) in [("--root", root), ("--state-dir", self.state_dir.as_ref())] {
            if let Some(path) = path {
                command.push_str(&format!(" {option} {}", shell_word(&path.display().to_string())));
            }
        }
        command
    }

    /// The command line of a subcommand that takes a profile, for a reader to run again.
    pub(super) fn command_line(&self, subcommand: &str, profile: &Path) -> String {
        let options = [
            ("--netns", self.netns.as_deref()),
            ("--cpus", self.cpus.as_deref()),
            ("--interface", self.interface.as_deref()),
            ("--map", self.map.as_deref()),
        ];
        let options = options.into_iter().filter_map(|(option, value)| Some((option, value?)));
        let options: String =
            options.map(|(option, value)| format!(" {option} {}", shell_word(value))).collect();
        format!("tune {subcommand}{options} {}", shell_word(&profile.display().to_string()))
    }
}

/// A text as a shell reads it back, in quotes where it needs them.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:,@=".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    crate::script::quoted(text)
}
