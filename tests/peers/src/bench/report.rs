//! The results as a table for people, as Markdown, and as JSON.

use std::io::{self, Write};

use lab::machine::Machine;
use lab::summary::{Comparison, Spread};
use serde::Serialize;

use super::contender::Contender;
use super::floor::Floor;
use super::memory;
use super::overview::{self, Line};
use super::plot::{self, Panel};
use super::rounds::{Outcome, Plan};
use super::scenario::Scenario;
use super::selection::FOREIGN;
use super::table;
use super::turn::Turn;

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
    /// What the kernel alone needs.
    floor: Option<Floor>,
}

/// A scenario's raw figures and their summary.
#[derive(Debug, Clone, Serialize)]
struct ScenarioResult {
    #[serde(flatten)]
    outcome: Outcome,
    contenders: Vec<Row<Spread>>,
    /// Each of the others (before) and the first contender (after).
    ratios: Vec<Row<Comparison>>,
}

/// A contender's figures, or what two contenders' say, over the rounds that count; none without such a round.
#[derive(Debug, Clone, Serialize)]
struct Row<T> {
    name: String,
    values: Vec<(&'static str, Option<T>)>,
}

/// A figure of a turn.
struct Figure {
    name: &'static str,
    digits: usize,
    of: fn(&Turn) -> f64,
}

/// The figures of the overview and of the picture.
const CPU: &str = "CPU us/op";
const P99: &str = "p99 us";

/// The figure that an open loop must reach.
const RATE: &str = "op/s";

/// What is shown of each turn.
const FIGURES: [Figure; 7] = [
    Figure { name: CPU, digits: 2, of: |turn| turn.server_cpu_us_per_operation },
    Figure { name: RATE, digits: 0, of: |turn| turn.rate_per_s },
    Figure { name: "p50 us", digits: 0, of: |turn| turn.latency_us.p50 },
    Figure { name: P99, digits: 0, of: |turn| turn.latency_us.p99 },
    Figure { name: "p99.9 us", digits: 0, of: |turn| turn.latency_us.p99_9 },
    Figure { name: "server busy %", digits: 0, of: |turn| 100.0 * turn.server_busy },
    Figure { name: "client CPU us/op", digits: 2, of: |turn| turn.client_cpu_us_per_operation },
];

/// The first so many figures have ratios.
const RATIOS: usize = 5;

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
        let Some(floor) = &self.floor else { return Ok(()) };
        writeln!(out, "\n{}", floor.title())?;
        table::print(out, &self.floor_table(floor))
    }

    fn print_setup(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}, Linux {}", self.machine.cpu_model, self.machine.kernel)?;
        let client = if self.client_spins { "polls" } else { "sleeps" };
        writeln!(
            out,
            "server on CPU {}, client on CPU {} ({client}); {} rounds of {} s for each, by turns, after one \
             that is thrown away; median (min-max); ratios are medians of the rounds' ratios: {}",
            self.server_cores,
            self.client_cores,
            self.rounds,
            self.round_s,
            table::RATIO_LEGEND
        )?;
        for contender in &self.contenders {
            writeln!(out, "{}: {}", contender.name, contender.command.join(" "))?;
        }
        Ok(())
    }

    /// All scenarios but idle memory in one table.
    fn overview(&self) -> Vec<Vec<String>> {
        overview::table(&self.names(), &self.lines())
    }

    fn floor_table(&self, floor: &Floor) -> Vec<Vec<String>> {
        floor.table(&self.names(), &self.lines())
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
        let Some(floor) = &self.floor else { return Ok(()) };
        writeln!(out, "\n{}\n", floor.title())?;
        table::print_markdown(out, &self.floor_table(floor))
    }
}

impl ScenarioResult {
    fn new(outcome: Outcome) -> Self {
        let names = &outcome.names;
        let row = |index: usize| {
            let values =
                FIGURES.iter().map(|figure| (figure.name, Spread::of(outcome.turns(index).map(figure.of))));
            Row { name: names[index].clone(), values: values.collect() }
        };
        let ratio = |index: usize| {
            let pairs = outcome.turns(index).zip(outcome.turns(0));
            let compare = |figure: &Figure| {
                let pair = |(other, first)| (Some((figure.of)(other)), Some((figure.of)(first)));
                Comparison::of(&pairs.clone().map(pair).collect::<Vec<_>>())
            };
            let values = FIGURES.iter().take(RATIOS).map(|figure| (figure.name, compare(figure)));
            Row { name: format!("{} / {}", names[0], names[index]), values: values.collect() }
        };
        let (contenders, ratios) = match outcome.scenario {
            Scenario::Memory => (Vec::new(), Vec::new()),
            _ => ((0..names.len()).map(row).collect(), (1..names.len()).map(ratio).collect()),
        };
        Self { outcome, contenders, ratios }
    }

