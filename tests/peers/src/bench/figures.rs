//! One scenario's figures, their summary, and the cells in which they are shown.

use lab::summary::{Comparison, Spread, Verdict};
use serde::Serialize;

use super::floor::Half;
use super::memory;
use super::overview::Line;
use super::plot::Panel;
use super::rounds::Outcome;
use super::scenario::Scenario;
use super::selection::FOREIGN;
use super::table;
use super::turn::Turn;

/// A scenario's raw figures and their summary.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ScenarioResult {
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    pub(crate) contenders: Vec<Row<Spread>>,
    /// Each of the others (before) and the first contender (after).
    pub(crate) ratios: Vec<Row<Comparison>>,
    /// What the kernel alone needs.
    pub(crate) floor: Option<Share>,
}

/// The floor of a scenario, and what each contender reaches of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Share {
    half_us: Vec<(&'static str, Option<Spread>)>,
    /// Names of the contenders and, of the rounds, the floor as a per cent of what they need.
    percent: Vec<(String, Option<Spread>)>,
}

/// A contender's figures, or what two contenders' say, over the rounds that count; none without such a round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row<T> {
    name: String,
    values: Vec<(&'static str, Option<T>)>,
}

/// A [`Row`] in few words.
#[derive(Debug, Serialize)]
pub(crate) struct Brief {
    name: String,
    values: Vec<BriefValue>,
}

#[derive(Debug, Serialize)]
struct BriefValue {
    figure: &'static str,
    /// To a thousandth.
    median_min_max: Option<[f64; 3]>,
    /// Of a ratio, whether it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

/// A figure of a turn.
struct Figure {
    name: &'static str,
    digits: usize,
    of: fn(&Turn) -> f64,
}

/// A cost of the floor, microseconds.
struct Cost {
    name: &'static str,
    of: fn(&Half) -> Option<f64>,
}

/// What is shown of the floor; percentages are of the first.
const COSTS: [Cost; 4] = [
    Cost { name: "io_uring", of: |half| Some(half.io_uring_us) },
    Cost { name: "system calls", of: |half| Some(half.system_calls_us) },
    Cost { name: "AF_UNIX", of: |half| Some(half.unix_us) },
    Cost { name: "whole, kernel echo", of: |half| half.kernel_echo_us },
];

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

impl ScenarioResult {
    pub(crate) fn new(outcome: Outcome) -> Self {
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
        let floor = Share::of(&outcome);
        Self { outcome, contenders, ratios, floor }
    }

    /// What was measured, and under which conditions.
    pub(crate) fn title(&self) -> String {
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
    pub(crate) fn line(&self) -> Line {
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
    pub(crate) fn panel(&self) -> Panel {
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
    pub(crate) fn table(&self) -> Vec<Vec<String>> {
        let header = std::iter::once("").chain(FIGURES.iter().map(|figure| figure.name));
        let mut table = vec![header.map(str::to_owned).collect::<Vec<_>>()];
        let spread = |spread: Option<&Spread>, figure: &Figure| table::spread(spread, figure.digits);
        table.extend(self.contenders.iter().map(|row| row.cells(spread)));
        table.extend(self.ratios.iter().map(|row| row.cells(|ratio, _| table::ratio(ratio))));
        table
    }
}

impl Share {
    /// None if it was not measured in every round that counts.
    fn of(outcome: &Outcome) -> Option<Self> {
        let rounds = outcome.selection.rounds.iter().map(|&round| &outcome.rounds[round]);
        let rounds: Vec<(&Half, &[Turn])> =
            rounds.map(|round| Some((round.floor.as_ref()?, &*round.turns))).collect::<Option<_>>()?;
        let half =
            |cost: &Cost| (cost.name, Spread::of(rounds.iter().filter_map(|(half, _)| (cost.of)(half))));
        let percent = |(place, name): (usize, &String)| {
            let share = |(half, turns): &(&Half, &[Turn])| {
                100.0 * half.io_uring_us / turns[place].server_cpu_us_per_operation
            };
            (name.clone(), Spread::of(rounds.iter().map(share)))
        };
        let names = outcome.names.iter().enumerate();
        (!rounds.is_empty()).then(|| Self {
            half_us: COSTS.iter().map(half).collect(),
            percent: names.map(percent).collect(),
        })
    }

    /// The header of a table of them, for contenders of these names.
    pub(crate) fn header(names: &[String]) -> Vec<String> {
        let costs = COSTS.iter().map(|cost| cost.name.to_owned());
        [String::new()].into_iter().chain(costs).chain(names.iter().map(|name| format!("{name} %"))).collect()
    }

    /// The row of a scenario.
    pub(crate) fn row(&self, scenario: Scenario, names: &[String]) -> Vec<String> {
        let halves = self.half_us.iter().map(|(_, spread)| table::spread(spread.as_ref(), 2));
        let percent = |name: &String| {
            let found = self.percent.iter().find(|(other, _)| other == name);
            table::spread(found.and_then(|(_, spread)| spread.as_ref()), 0)
        };
        [scenario.to_string()].into_iter().chain(halves).chain(names.iter().map(percent)).collect()
    }

    /// Whether a cost could not be measured for want of a privilege.
    pub(crate) fn is_denied(&self) -> bool {
        self.half_us.iter().any(|(_, spread)| spread.is_none())
    }
}

impl Row<Spread> {
    pub(crate) fn brief(&self) -> Brief {
        let value =
            |(figure, spread): &(&'static str, Option<Spread>)| BriefValue::of(figure, spread.as_ref(), None);
        Brief { name: self.name.clone(), values: self.values.iter().map(value).collect() }
    }
}

impl Row<Comparison> {
    pub(crate) fn brief(&self) -> Brief {
        let value = |(figure, comparison): &(&'static str, Option<Comparison>)| {
            let ratio = comparison.as_ref().and_then(|comparison| comparison.ratio.as_ref());
            BriefValue::of(figure, ratio, comparison.map(|comparison| comparison.verdict))
        };
        Brief { name: self.name.clone(), values: self.values.iter().map(value).collect() }
    }
}

impl BriefValue {
    fn of(figure: &'static str, spread: Option<&Spread>, verdict: Option<Verdict>) -> Self {
        let rounded = |value: f64| (1000.0 * value).round() / 1000.0;
        let in_order = |spread: &Spread| [spread.median, spread.min, spread.max].map(rounded);
        Self { figure, median_min_max: spread.map(in_order), verdict }
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

pub(crate) fn memory_table(outcome: &Outcome) -> Vec<Vec<String>> {
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
