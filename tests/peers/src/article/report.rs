//! The results as tables for people, as Markdown, and as JSON.

use std::io::{self, Write};

use lab::machine::Machine;
use lab::summary::{Comparison, Spread};
use serde::Serialize;

use super::model::{MODELS, Model};
use super::rounds::Turn;
use super::workload::Workload;
use crate::bench::table;

/// Version of the JSON form of [`Results`].
const SCHEMA: u32 = 1;

/// Everything that was measured. Its JSON form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    schema: u32,
    machine: Machine,
    method: String,
    workloads: Vec<WorkloadResult>,
}

#[derive(Debug, Clone, Serialize)]
struct WorkloadResult {
    workload: Workload,
    models: Vec<ModelResult>,
}

/// A model's turns and their summary.
#[derive(Debug, Clone, Serialize)]
struct ModelResult {
    #[serde(flatten)]
    model: Model,
    rate_per_s: Option<Spread>,
    /// The rate over that of the same server with a shared listener, by rounds.
    rate_to_shared: Option<Comparison>,
    server_cpu_us_per_operation: Option<Spread>,
    /// The most that a core has accepted over the mean.
    accepted_spread: Option<Spread>,
    /// Share of connections that were received on the core that has accepted them.
    accept_local: Option<Spread>,
    turns: Vec<Turn>,
}

impl Results {
    pub(crate) fn new(machine: Machine, rounds: usize, outcomes: Vec<(Workload, Vec<Vec<Turn>>)>) -> Self {
        let method = format!(
            "servers and clients on the same CPUs; {rounds} rounds by turns, a server started for each turn; \
             median (min-max); ratios are medians of the rounds' ratios: {}",
            table::RATIO_LEGEND
        );
        let workloads = outcomes.into_iter().map(|(workload, rounds)| WorkloadResult::new(workload, &rounds));
        Self { schema: SCHEMA, machine, method, workloads: workloads.collect() }
    }

    /// What went wrong, one line for each turn.
    pub(crate) fn failures(&self) -> Vec<String> {
        let models = self.workloads.iter().flat_map(|workload| &workload.models);
        let of = |model: &ModelResult| {
            let failures = model.turns.iter().filter_map(|turn| turn.failure.as_ref());
            failures.map(|failure| format!("{}: {failure}", model.model.name())).collect::<Vec<_>>()
        };
        models.flat_map(of).collect()
    }

    /// The tables, each with a title, by a printer of tables.
    pub(crate) fn print<W: Write>(
        &self,
        out: &mut W,
        print_table: fn(&mut W, &[Vec<String>]) -> io::Result<()>,
    ) -> io::Result<()> {
        writeln!(out, "{}", self.machine)?;
        writeln!(out, "{}", self.method)?;
        for workload in &self.workloads {
            writeln!(out, "\n{}\n", workload.title())?;
            print_table(out, &workload.table())?;
        }
        Ok(())
    }
}

impl WorkloadResult {
    fn new(workload: Workload, rounds: &[Vec<Turn>]) -> Self {
        let models = MODELS.iter().enumerate().map(|(place, &model)| ModelResult::new(model, place, rounds));
        Self { workload, models: models.collect() }
    }

    fn title(&self) -> String {
        let turns = self.models.iter().flat_map(|model| &model.turns);
        let foreign = Spread::of(turns.map(|turn| 100.0 * turn.foreign));
        let foreign = foreign.map_or(String::new(), |foreign| {
            format!("; foreign CPU {:.0} % (max {:.0} %)", foreign.median, foreign.max)
        });
        format!("{}{foreign}", self.workload)
    }

    fn table(&self) -> Vec<Vec<String>> {
        let rate = format!("{}/s", self.workload.operations());
        let header =
            ["", &*rate, "/ shared", "server CPU us", "failed", "max/mean", "local %", "accepted by"];
        let mut table = vec![header.map(str::to_owned).to_vec()];
        table.extend(self.models.iter().map(ModelResult::row));
        table
    }
}

impl ModelResult {
    fn new(model: Model, place: usize, rounds: &[Vec<Turn>]) -> Self {
        let turns: Vec<Turn> = rounds.iter().map(|round| round[place].clone()).collect();
        let rate = |turn: &Turn| Some(turn.rate_per_s);
        let ratio = |shared: usize| {
            let pair = |round: &Vec<Turn>| (rate(&round[shared]), rate(&round[place]));
            Comparison::of(&rounds.iter().map(pair).collect::<Vec<_>>())
        };
        Self {
            model,
            rate_per_s: Spread::of(turns.iter().filter_map(rate)),
            rate_to_shared: model.shared().filter(|&shared| shared != place).and_then(ratio),
            server_cpu_us_per_operation: Spread::of(
                turns.iter().map(|turn| turn.server_cpu_us_per_operation),
            ),
            accepted_spread: Spread::of(turns.iter().filter_map(|turn| turn.accepts.spread())),
            accept_local: Spread::of(turns.iter().filter_map(|turn| turn.accepts.local())),
            turns,
        }
    }

    fn row(&self) -> Vec<String> {
        let percent = |share: Spread| Spread {
            median: 100.0 * share.median,
            min: 100.0 * share.min,
            max: 100.0 * share.max,
        };
        vec![
            self.model.name(),
            table::spread(self.rate_per_s.as_ref(), 0),
            table::ratio(self.rate_to_shared.as_ref()),
            table::spread(self.server_cpu_us_per_operation.as_ref(), 2),
            self.turns.iter().map(|turn| turn.failed).sum::<u64>().to_string(),
            table::spread(self.accepted_spread.as_ref(), 2),
            table::spread(self.accept_local.map(percent).as_ref(), 0),
            self.accepted(),
        ]
    }

    /// What each core has accepted in all rounds.
    fn accepted(&self) -> String {
        let Some(first) = self.turns.first() else { return String::new() };
        let of_core = |place: usize| -> u64 {
            let cores = self.turns.iter().filter_map(|turn| turn.accepts.cores.get(place));
            cores.map(|core| core.accepted).sum()
        };
        let cores = first.accepts.cores.iter().enumerate();
        let cores = cores.map(|(place, core)| format!("{}: {}", core.core, of_core(place)));
        cores.collect::<Vec<_>>().join(", ")
    }
}
