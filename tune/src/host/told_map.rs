//! A queue map that the user tells (`--map`), and rows from pairs of a queue and its interrupt. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::netdev::Direction;
use super::queue_map::{claimed_twice_or_not_at_all, sort};
use super::{HowKnown, Irq, Netdev, Nic, QueueIndex, QueueIrq, QueueIrqs, Serves};

/// What the user says: the interrupt of each of these queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldMap(BTreeMap<(Direction, QueueIndex), Irq>);

/// Why a map cannot be believed. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ToldMapError(String);

const FORM: &str = "write rx-0=irq 42,tx-0=irq 43, or rxtx-0=irq 42 for both, one for each queue";

impl FromStr for ToldMap {
    type Err = ToldMapError;

    /// Entries such as `rx-0=irq 42` between commas or on lines of their own; what follows `#` on a line is a
    /// comment.
    fn from_str(text: &str) -> Result<Self, ToldMapError> {
        let mut map = BTreeMap::new();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        for entry in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty()) {
            let error = || ToldMapError(format!("\"{}\" is no entry of a map: {FORM}", entry.escape_debug()));
            let (directions, queue, irq) = parse_entry(entry).ok_or_else(error)?;
            for &direction in directions {
                if let Some(other) = map.insert((direction, queue), irq).filter(|other| *other != irq) {
                    return Err(ToldMapError(format!(
                        "{direction} queue {queue} is told twice, with IRQ {other} and IRQ {irq}"
                    )));
                }
            }
        }
        if map.is_empty() {
            return Err(ToldMapError(format!("the map is empty: {FORM}")));
        }
        Ok(Self(map))
    }
}

