//! Command line: parse, run, print, exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tune::cpu_set::{Cpu, CpuSet};
use tune::errno::describe;

use crate::config::file::ConfigFile;
use crate::config::{AcceptModel, Config, Contradiction, Cores, Options};
use crate::listener::Listeners;
use crate::metrics::Endpoint;
use crate::report::{InForce, Report};
use crate::worker::Features;
use crate::worker_plan::PlannedWorker;
use crate::workers::{self, Notice};
use crate::{doctor, host, worker_plan};

/// Serves TCP connections, or UDP datagrams, on one io_uring for each pinned core: echoes them, or does what
/// --mode says.
///
/// Each core has its own listening socket on the same address (SO_REUSEPORT). With --steer cpu a connection
/// is accepted and served on the CPU that received its SYN; `tune` arranges for the NIC to deliver it there.
///
/// When connections are accepted, a line "server: listening on ADDR:PORT, …", with all addresses, goes to
/// stderr. SIGINT, SIGTERM, or SIGHUP unless it is ignored as by nohup: accepts what waits in the accept
/// queues and no more, serves each open connection until it has been quiet for 50 to 100 ms, ends it with a
/// FIN, prints the report and exits with 0. When the drain timeout has passed, busy connections are ended
/// too, and a second later cut off. A second signal cuts all off at once.
#[derive(Debug, Parser)]
#[command(
    name = "server",
    version,
    about,
    max_term_width = 100,
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(flatten)]
    asked: Asked,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
