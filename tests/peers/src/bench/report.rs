//! The results as a table for people, as Markdown, and as JSON.

use std::io::{self, Write};

use lab::machine::Machine;
use lab::summary::{Comparison, Spread};
use serde::Serialize;

use super::contender::Contender;
use super::figures::{Brief, Row, ScenarioResult, Share, memory_table};
use super::floor::Floor;
use super::memory::MemoryUse;
use super::overview::{self, Line};
use super::plot;
use super::rounds::{Outcome, Plan};
use super::scenario::Scenario;
use super::table;

/// Version of the JSON form of [`Results`].
const SCHEMA: u32 = 1;

/// Everything that was measured. Its JSON form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    schema: u32,
    machine: Machine,
    server_cores: String,
    client_cores: String,
    client_spins: bool,
    rounds: usize,
    round_s: f64,
    contenders: Vec<Contender>,
    scenarios: Vec<ScenarioResult>,
    /// What the kernel alone needs for a call.
    floor: Option<Floor>,
}

/// [`Results`] without the rounds: what `--summary` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    schema: u32,
    machine: &'a Machine,
    method: String,
    floor: Option<&'a Floor>,
    scenarios: Vec<ScenarioSummary<'a>>,
}

/// A scenario of the [`Summary`].
#[derive(Debug, Serialize)]
struct ScenarioSummary<'a> {
    scenario: Scenario,
    /// How many rounds count, and under which conditions.
    title: String,
    contenders: Vec<Brief>,
    ratios: Vec<Brief>,
    floor: Option<&'a Share>,
    memory: &'a [MemoryUse],
}

impl<'a> ScenarioSummary<'a> {
    fn of(result: &'a ScenarioResult) -> Self {
        Self {
            scenario: result.outcome.scenario,
            title: result.title(),
            contenders: result.contenders.iter().map(Row::<Spread>::brief).collect(),
            ratios: result.ratios.iter().map(Row::<Comparison>::brief).collect(),
            floor: result.floor.as_ref(),
            memory: &result.outcome.memory,
        }
    }
}

impl Results {
    pub(crate) fn new(machine: Machine, plan: &Plan, outcomes: Vec<Outcome>, floor: Option<Floor>) -> Self {
        let setup = &plan.setup;
        let client_cores: Vec<_> = setup.client_cores.iter().map(ToString::to_string).collect();
        Self {
            schema: SCHEMA,
            machine,
            server_cores: setup.server_cores.to_string(),
            client_cores: client_cores.join(","),
            client_spins: setup.spin,
            rounds: plan.rounds,
            round_s: setup.duration.as_secs_f64(),
            contenders: plan.contenders.clone(),
            scenarios: outcomes.into_iter().map(ScenarioResult::new).collect(),
            floor,
        }
    }

