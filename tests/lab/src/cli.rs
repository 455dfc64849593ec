//! The command line.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use tune::cpu_set::CpuSet;

use crate::interrupt::{Interrupt, Interrupted};
use crate::measurement::Workload;
use crate::report::Results;
use crate::run::run as run_rounds;

/// The main job before and after on an embedded multi-queue NIC: a veth pair between two network namespaces with a
/// queue per CPU.
///
/// Needs root and at least 2 CPUs; changes nothing outside its own namespaces and leaves nothing behind.
///
/// Exit code: 0 if everything ran, 1 if not, 2 on a usage error, 128 + signal if stopped by one.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Cli {
    /// Rounds of before and after [default: 5, with --quick 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Short rounds: the whole run takes less than 20 s.
    #[arg(long)]
    quick: bool,
    /// Connections on which messages are exchanged.
    #[arg(long, value_name = "N", default_value_t = 128)]
    connections: u32,
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,
    /// Write the raw figures of every round to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Reads the command line (with the program's name first), runs, prints, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Fails only if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let interrupted = error.downcast_ref::<Interrupted>().copied();
            match interrupted {
                Some(interrupted) => eprintln!("lab: {interrupted}"),
                None => eprintln!("lab: {error:#}"),
            }
            let code = interrupted.and_then(|Interrupted(signal)| u8::try_from(128 + signal).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn execute(cli: &Cli) -> anyhow::Result<()> {
    let cpus = check_machine()?;
    if let Some(path) = &cli.json {
        check_directory(path)?;
    }
    let interrupt = Interrupt::install().context("handle signals")?;
    let (rounds, exchange, connect) = if cli.quick { (3, 1000, 300) } else { (5, 3000, 1000) };
    let workload = Workload {
        connections: cli.connections,
        size: cli.size,
        exchange: Duration::from_millis(exchange),
        connect: Duration::from_millis(connect),
    };
    let results = run_rounds(cpus, cli.rounds.unwrap_or(rounds), workload, &interrupt);
    // What fails after a signal fails because of it.
    let results = results.map_err(|error| interrupt.check().map_or_else(Into::into, |()| error))?;
    results.print(&mut std::io::stdout().lock()).context("write the table to standard output")?;
    cli.json.as_deref().map_or(Ok(()), |path| write_json(path, &results))
}

/// The CPUs to use, or what the machine lacks.
fn check_machine() -> anyhow::Result<CpuSet> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "needs root to make network namespaces; run sudo -E cargo lab, or the built target/release/lab as root"
        );
    }
    let cpus: CpuSet = load::affinity::allowed_cpus()?.into_iter().collect();
    if cpus.len() < 2 {
        bail!(
            "needs at least 2 CPUs and may use {} (CPUs {cpus}); with one CPU every connection is local",
            cpus.len()
        );
    }
    Ok(cpus)
}

fn check_directory(path: &Path) -> anyhow::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let found = fs::metadata(directory).with_context(|| format!("--json {}", path.display()))?;
    if !found.is_dir() || path.is_dir() {
        bail!("--json {}: give a file in a directory that exists", path.display());
    }
    Ok(())
}

fn write_json(path: &Path, results: &Results) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(results).context("results as JSON")?;
    text.push(b'\n');
    let write = || fs::File::create(path)?.write_all(&text);
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