fn parse_entry(entry: &str) -> Option<(&'static [Direction], QueueIndex, Irq)> {
    let (queue, irq) = entry.split_once('=')?;
    let irq = irq.trim();
    let irq = irq.strip_prefix("irq").filter(|rest| rest.starts_with(' ')).unwrap_or(irq);
    let (kind, index) = queue.trim().rsplit_once('-')?;
    let directions: &[Direction] = match kind {
        "rx" => &[Direction::Rx],
        "tx" => &[Direction::Tx],
        "rxtx" => &[Direction::Rx, Direction::Tx],
        _ => return None,
    };
    Some((directions, QueueIndex(number(index)?), Irq(number(irq.trim())?)))
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What is known of the interrupts that a map names.
pub(super) trait Known {
    /// The handler's name in `/proc/interrupts`; `None` if there is no handler.
    fn name(&self, irq: Irq) -> Option<String>;
    /// True if `/proc/irq/N` exists.
    fn exists(&self, irq: Irq) -> bool;
    /// The interface whose device has it, if that is another one.
    fn other_owner(&self, irq: Irq) -> Option<String>;
}

impl ToldMap {
    /// True if nothing was told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The map with what was told; where `found` is certain, it must agree with that.
    ///
    /// # Errors
    /// If what was told contradicts the host, or is not enough.
    pub(super) fn complete(
        &self,
        nic: &Nic,
        found: QueueIrqs,
        netdev: &Netdev,
        known: &impl Known,
    ) -> Result<QueueIrqs, ToldMapError> {
        for (&(direction, queue), &irq) in &self.0 {
            self.check(nic, (direction, queue), irq, known).map_err(ToldMapError)?;
            let by_netlink = netdev.of_queue(direction, queue).and_then(|napi| napi.irq);
            let certain = found.doubt.is_none().then(|| found.of(direction, queue)).flatten();
            let certain = certain.map(|row| (row.irq, row.how));
            let other = by_netlink.map(|irq| (irq, HowKnown::Netlink)).or(certain);
            if let Some((other, how)) = other.filter(|(other, _)| *other != irq) {
                return Err(ToldMapError(format!(
                    "--map says IRQ {irq} for {direction} queue {queue}, and it is IRQ {other} (known by \
                     {how})"
                )));
            }
        }
        let Some(doubt) = found.doubt.clone() else { return Ok(found) };
        let pairs = self.0.iter().map(|(&(direction, queue), &irq)| (direction, queue, irq));
        let rows = rows(nic, pairs, HowKnown::Told, |irq| known.name(irq));
        match claimed_twice_or_not_at_all(nic, &rows) {
            None => Ok(QueueIrqs { rows, ..QueueIrqs::default() }),
            Some(missing) => Err(ToldMapError(format!(
                "--map must name every queue, since of itself the map is not known ({doubt}): {missing}"
            ))),
        }
    }

    fn check(
        &self,
        nic: &Nic,
        (direction, queue): (Direction, QueueIndex),
        irq: Irq,
        known: &impl Known,
    ) -> Result<(), String> {
        let name = &nic.name;
        if !has_queue(nic, direction, queue) {
            let count = match direction {
                Direction::Rx => nic.rx_queues.len(),
                Direction::Tx => nic.tx_queues.len(),
            };
            return Err(format!("--map names {direction} queue {queue}, and {name} has {count} of them"));
        }
        if !known.exists(irq) {
            return Err(format!("--map names IRQ {irq}, and there is no /proc/irq/{irq}"));
        }
        if let Some(other) = known.other_owner(irq) {
            return Err(format!("--map names IRQ {irq} for {name}, and it is one of {other}"));
        }
        if known.name(irq).is_none() {
            return Err(format!("--map names IRQ {irq}, which has no handler in /proc/interrupts"));
        }
        Ok(())
    }
}

fn has_queue(nic: &Nic, direction: Direction, queue: QueueIndex) -> bool {
    match direction {
        Direction::Rx => nic.rx_queues.iter().any(|rx| rx.index == queue),
        Direction::Tx => nic.tx_queues.iter().any(|tx| tx.index == queue),
    }
}

/// Rows from pairs of queue and interrupt; queues that the interface does not have are left out. An interrupt
/// of several queues has a row for each, unless it serves all that there are.
pub(super) fn rows(
    nic: &Nic,
    pairs: impl Iterator<Item = (Direction, QueueIndex, Irq)>,
    how: HowKnown,
    name: impl Fn(Irq) -> Option<String>,
) -> Vec<QueueIrq> {
    let mut queues: BTreeMap<Irq, BTreeSet<(QueueIndex, Direction)>> = BTreeMap::new();
    for (direction, queue, irq) in pairs.filter(|&(direction, queue, _)| has_queue(nic, direction, queue)) {
        queues.entry(irq).or_default().insert((queue, direction));
    }
    let every = nic.rx_queues.len() + nic.tx_queues.len();
    let mut rows = Vec::new();
    for (irq, served) in queues {
        let name = name(irq).unwrap_or_default();
        let row = |serves| QueueIrq { irq, name: name.clone(), serves, how };
        if served.len() == every && every > 2 {
            rows.push(row(Serves::All));
            continue;
        }
        for &(queue, direction) in &served {
            let both = served.contains(&(queue, Direction::Rx)) && served.contains(&(queue, Direction::Tx));
            match direction {
                Direction::Rx if both => rows.push(row(Serves::Both(queue))),
                Direction::Rx => rows.push(row(Serves::Rx(queue))),
                Direction::Tx if both => {}
                Direction::Tx => rows.push(row(Serves::Tx(queue))),
            }
        }
    }
    sort(&mut rows);
    rows
}

/// The rows that netlink gives.
pub(super) fn netlink_rows(
    nic: &Nic,
    netdev: &Netdev,
    exists: impl Fn(Irq) -> bool,
    name: impl Fn(Irq) -> Option<String>,
) -> Vec<QueueIrq> {
    let pairs = netdev.queues.iter().filter_map(|queue| {
        let irq = netdev.napi(queue.napi?)?.irq?;
        exists(irq).then_some((queue.direction, queue.index, irq))
    });
    rows(nic, pairs, HowKnown::Netlink, name)
}

/// What netlink says, if that is not what the map says.
pub(super) fn against_netlink(netlink: &[QueueIrq], found: &QueueIrqs) -> Option<String> {
    let of = |row: &QueueIrq| match row.serves {
        Serves::Both(queue) | Serves::Rx(queue) => Some((Direction::Rx, queue)),
        Serves::Tx(queue) => Some((Direction::Tx, queue)),
        Serves::All => None,
    };
    netlink.iter().find_map(|row| {
        let (direction, queue) = of(row)?;
        let other = found.of(direction, queue).filter(|other| other.irq != row.irq)?;
        Some(format!(
            "netlink says IRQ {} ({}) serves {direction} queue {queue}, and by {} it is IRQ {} ({})",
            row.irq, row.name, other.how, other.irq, other.name
        ))
    })
}

#[cfg(test)]
mod tests;
