//! The command line.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, value_parser};
use load::{limits, open_files};
use tune::affinity;
use tune::cpu_set::CpuSet;

use crate::interrupt::{self, Interrupt};
use crate::json_file::JsonFile;
use crate::measurement::Workload;
use crate::run::run as run_rounds;

/// Rounds of a run and of a quick one. Even, so that before and after come first equally often, and at least
/// 6, so that the test can tell a difference.
const ROUNDS: [u32; 2] = [8, 6];

/// Ports from which a new network namespace lets one client address connect (`ip_local_port_range`, 32768 to
/// 60999), less those that the connections before the exchange may still hold.
const PORTS: i64 = 28_000;

/// The main job before and after on an embedded multi-queue NIC: a veth pair between two network namespaces
/// with a queue per CPU.
///
/// A round measures `server` with listeners chosen by hash on the interface as the kernel made it (before),
/// and with listeners chosen by CPU after `tune apply` of profiles/lab.toml (after), which `tune restore`
/// then undoes; by turns before or after comes first. In each, connections are made and closed for 0.7 s and
/// messages exchanged for 2 s (with --quick 0.2 s and 0.6 s). A table of both goes to standard output.
///
/// Needs root and at least 2 CPUs; changes nothing outside its own namespaces and leaves nothing behind.
///
/// Exit code: 0 if everything ran, 1 if not, 2 on a usage error, 128 + signal if stopped by one.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Cli {
    /// Rounds of before and after, 1 to 200; fewer than 6 cannot tell a difference [default: 8, with --quick
    /// 6].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=200))]
    rounds: Option<u32>,
    /// Short rounds: by default the whole run takes less than 20 s instead of about 45 s.
    #[arg(long)]
    quick: bool,
    /// Connections on which messages are exchanged, 1 to 28000.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = value_parser!(u32).range(1..=PORTS))]
    connections: u32,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = load::cli::number(limits::SIZE))]
    size: u32,
    /// Write the raw figures of every round to this file, once all rounds are done.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Reads the command line (with the program's name first), runs, prints, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return load::cli::usage(&error),
    };
    match execute(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => interrupt::failure("lab", &error),
    }
}

fn execute(cli: &Cli) -> anyhow::Result<()> {
    let cpus = check_machine()?;
    open_files::allow(cli.connections.into(), cpus.len())?;
    // Before signals are handled: opening a pipe waits for its reader, and a signal ends that.
    let json = cli.json.as_deref().map(|path| JsonFile::open(path, "--json")).transpose()?;
    let interrupt = Interrupt::install().context("handle signals")?;
    let [exchange, connect] = if cli.quick { [600, 200] } else { [2000, 700] };
    let workload = Workload {
        connections: cli.connections,
        size: cli.size,
        exchange: Duration::from_millis(exchange),
        connect: Duration::from_millis(connect),
    };
    let rounds = cli.rounds.unwrap_or(ROUNDS[usize::from(cli.quick)]);
    let results = run_rounds(cpus, rounds, workload, &interrupt);
    // What fails after a signal fails because of it.
    let results = results.map_err(|error| interrupt.check().map_or_else(Into::into, |()| error))?;
    // The file first: standard output may be a pipe whose reader is gone. And if the file fails, the table is
    // not lost.
    let written = json.map_or(Ok(()), |file| file.write_as_json(&results));
    let mut out = std::io::stdout().lock();
    let printed = results.print(&mut out).and_then(|()| out.flush());
    written.and(printed.context("write the table to standard output"))
}

/// The CPUs to use, or what the machine lacks.
fn check_machine() -> anyhow::Result<CpuSet> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "needs root to make network namespaces; run sudo -E cargo lab, or the built target/release/lab \
             as root"
        );
    }
    let cpus = affinity::allowed().context("sched_getaffinity")?;
    if cpus.len() < 2 {
        bail!(
            "needs at least 2 CPUs and may use {} (CPUs {cpus}); with one CPU every connection is local",
            cpus.len()
        );
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed_rank::least_p_value;
    use crate::summary::ALPHA;

    /// The text, however wide the terminal is.
    fn unwrapped(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn by_default_a_difference_can_be_told_and_the_help_says_the_numbers() {
        use clap::CommandFactory;
        let help = unwrapped(&Cli::command().render_long_help().to_string());
        let [rounds, quick] = ROUNDS;
        for rounds in ROUNDS {
            assert!(least_p_value(rounds as usize) <= ALPHA && rounds % 2 == 0);
        }
        assert!(help.contains(&format!("[default: {rounds}, with --quick {quick}]")), "{help}");
        assert!(
            help.contains(&format!("1 to {PORTS}")) && help.contains(&format!("1 to {}", limits::SIZE.end()))
        );
    }

    #[test]
    fn numbers_out_of_range_are_usage_errors() {
        for (option, value) in [
            ("--rounds", "0"),
            ("--rounds", "201"),
            ("--connections", "0"),
            ("--connections", "28001"),
            ("--size", "0"),
            ("--size", "1048577"),
        ] {
            let error = Cli::try_parse_from(["lab", option, value]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