A TIME is a number with its unit, such as 500ms, 5s or 1h. A file for --config is TOML and has the options \
above as keys, without the dashes:

    listen = [\"0.0.0.0:7000\", \"[::]:7000\"]
    v6only = true
    cores = \"0-47\"
    idle-timeout = \"30s\"

Exit status: 0 after a signal, 1 on an error, 2 on wrong usage, of the command line or in the file.";

#[derive(Debug, Default, clap::Args)]
struct Asked {
    /// File with the same options, without the dashes (TOML). What the command line says wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what this host gives a server with these options, and what would help; serve nothing
    #[command(max_term_width = 100, after_help = doctor::EXIT_STATUS)]
    Doctor(Box<Asked>),
}

/// No file of options is as long: whatever else is given by mistake is not read into memory.
const MOST_CONFIG_BYTES: u64 = 1 << 20;

/// What to do.
struct Task {
    config: Config,
    json: bool,
    doctor: bool,
}

/// Why the program ends without having done it.
enum Failure {
    Usage(clap::Error),
    Other(anyhow::Error),
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Runs the program with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match parse(arguments).and_then(|task| Ok(execute(&task)?)) {
        Ok(code) => code,
        Err(Failure::Usage(error)) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
        Err(Failure::Other(error)) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, Failure> {
    let Arguments { asked, command } = Arguments::try_parse_from(arguments)?;
    let (asked, doctor) = match command {
        Some(Command::Doctor(after)) => (after.beside(asked), true),
        None => (asked, false),
    };
    let file = asked.config.as_deref().map(read).transpose()?;
    let line = asked.options;
    let options = match &file {
        Some(file) => line.clone().merge(file.options.clone()),
        None => line.clone(),
    };
    let config = options.check().map_err(|contradiction| {
        usage(ErrorKind::ArgumentConflict, &explain(&contradiction, &line, file.as_ref()))
    })?;
    Ok(Task { config, json: options.json.unwrap_or(false), doctor })
}

impl Asked {
    /// These, which stand after a subcommand, and what they do not say as before it.
    fn beside(self, before: Self) -> Self {
        Self { config: self.config.or(before.config), options: self.options.merge(before.options) }
    }
}

fn read(path: &Path) -> Result<ConfigFile, Failure> {
    let name = path.display().to_string();
    let failed = |why: &str| anyhow!("read {name:?}, the file of --config: {why}");
    let mut bytes = Vec::new();
    // One byte more shows that there is more.
    let read = File::open(path).and_then(|file| file.take(MOST_CONFIG_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| failed(&describe(&error)))?;
    if bytes.len() as u64 > MOST_CONFIG_BYTES {
        let why = format!(
            "it has more than {MOST_CONFIG_BYTES} bytes, and all options together have a few hundred"
        );
        return Err(failed(&why).into());
    }
    let text = String::from_utf8(bytes).map_err(|error| failed(&error.utf8_error().to_string()))?;
    Ok(ConfigFile::parse(&text, &name)
        .map_err(|error| usage(ErrorKind::ValueValidation, &error.to_string()))?)
}

/// A contradiction, with the place of each option that stands in the file.
fn explain(contradiction: &Contradiction, line: &Options, file: Option<&ConfigFile>) -> String {
    let place = |name: &&str| {
        let place = file.filter(|_| !line.says(name))?.place_of(name)?;
        Some(format!("{name} is set in {place}"))
    };
    let places: Vec<String> = contradiction.options().iter().filter_map(place).collect();
    if places.is_empty() {
        return contradiction.to_string();
    }
    format!("{contradiction} ({})", places.join(", "))
}

fn usage(kind: ErrorKind, message: &str) -> clap::Error {
    Arguments::command().error(kind, message)
}

fn execute(task: &Task) -> Result<ExitCode> {
    if task.doctor {
        return doctor::run(&task.config, task.json);
    }
    Ok(if serve(&task.config, task.json)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "server: {error:#}");
}

/// False if a worker has failed.
fn serve(config: &Config, json: bool) -> Result<bool> {
    let features = Features::detect()?.without(&config.features_not_used());
    let offer = host::offer(config)?;
    let plan = worker_plan::plan(config, features.direct_descriptors, &offer)?;
    let cpus: Vec<Cpu> = plan.iter().map(|worker| worker.cpu).collect();
    let endpoint = config.metrics.map(Endpoint::bind).transpose()?;
    let listeners = Listeners::bind(config, &cpus)?;
    let in_force = in_force(config, features, &plan, listeners.addresses(), endpoint.as_ref());
    let addresses: Vec<String> = listeners.addresses().iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    let notify = |notice| match notice {
        Notice::Listening => {
            let cores = in_order(&cpus);
            let how = way_in(config);
            let _ = writeln!(std::io::stderr(), "server: listening on {addresses}, cores {cores}, {how}");
        }
        Notice::Metrics(address) => {
            let _ = writeln!(std::io::stderr(), "server: metrics on http://{address}/metrics");
        }
        Notice::Failed(error) => say(&error),
        Notice::Note(note) => _ = writeln!(std::io::stderr(), "server: {note}"),
    };
    let outcome = workers::run(config, features, &plan, listeners, endpoint, notify)?;
    if let Some(report) = outcome.report {
        print(&report, json.then_some(&in_force))?;
    }
    Ok(!outcome.failed)
}

/// The cores as `--cores` takes them: short where they are in ascending order, one by one where another order
/// was asked for.
fn in_order(cpus: &[Cpu]) -> String {
    if cpus.is_sorted() {
        return cpus.iter().copied().collect::<CpuSet>().to_string();
    }
    Cores::List(cpus.to_vec()).to_string()
}

/// How a client finds its core.
fn way_in(config: &Config) -> String {
    match config.accept {
        AcceptModel::PerCore => format!("steer {}", config.steer.name()),
        AcceptModel::Shared => "accept shared".to_owned(),
        AcceptModel::Single => "accept single".to_owned(),
    }
}

/// As the host has it: what is chosen at the start is no longer open.
fn in_force(
    config: &Config,
    features: Features,
    plan: &[PlannedWorker],
    addresses: &[SocketAddr],
    endpoint: Option<&Endpoint>,
) -> InForce {
    let config = Config {
        listen: addresses.to_vec(),
        cores: Cores::List(plan.iter().map(|worker| worker.cpu).collect()),
        max_connections: (!config.udp).then(|| plan.iter().map(|worker| worker.max_connections).sum()),
        spill: config.spills().then(|| plan.iter().map(|worker| worker.spill).sum()),
        metrics: endpoint.map(Endpoint::address),
        ..config.clone()
    };
    let options = Options { json: Some(true), ..Options::in_force(&config) };
    InForce { options, features }
}

/// As JSON if what was in force is given.
fn print(report: &Report, json: Option<&InForce>) -> Result<()> {
    let (written, to) = if let Some(in_force) = json {
        (report.write_json(in_force, &mut std::io::stdout().lock()), "stdout")
    } else {
        (report.write_table(&mut std::io::stderr().lock()), "stderr")
    };
    written.map_err(|error| anyhow!("write the report to {to}: {}", describe(&error)))
}

/// The options of a command line without the program's name.
///
/// # Errors
/// As clap's.
#[cfg(test)]
pub(crate) fn parse_options(
    arguments: impl IntoIterator<Item: Into<OsString>>,
) -> Result<Options, clap::Error> {
    let arguments = std::iter::once("server".into()).chain(arguments.into_iter().map(Into::into));
    Arguments::try_parse_from(arguments).map(|arguments| arguments.asked.options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arguments: &str) -> Task {
        match parse(arguments.split_whitespace().map(OsString::from)) {
            Ok(task) => task,
            Err(Failure::Usage(error)) => panic!("{error}"),
            Err(Failure::Other(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn clap_finds_nothing_wrong_with_the_options() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_doctor_takes_the_same_options_on_both_sides() {
        let same = task("server --cores 0-3 --listen 0.0.0.0:80 --json");
        for line in [
            "server doctor --cores 0-3 --listen 0.0.0.0:80 --json",
            "server --cores 0-3 --listen 0.0.0.0:80 --json doctor",
            "server --cores 0-3 --v6only=false doctor --json --listen 0.0.0.0:80",
            "server --cores 5 doctor --cores 0-3 --json=true --listen 0.0.0.0:80",
        ] {
            let doctor = task(line);
            assert!(doctor.doctor && doctor.json && doctor.config == same.config, "{line}");
        }
        assert!(!same.doctor && same.json);
    }

    #[test]
    fn the_order_of_the_cores_is_told_where_it_is_not_the_usual_one() {
        assert_eq!(in_order(&[0, 1, 2, 4]), "0-2,4");
        assert_eq!(in_order(&[3, 0, 1]), "3,0,1");
    }

    #[test]
    fn steering_is_told_only_where_there_is_a_listener_for_each_core() {
        assert_eq!(way_in(&task("server --steer hash").config), "steer hash");
        assert_eq!(way_in(&task("server --accept shared").config), "accept shared");
    }

    #[test]
    fn the_help_reads_well_at_a_hundred_columns() {
        let mut command = Arguments::command();
        let help = command.render_long_help().to_string();
        let doctor = command.find_subcommand_mut("doctor").unwrap().render_long_help().to_string();
        for (name, help) in [("server", help), ("server doctor", doctor)] {
            let long = help.lines().find(|line| line.chars().count() > 100);
            assert_eq!(long, None, "{name} --help");
            assert!(!help.contains("[default:\n"), "{name} --help: a default is on two lines:\n{help}");
        }
    }
}
