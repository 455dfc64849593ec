//! Turns and rounds.

use anyhow::{Context, anyhow};
use lab::interrupt::Interrupt;
use serde::Serialize;
use tune::cpu_set::{Cpu, CpuSet};

use super::model::{MODELS, Model};
use super::workload::Workload;
use crate::accepts::Accepts;
use crate::bench::contender::Running;
use crate::bench::turn::observe;

/// What one model did once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Turn {
    pub(crate) rate_per_s: f64,
    pub(crate) elapsed_s: f64,
    /// Server: CPU time of all its processes and threads, user and system.
    pub(crate) server_cpu_us_per_operation: f64,
    /// Clients that failed.
    pub(crate) failed: u64,
    /// What went wrong.
    pub(crate) failure: Option<String>,
    /// What each core has accepted, the connection by which the runner learns that the server is there too.
    pub(crate) accepts: Accepts,
    /// Share of the CPU time that neither server nor client used.
    pub(crate) foreign: f64,
}

/// Runs the rounds of a workload: for each a turn of each model, in the order of [`MODELS`].
pub(crate) fn run(
    workload: Workload,
    rounds: usize,
    cores: &[Cpu],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Vec<Turn>>> {
    let mut all = Vec::new();
    for number in 0..rounds {
        let mut order: Vec<usize> = (0..MODELS.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        let mut turns = Vec::new();
        for place in order {
            interrupt.check()?;
            let turn = turn(MODELS[place], workload, cores, interrupt);
            // What fails after a signal fails because of it.
            interrupt.check()?;
            turns.push((place, turn.with_context(|| MODELS[place].name())?));
        }
        turns.sort_by_key(|&(place, _)| place);
        all.push(turns.into_iter().map(|(_, turn)| turn).collect());
    }
    Ok(all)
}

fn turn(model: Model, workload: Workload, cores: &[Cpu], interrupt: &Interrupt) -> anyhow::Result<Turn> {
    let cpus: CpuSet = cores.iter().copied().collect();
    let contender = model.contender(workload).map_err(|error| anyhow!(error))?;
    let server = Running::start(&contender, &cpus, interrupt)?;
    let client = |observer: &load::Observer<'_>| workload.run(server.address, cores, observer);
    let (report, used) = observe(&server, &cpus, None, client)?;
    let accepts = Accepts::parse(&server.end()?)?;
    Ok(Turn {
        rate_per_s: report.rate_per_s,
        elapsed_s: report.elapsed_s,
        server_cpu_us_per_operation: used.server * 1e6 / report.counts.operations.max(1) as f64,
        failed: report.counts.connections_failed,
        failure: report.failure(),
        accepts,
        foreign: used.foreign(cores.len()),
    })
}
