//! Serving connections while everything is looked at: who received, who transmitted, where interrupts fired.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use tune::cpu_set::Cpu;

use super::nic::{self, Queue};
use super::perf::{Both, Counted};
use super::programs::{Load, Server, number};
use super::table::Table;
use super::transmit::{Trace, Transmitted};
use super::{interrupts, programs, wait};

pub(super) const CONNECTIONS: u32 = 2000;
pub(super) const MESSAGES: u32 = 4;

/// What was seen while the connections were served.
pub(super) struct Seen {
    /// The server's report.
    pub(super) report: Value,
    /// Messages that came back whole, every byte right.
    pub(super) messages: u64,
    pub(super) perf: Counted,
    transmitted: Transmitted,
    /// Of each interrupt, how often it fired where.
    fired: BTreeMap<u32, BTreeMap<Cpu, u64>>,
}

/// Serves [`CONNECTIONS`] from the client's namespace.
pub(super) fn serve(steer: &str) -> Result<Seen> {
    let queues = nic::read_queues()?;
    let server = Server::start(steer)?;
    let perf = Both::start(server.pid())?;
    let before = interrupts::read()?;
    let trace = Trace::start()?;
    let load = Load::start(CONNECTIONS, MESSAGES)?.finish()?;
    let transmitted = trace.stop(&queues)?;
    let fired = interrupts::since(&before)?;
    let perf = perf.stop()?;
    let messages = number(&load, "/operations")?;
    Ok(Seen { report: server.stop()?, messages, perf, transmitted, fired })
}

impl Seen {
    /// Accept-local or request-local.
    pub(super) fn share(&self, name: &str) -> Result<f64> {
        let share = self.report.pointer(&format!("/total/{name}")).and_then(Value::as_f64);
        share.with_context(|| format!("no {name} in the server's report"))
    }

    /// Checks that every message came back.
    pub(super) fn check_echoes(&self, what: &str, table: &mut Table) -> Result<()> {
        let accepted = number(&self.report, "/total/accepted")?;
        let asked = u64::from(CONNECTIONS) * u64::from(MESSAGES);
        table.check(
            &format!("{what}: every byte came back"),
            self.messages == asked && accepted == u64::from(CONNECTIONS),
            format!("{accepted} connections, {} of {asked} messages", self.messages),
        );
        Ok(())
    }

    /// Checks that connections and receives were local.
    pub(super) fn check_locality(&self, what: &str, least: f64, table: &mut Table) -> Result<()> {
        for name in ["accept_local", "request_local"] {
            let share = self.share(name)?;
            let named = name.replace('_', "-");
            table.check(
                &format!("{what}: {named} at least {:.1} %", 100.0 * least),
                share >= least,
                samples(self, name)?,
            );
        }
        Ok(())
    }

    /// Checks that the interrupts of the queues fired on the wanted CPUs only, and that of receiving of each
    /// queue at all: with [`CONNECTIONS`] over 48 queues none is without a connection (2000 / 48 is 41, and
    /// e^-41 the chance of none).
    pub(super) fn check_interrupts(&self, what: &str, queues: &BTreeMap<u32, Queue>, table: &mut Table) {
        let (mut wrong, mut total) = (Vec::new(), 0);
        for (queue, Queue { irqs, .. }) in queues {
            let receive = irqs.first_key_value().map(|(irq, _)| irq);
            if receive.and_then(|irq| self.fired.get(irq)).is_none_or(BTreeMap::is_empty) {
                wrong.push(format!("queue {queue}: no interrupt fired for what it received"));
            }
            for (irq, wanted) in irqs {
                for (cpu, count) in self.fired.get(irq).into_iter().flatten() {
                    total += count;
                    if !wanted.contains(*cpu) {
                        wrong.push(format!("IRQ {irq} of queue {queue} fired {count} times on CPU {cpu}"));
                    }
                }
            }
        }
        let name = format!("{what}: every queue's interrupts fire, and on its CPU only");
        table.none(&name, &wrong, format!("{total} interrupts of {} queues", queues.len()));
    }

    /// Checks that each CPU transmits on its own queues.
    pub(super) fn check_transmit(&self, what: &str, queues: &BTreeMap<u32, Queue>, table: &mut Table) {
        let Transmitted {
            packets,
            after_timers,
            strays,
            by_timers,
            by_timers_elsewhere,
            used,
            unqueued,
            lost,
        } = &self.transmitted;
        table.none(
            &format!("{what}: each TX queue is used from its own CPU only"),
            strays,
            format!(
                "{packets} packets, {after_timers} of them where a timer left the socket; \
                 of {by_timers} by timers {by_timers_elsewhere} elsewhere"
            ),
        );
        table.check(&format!("{what}: every TX queue is used"), used.len() == queues.len(), used);
        table.check(
            &format!("{what}: the trace is whole"),
            *unqueued == 0 && *lost == 0,
            format!("{lost} events lost, {unqueued} packets sent that nobody had queued"),
        );
    }
}

fn samples(seen: &Seen, name: &str) -> Result<String> {
    let local = number(&seen.report, &format!("/total/{name}_samples"))?;
    let all = number(&seen.report, &format!("/total/{}_samples", name.trim_end_matches("_local")))?;
    Ok(format!("{:.2} %: {local} of {all}", 100.0 * seen.share(name)?))
}

/// Checks that the untuned host with a listener chosen by hash is local as often as chance has it.
pub(super) fn check_by_chance(seen: &Seen, cpus: usize, table: &mut Table) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
    let chance = 1.0 / cpus as f64;
    for name in ["accept_local", "request_local"] {
        let share = seen.share(name)?;
        table.check(
            &format!("untuned, by hash: {} near 1/{cpus}", name.replace('_', "-")),
            (0.5 * chance..=2.0 * chance).contains(&share),
            samples(seen, name)?,
        );
    }
    Ok(())
}

/// Checks `plan`, `apply` and `plan` of the shipped profile.
pub(super) fn check_apply(table: &mut Table) -> Result<()> {
    let plan = programs::profile("plan")?.expect(2)?;
    table.check(
        "plan: there are changes, exit status 2",
        !plan.is_empty(),
        format!("{} changes", plan.lines().count()),
    );
    let (apply, refusals) = apply()?;
    let last = apply.lines().last().unwrap_or_default();
    let found = format!("{last}; refused {refusals} times before");
    table.check("apply of profiles/40g.toml", last.starts_with("applied "), found);
    let again = programs::profile("plan")?.expect(0)?;
    table.check(
        "plan again: nothing to do, exit status 0",
        again.is_empty(),
        format!("{} changes", again.lines().count()),
    );
    Ok(())
}

/// What `apply` says when it has done it, and how often it refused before. An irqbalance that moves
/// interrupts every second may move one between the look of `apply` and its ban: it has then changed nothing
/// and says to run it again.
fn apply() -> Result<(String, u32)> {
    let mut refusals = 0;
    wait::until("apply comes between two rounds of irqbalance", || {
        let apply = programs::profile("apply")?;
        if apply.code == 1 && apply.stderr.contains(" meanwhile; run again") {
            refusals += 1;
            return Ok(None);
        }
        Ok(Some((apply.expect(0)?, refusals)))
    })
}