    /// What went wrong on connections, one line for each.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failures = |result: &ScenarioResult| -> Vec<String> {
            let scenario = result.outcome.scenario;
            result
                .outcome
                .failures()
                .map(|(name, failure)| format!("{scenario}: {name}: {failure}"))
                .collect()
        };
        self.scenarios.iter().flat_map(failures).collect()
    }

    /// Scenarios of which no round counts.
    pub(crate) fn without_rounds(&self) -> Vec<String> {
        let none = |result: &&ScenarioResult| {
            result.outcome.scenario != Scenario::Memory && result.outcome.selection.rounds.is_empty()
        };
        self.scenarios.iter().filter(none).map(|result| result.outcome.scenario.to_string()).collect()
    }

    /// The table for people.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.print_setup(out)?;
        for result in &self.scenarios {
            writeln!(out, "\n{}", result.title())?;
            if result.outcome.scenario == Scenario::Memory {
                table::print(out, &memory_table(&result.outcome))?;
                continue;
            }
            table::print(out, &result.table())?;
        }
        writeln!(out)?;
        table::print(out, &self.overview())?;
        let Some((title, floor)) = self.floor_table() else { return Ok(()) };
        writeln!(out, "\n{title}")?;
        table::print(out, &floor)
    }

    /// How it was measured, in a line.
    fn method(&self) -> String {
        let client = if self.client_spins { "polls" } else { "sleeps" };
        format!(
            "server on CPU {}, client on CPU {} ({client}); {} rounds of {} s for each, by turns, after one \
             that is thrown away; median (min-max); ratios are medians of the rounds' ratios: {}",
            self.server_cores,
            self.client_cores,
            self.rounds,
            self.round_s,
            table::RATIO_LEGEND
        )
    }

    /// The results without the rounds.
    pub(crate) fn summary(&self) -> Summary<'_> {
        Summary {
            schema: SCHEMA,
            machine: &self.machine,
            method: self.method(),
            floor: self.floor.as_ref(),
            scenarios: self.scenarios.iter().map(ScenarioSummary::of).collect(),
        }
    }

    fn print_setup(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}\n{}", self.machine, self.method())?;
        for contender in &self.contenders {
            writeln!(out, "{}: {}", contender.name, contender.command.join(" "))?;
        }
        Ok(())
    }

    /// All scenarios but idle memory in one table.
    fn overview(&self) -> Vec<Vec<String>> {
        overview::table(&self.names(), &self.lines())
    }

    /// What stands above the table of the floor, and the table; none if it was not measured.
    fn floor_table(&self) -> Option<(String, Vec<Vec<String>>)> {
        let (floor, names) = (self.floor.as_ref()?, self.names());
        let results = self.scenarios.iter();
        let shares = results.filter_map(|result| Some((result.outcome.scenario, result.floor.as_ref()?)));
        let denied = shares.clone().any(|(_, share)| share.is_denied());
        let rows = shares.map(|(scenario, share)| share.row(scenario, &names));
        Some((floor.title(denied), [Share::header(&names)].into_iter().chain(rows).collect()))
    }

    fn names(&self) -> Vec<String> {
        self.contenders.iter().map(|contender| contender.name.clone()).collect()
    }

    fn lines(&self) -> Vec<Line> {
        let results = self.scenarios.iter().filter(|result| result.outcome.scenario != Scenario::Memory);
        results.map(ScenarioResult::line).collect()
    }

    /// The medians as a picture.
    pub(crate) fn svg(&self) -> anyhow::Result<String> {
        let results = self.scenarios.iter().filter(|result| result.outcome.scenario != Scenario::Memory);
        plot::svg(&results.map(ScenarioResult::panel).collect::<Vec<_>>())
            .map_err(|error| anyhow::anyhow!("draw the results: {error}"))
    }

    /// The overview, one Markdown table of all scenarios but idle memory, and one of that.
    pub(crate) fn print_markdown(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}; {}\n", self.machine, self.method())?;
        table::print_markdown(out, &self.overview())?;
        writeln!(out)?;
        let mut lines = Vec::new();
        for result in self.scenarios.iter().filter(|result| result.outcome.scenario != Scenario::Memory) {
            let mut table = result.table();
            let header = table.remove(0);
            if lines.is_empty() {
                lines.push([vec!["scenario".to_owned()], header].concat());
            }
            lines.extend(
                table.into_iter().map(|row| [vec![result.outcome.scenario.to_string()], row].concat()),
            );
        }
        table::print_markdown(out, &lines)?;
        writeln!(out)?;
        self.scenarios.iter().try_for_each(|result| writeln!(out, "* {}", result.title()))?;
        for result in self.scenarios.iter().filter(|result| result.outcome.scenario == Scenario::Memory) {
            writeln!(out)?;
            table::print_markdown(out, &memory_table(&result.outcome))?;
        }
        let Some((title, floor)) = self.floor_table() else { return Ok(()) };
        writeln!(out, "\n{title}\n")?;
        table::print_markdown(out, &floor)
    }
}
