//! All scenarios, and the rounds of each.

use std::fmt;
use std::io::{IsTerminal, Write};

use anyhow::Context;
use lab::interrupt::Interrupt;
use lab::summary::Spread;
use serde::Serialize;

use super::contender::{Contender, Running};
use super::floor::Half;
use super::memory::{self, MemoryUse};
use super::scenario::{OPEN, Scenario};
use super::selection::{Conditions, Selection, is_enough, select};
use super::turn::{Setup, Turn, measure};

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The first is compared with each of the others.
    pub(crate) contenders: Vec<Contender>,
    pub(crate) scenarios: Vec<Scenario>,
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// The most rounds that are repeated for being disturbed, in one scenario.
    pub(crate) repeats: usize,
    pub(crate) setup: Setup,
    /// In each round the floor too.
    pub(crate) floor: bool,
}

/// One turn of each contender.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    /// Names of the contenders in the order of their turns.
    pub(crate) order: Vec<String>,
    /// What the kernel alone needs, measured before the turns; none if it is not asked for, or has no floor.
    pub(crate) floor: Option<Half>,
    /// In the order of the contenders.
    pub(crate) turns: Vec<Turn>,
}

impl Round {
    fn conditions(&self) -> Conditions {
        Conditions {
            foreign: self.turns.iter().map(|turn| turn.foreign).fold(0.0, f64::max),
            distances: self.turns.iter().flat_map(|turn| turn.distance_ns).collect(),
            failed: self.turns.iter().any(|turn| turn.failure.is_some() || turn.operations == 0),
        }
    }
}

/// What a scenario gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    /// Names of the contenders that take part, the first of all before the others.
    pub(crate) names: Vec<String>,
    /// Open loop: messages per second asked for.
    pub(crate) rate_asked_per_s: Option<u32>,
    /// Thrown away.
    pub(crate) warm_up: Option<Round>,
    /// All others, those that do not count too.
    pub(crate) rounds: Vec<Round>,
    /// Rounds beyond those wanted, because one was disturbed.
    pub(crate) repeats: usize,
    /// Those that count.
    pub(crate) selection: Selection,
    /// Idle memory instead of rounds.
    pub(crate) memory: Vec<MemoryUse>,
    /// Who took part, failed, and was left out when the scenario was run again.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A contender that could not be measured in a scenario.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LeftOut {
    contender: String,
    why: String,
}

/// Whose failure an error is.
#[derive(Debug)]
struct FailureOf(String);

impl fmt::Display for FailureOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Outcome {
    fn new(scenario: Scenario, contenders: &[&Contender]) -> Self {
        let selection = Selection::default();
        Self {
            scenario,
            names: contenders.iter().map(|contender| contender.name.clone()).collect(),
            rate_asked_per_s: None,
            warm_up: None,
            rounds: Vec::new(),
            repeats: 0,
            selection,
            memory: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// The turns of a contender in the rounds that count.
    pub(crate) fn turns(&self, contender: usize) -> impl Iterator<Item = &Turn> + Clone {
        self.selection.rounds.iter().map(move |&round| &self.rounds[round].turns[contender])
    }

    /// What went wrong, in any round.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        let turns = self.warm_up.iter().chain(&self.rounds).flat_map(|round| &round.turns);
        let turns = turns.filter_map(|turn| Some((&*turn.contender, turn.failure.as_deref()?)));
        let memory =
            self.memory.iter().filter_map(|memory| Some((&*memory.contender, memory.failure.as_deref()?)));
        let left_out = self.left_out.iter().map(|left| (&*left.contender, &*left.why));
        turns.chain(memory).chain(left_out)
    }
}

/// Runs all scenarios. Gives what the scenarios before an error gave, too.
pub(crate) fn run(plan: &Plan, interrupt: &Interrupt) -> (Vec<Outcome>, anyhow::Result<()>) {
    let mut progress = Progress { terminal: std::io::stderr().is_terminal() };
    let mut outcomes = Vec::new();
    for &scenario in &plan.scenarios {
        match run_scenario(plan, scenario, interrupt, &mut progress) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => return (outcomes, Err(error.context(scenario.to_string()))),
        }
    }
    (outcomes, Ok(()))
}