    /// What was measured, and under which conditions.
    fn title(&self) -> String {
        let outcome = &self.outcome;
        if outcome.scenario == Scenario::Memory {
            return format!(
                "{}: KiB of the server, each connection after one message of 64 bytes",
                outcome.scenario
            );
        }
        let count = outcome.selection.rounds.len();
        let counted = || outcome.selection.rounds.iter().flat_map(|&round| &outcome.rounds[round].turns);
        let foreign = Spread::of(counted().map(|turn| 100.0 * turn.foreign))
            .map_or(String::new(), |foreign| {
                format!("; foreign CPU {:.0} % (max {:.0} %)", foreign.median, foreign.max)
            });
        let distance = Spread::of(counted().flat_map(|turn| turn.distance_ns)).map_or(String::new(), |ns| {
            format!("; cache line from CPU to CPU {:.0} ns ({:.0}-{:.0})", ns.median, ns.min, ns.max)
        });
        let rate = outcome.rate_asked_per_s.map_or(String::new(), |rate| format!(" ({rate} per second)"));
        let reached = |row: &Row<Spread>| {
            row.value(RATE)
                .zip(outcome.rate_asked_per_s)
                .is_none_or(|(rate, asked)| rate.median >= 0.98 * f64::from(asked))
        };
        let not_started: u64 = counted().map(|turn| turn.operations_not_started).sum();
        let not_started = match not_started {
            0 => String::new(),
            count => format!("; {count} MESSAGES COULD NOT BE STARTED"),
        };
        let reached = if self.contenders.iter().all(reached) { "" } else { "; THE RATE WAS NOT REACHED" };
        let disturbed = match outcome.selection.disturbed {
            0 => String::new(),
            disturbed => format!("; {disturbed} OF THEM DISTURBED by more than {:.0} %", 100.0 * FOREIGN),
        };
        format!(
            "{}{rate}: {count} rounds{disturbed}; {} repeated{reached}{not_started}{distance}{foreign}",
            outcome.scenario, outcome.repeats
        )
    }

    /// Its line in the overview.
    fn line(&self) -> Line {
        let cpu = |row: &Row<Spread>| (row.name.clone(), row.value(CPU).copied());
        let others = self.outcome.names.iter().skip(1);
        let ratio = |(name, row): (&String, &Row<Comparison>)| (name.clone(), row.value(CPU).copied());
        Line {
            scenario: self.outcome.scenario.to_string(),
            cpu: self.contenders.iter().map(cpu).collect(),
            ratios: others.zip(&self.ratios).map(ratio).collect(),
        }
    }

    /// Its picture: in the open loop of the latency that is exceeded by one in a hundred, else of the CPU
    /// time.
    fn panel(&self) -> Panel {
        let figure = match self.outcome.scenario {
            Scenario::Open { .. } => P99,
            _ => CPU,
        };
        let bar = |row: &Row<Spread>| Some((row.name.clone(), row.value(figure).copied()?));
        Panel {
            title: format!("{}: {figure}", self.outcome.scenario),
            bars: self.contenders.iter().filter_map(bar).collect(),
        }
    }

    /// Header and rows.
    fn table(&self) -> Vec<Vec<String>> {
        let header = std::iter::once("").chain(FIGURES.iter().map(|figure| figure.name));
        let mut table = vec![header.map(str::to_owned).collect::<Vec<_>>()];
        let spread = |spread: Option<&Spread>, figure: &Figure| table::spread(spread, figure.digits);
        table.extend(self.contenders.iter().map(|row| row.cells(spread)));
        table.extend(self.ratios.iter().map(|row| row.cells(|ratio, _| table::ratio(ratio))));
        table
    }
}

impl<T> Row<T> {
    fn value(&self, figure: &str) -> Option<&T> {
        self.values.iter().find(|(name, _)| *name == figure).and_then(|(_, value)| value.as_ref())
    }

    /// The name, and each value as `show` has it; empty where there is no value.
    fn cells(&self, show: impl Fn(Option<&T>, &Figure) -> String) -> Vec<String> {
        let mut cells = vec![self.name.clone()];
        let values = self.values.iter().zip(&FIGURES);
        cells.extend(values.map(|((_, value), figure)| show(value.as_ref(), figure)));
        cells.resize(FIGURES.len() + 1, String::new());
        cells
    }
}

fn memory_table(outcome: &Outcome) -> Vec<Vec<String>> {
    let columns = |connections| ["RSS", "PSS", "anonymous"].map(|kind| format!("{kind} at {connections}"));
    let header = std::iter::once(String::new()).chain(memory::CONNECTIONS.into_iter().flat_map(columns));
    let mut table = vec![header.chain(["RSS bytes/connection".to_owned()]).collect::<Vec<_>>()];
    for memory in &outcome.memory {
        let kib = |bytes: u64| format!("{}", bytes / 1024);
        let points = memory.points.iter().map(|point| point.memory);
        let values = points.flat_map(|memory| [memory.rss, memory.pss, memory.anonymous].map(kib));
        let mut row: Vec<String> = std::iter::once(memory.contender.clone()).chain(values).collect();
        // Where it failed there is nothing.
        row.resize(table[0].len() - 1, "-".to_owned());
        let per_connection = memory.bytes_per_connection().filter(|_| memory.failure.is_none());
        row.push(per_connection.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")));
        table.push(row);
    }
    table
}
