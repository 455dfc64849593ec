//! The arguments: subcommands, options, and which of them go together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "tune", version, about, after_help = EXIT_STATUS)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done or nothing to do, 1 error, 2 usage error; plan: 2 there are changes; \
                           check: 2 drifted, 1 could not tell; diff: 2 there are differences";

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
    /// plan, apply, check, script, watch: the CPUs of the workers, such as 0-3,8 or "online", instead of the profile's
    #[arg(long, global = true, value_name = "LIST")]
    pub(super) cpus: Option<String>,
    /// show, plan, apply, check, script, watch: the interface instead of the profile's; "auto" is that of the default route
    #[arg(long, global = true, value_name = "IFACE")]
    pub(super) interface: Option<String>,
    /// show, plan, apply, check, script, watch, profile init: which interrupt serves which queue, such as "rx-0=irq 42,tx-0=irq 43", or a
    /// file with that
    #[arg(long, global = true, value_name = "MAP")]
    pub(super) map: Option<String>,
    /// apply, restore, watch: where the journal is [default: run/corelocal below the root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print queues, interrupts, CPUs, RPS, XPS, channels, rings and the like of an interface, or of all that have a
    /// device or several queues
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
    /// Where a device's queues change with it, what is set of those comes with a second script, made after the first has run.
    #[command(after_help = "Exit status of the script: 0 done, 2 done and to be made once more, 1 undone")]
    Script {
        /// TOML, see profiles/README.md
        profile: PathBuf,
    },
    /// Look again and again, and say in one line each what is not as the profile wants it any more, until SIGTERM
    ///
    /// A link event leads to a look at once; between them a poll opens few files. A restore ends a watch that repairs. Under
    /// systemd, Type=notify and WatchdogSec work.
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
    /// Print the settings in which two captures (or directories as for --root) differ, or the keys in which two profiles do
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

/// Parses the arguments, of which the first is the program's name.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(args)?;
    if matches!(cli.command, Command::Show { name: Some(_) }) && cli.options.interface.is_some() {
        let message = "show takes IFACE or --interface IFACE, not both";
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    }
    if cli.options.netns.is_some() && cli.options.root != Path::new("/") {
        let message = "--netns is of the running kernel and --root is not; give one of them";
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
            ("--map", self.map.is_some()),
            ("--state-dir", self.state_dir.is_some()),
            ("--json", self.json),
        ];
        options.into_iter().filter(|(_, given)| *given).map(|(option, _)| option).collect()
    }

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
}

impl Options {
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

impl Command {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Show { .. } => "show",
            Self::Explain(_) => "explain",
            Self::Plan { .. } => "plan",
            Self::Apply { .. } => "apply",
            Self::Restore => "restore",
            Self::Check { .. } => "check",
            Self::Script { .. } => "script",
            Self::Watch { .. } => "watch",
            Self::Profile { .. } => "profile",
            Self::Capture { .. } => "capture",
            Self::Diff { .. } => "diff",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }

    /// Whether this one of [`Options::given`] has a meaning for the subcommand.
    fn takes(&self, option: &str) -> bool {
        if option == "--json" {
            // What these print is for a shell and for man.
            return !matches!(self, Self::Completions { .. } | Self::Man { .. });
        }
        match self {
            Self::Show { .. } => ["--interface", "--map"].contains(&option),
            Self::Explain(asked) => asked.takes(option),
            Self::Plan { .. } | Self::Check { .. } | Self::Script { .. } => option != "--state-dir",
            Self::Apply { .. } | Self::Watch { .. } => true,
            Self::Restore => option == "--state-dir",
            Self::Profile { .. } => option == "--map",
            Self::Capture { .. } | Self::Diff { .. } | Self::Completions { .. } | Self::Man { .. } => false,
        }
    }
}