/// A scenario with all who take part; if one of several others fails, once more without it.
fn run_scenario(
    plan: &Plan,
    scenario: Scenario,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> anyhow::Result<Outcome> {
    let contenders = plan.contenders.iter().filter(|contender| contender.takes_part(scenario));
    let mut contenders: Vec<&Contender> = contenders.collect();
    let mut left_out = Vec::new();
    loop {
        let error = match run_with(&contenders, plan, scenario, interrupt, progress) {
            Ok(outcome) => return Ok(Outcome { left_out, ..outcome }),
            Err(error) => error,
        };
        // What fails after a signal fails because of it.
        interrupt.check()?;
        let others = contenders.iter().skip(1);
        let of = error.downcast_ref().and_then(|FailureOf(name)| {
            others.clone().find(|contender| contender.name == *name).map(|contender| contender.name.clone())
        });
        match of {
            Some(contender) if others.len() > 1 => {
                contenders.retain(|other| other.name != contender);
                let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
                left_out.push(LeftOut { contender, why: format!("left out: {}", causes.join(": ")) });
            }
            _ => return Err(error),
        }
    }
}

fn run_with(
    contenders: &[&Contender],
    plan: &Plan,
    scenario: Scenario,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::new(scenario, contenders);
    if scenario == Scenario::Memory {
        for contender in contenders {
            interrupt.check()?;
            progress.say(&format!("{scenario}: {}", contender.name));
            let memory = memory::measure(contender, &plan.setup, interrupt);
            // What fails after a signal fails because of it.
            interrupt.check()?;
            outcome.memory.push(memory);
        }
        return Ok(outcome);
    }
    let start = |contender: &&Contender| {
        Running::start(contender, &plan.setup.server_cores, interrupt)
            .with_context(|| FailureOf(contender.name.clone()))
    };
    let mut servers: Vec<Running> = contenders.iter().map(start).collect::<anyhow::Result<_>>()?;
    if let Scenario::Open { percent } = scenario {
        progress.say(&format!("{scenario}: the rate of the closed loop"));
        outcome.rate_asked_per_s = Some(open_rate(&mut servers, percent, &plan.setup, interrupt)?);
    }
    let most = plan.rounds + plan.repeats;
    let mut conditions = Vec::new();
    for number in 0..=most {
        interrupt.check()?;
        progress.say(&format!("{scenario}: round {number} of {} ({} at most)", plan.rounds, most));
        let floor = if plan.floor { Half::measure(plan.setup.server_cpu()?, scenario)? } else { None };
        let rate = outcome.rate_asked_per_s;
        let round = Round { floor, ..round(&mut servers, number, scenario, rate, &plan.setup, interrupt)? };
        if number == 0 {
            outcome.warm_up = Some(round);
            continue;
        }
        conditions.push(round.conditions());
        outcome.rounds.push(round);
        if is_enough(&conditions, plan.rounds) {
            break;
        }
    }
    outcome.repeats = outcome.rounds.len().saturating_sub(plan.rounds);
    outcome.selection = select(&conditions, plan.rounds);
    Ok(outcome)
}

/// Each contender once, in this order or the reverse one by turns.
fn round(
    servers: &mut [Running],
    number: usize,
    scenario: Scenario,
    rate: Option<u32>,
    setup: &Setup,
    interrupt: &Interrupt,
) -> anyhow::Result<Round> {
    let mut order: Vec<usize> = (0..servers.len()).collect();
    if number.is_multiple_of(2) {
        order.reverse();
    }
    let mut turns = Vec::new();
    for &index in &order {
        interrupt.check()?;
        let turn = measure(&mut servers[index], scenario, rate, setup);
        // What fails after a signal fails because of it.
        interrupt.check()?;
        turns.push((index, turn.with_context(|| FailureOf(servers[index].name.clone()))?));
    }
    turns.sort_by_key(|&(index, _)| index);
    let order = order.iter().map(|&index| servers[index].name.clone()).collect();
    Ok(Round { order, floor: None, turns: turns.into_iter().map(|(_, turn)| turn).collect() })
}

/// A share of the rate of the closed loop of all contenders but the first: the median of three turns of each,
/// the greatest of these.
fn open_rate(
    servers: &mut [Running],
    percent: u32,
    setup: &Setup,
    interrupt: &Interrupt,
) -> anyhow::Result<u32> {
    let closed = Scenario::Echo { size: OPEN.0, connections: OPEN.1, depth: 1, count: None };
    let mut rates = vec![Vec::new(); servers.len()];
    for _ in 0..3 {
        for (server, rates) in servers.iter_mut().zip(&mut rates).skip(1) {
            interrupt.check()?;
            let turn = measure(server, closed, None, setup);
            rates.push(turn.with_context(|| FailureOf(server.name.clone()))?.rate_per_s);
        }
    }
    let medians = rates.into_iter().filter_map(Spread::of).map(|spread| spread.median);
    let best = medians.fold(0.0, f64::max);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rounds down what is in the range
    let rate = (best * f64::from(percent) / 100.0) as u32;
    Ok(rate.max(1))
}

/// One line on standard error, if that is a terminal.
struct Progress {
    terminal: bool,
}

impl Progress {
    fn say(&mut self, text: &str) {
        if self.terminal {
            // A terminal that is gone does not stop the measurement.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
