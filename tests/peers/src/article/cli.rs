//! The options of `peers article`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, value_parser};
use lab::interrupt::Interrupt;
use lab::json_file::JsonFile;
use lab::machine::Machine;
use load::{limits, replay};

use super::report::Results;
use super::rounds;
use super::workload::Workload;
use crate::bench::cli::time;
use crate::bench::priority::Priority;
use crate::bench::table;
use crate::cores::Cores;

/// Options of `peers article`.
#[derive(Debug, Args)]
pub(crate) struct ArticleArgs {
    /// CPUs of the servers and of the clients [default: every CPU allowed].
    #[arg(long, value_name = "LIST", value_parser = Cores::parse)]
    cores: Option<Cores>,
    /// Rounds, 1 to 200; fewer than 6 cannot tell a difference.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = value_parser!(u16).range(1..=200))]
    rounds: u16,
    /// How long connections are made and reset in each turn.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    duration: Duration,
    /// Clients that exchange messages of 512 KiB, 1 to 65535.
    #[arg(long, value_name = "N", default_value_t = replay::EXCHANGE.0, value_parser = load::cli::number(limits::CONNECTIONS))]
    clients: u32,
    /// Nice value, as of bench.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,
    /// Write the figures of every turn to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print Markdown tables instead of those for people.
    #[arg(long)]
    markdown: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &ArticleArgs) -> anyhow::Result<ExitCode> {
    load::open_files::raise_limit()?;
    let _priority = args.nice.map(Priority::set).transpose()?;
    let json = args.json.as_deref().map(|path| JsonFile::open(path, "--json")).transpose()?;
    let interrupt = Interrupt::install().context("handle signals")?;
    let cores = match &args.cores {
        Some(Cores(cores)) => cores.clone(),
        None => tune::affinity::allowed().context("sched_getaffinity")?.iter().collect(),
    };
    let mut outcomes = Vec::new();
    let workloads = [Workload::Accept { duration: args.duration }, Workload::Echo { clients: args.clients }];
    for workload in workloads {
        outcomes.push((workload, rounds::run(workload, args.rounds.into(), &cores, &interrupt)?));
    }
    let machine = Machine::read(cores.into_iter().collect());
    let results = Results::new(machine, args.rounds.into(), outcomes);
    // The file first, and its failure last: see bench.
    let written = json.map_or(Ok(()), |file| file.write_as_json(&results));
    let mut out = std::io::stdout().lock();
    let print = if args.markdown { table::print_markdown } else { table::print };
    let printed = results.print(&mut out, print).and_then(|()| out.flush());
    printed.context("write the tables to standard output")?;
    written?;
    let failures = results.failures();
    failures.iter().for_each(|failure| eprintln!("peers: {failure}"));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
