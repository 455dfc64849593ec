//! From the names of a device's interrupts to the queues that they serve, and what makes that map doubtful.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::driver_names::{self, Match, Numbers, Rule, Rules};
use super::netdev::Direction;
use super::nic::Device;
use super::{HowKnown, Irq, Nic, QueueIndex, QueueIrq, QueueIrqs, Serves};
use crate::cpu_set::{CpuSet, MAX_CPUS};

/// An interrupt with the names of its handlers.
pub(super) struct Candidate {
    pub(super) irq: Irq,
    pub(super) names: Vec<String>,
}

/// One interrupt whose name a rule reads.
struct Reading<'a> {
    irq: Irq,
    name: &'a str,
    rule: &'static Rule,
    found: Match<'a>,
}

/// The map that these interrupts give, found by `step` of the ladder: by all but [`HowKnown::NameOnly`] they
/// are known to be the device's.
pub(super) fn map(nic: &Nic, device: &Device, candidates: &[Candidate], step: HowKnown) -> QueueIrqs {
    let (readings, how) = read_names(nic, device, candidates, step);
    let mut rows: Vec<QueueIrq> = serve(nic, &readings, how);
    sort(&mut rows);
    let doubt = doubt(nic, &rows, &readings).or_else(|| guess(nic, &rows, step));
    if rows.is_empty() {
        return QueueIrqs { doubt: Some(nothing_known(nic, device, candidates)), ..QueueIrqs::default() };
    }
    QueueIrqs { rows, doubt, ..QueueIrqs::default() }
}

/// The names that a rule reads, and how certain that is: not more than the name where the rule is not the
/// driver's own.
fn read_names<'a>(
    nic: &Nic,
    device: &Device,
    candidates: &'a [Candidate],
    step: HowKnown,
) -> (Vec<Reading<'a>>, HowKnown) {
    let read = |rules: &[&'static Rule]| -> Vec<Reading<'a>> {
        let mut readings = Vec::new();
        for (candidate, name) in candidates.iter().flat_map(|c| c.names.iter().map(move |name| (c, name))) {
            let reading = rules.iter().find_map(|rule| {
                let found = rule.matches(name, &nic.name, device.name())?;
                let own = found.pci.is_none() || found.pci == device.pci;
                own.then_some(Reading { irq: candidate.irq, name, rule, found })
            });
            readings.extend(reading);
        }
        readings
    };
    let is_exact = |reading: &Reading| reading.found.interface.is_none_or(|name| name == nic.name.as_str());
    let (rules, mut how) = match driver_names::rules_for(nic.driver()) {
        Rules::Own(rules) => (rules, step),
        Rules::Guess(rules) => (rules, HowKnown::NameOnly),
    };
    let mut readings = read(&rules);
    if step == HowKnown::NameOnly || readings.iter().any(is_exact) {
        readings.retain(is_exact);
    }
    if readings.is_empty() {
        readings = read(&[&driver_names::BARE]);
        readings.retain(is_exact);
        // Beside others, which no rule reads, it may be that of the link.
        how = if candidates.len() == 1 { step } else { HowKnown::NameOnly };
    } else if how == HowKnown::NameOnly && readings.iter().all(|reading| reading.rule.names_the_device()) {
        how = HowKnown::DeviceName;
    }
    (readings, how)
}

/// The queues that each reading serves; a number beyond the queues of the interface serves none (drivers ask
/// for as many vectors as the device has).
fn serve(nic: &Nic, readings: &[Reading], how: HowKnown) -> Vec<QueueIrq> {
    let has_rx = |queue: &QueueIndex| nic.rx_queues.iter().any(|rx| rx.index == *queue);
    let has_tx = |queue: &QueueIndex| nic.tx_queues.iter().any(|tx| tx.index == *queue);
    let numbers = |kind| {
        let of_kind = readings.iter().filter(move |reading| reading.rule.numbers == kind);
        of_kind.filter_map(|reading| reading.found.number)
    };
    let first = |kind| numbers(kind).min().map_or(0, |first| first.0);
    let (first_rx, first_tx) = (first(Numbers::RxVector), first(Numbers::TxVector));
    let middle = numbers(Numbers::TxThenRx).max().map_or(0, |last| last.0 / 2 + 1);
    let serves = |reading: &Reading| {
        let Some(number) = reading.found.number else { return Some(Serves::All) };
        let from = |first: u32| number.0.checked_sub(first).map(QueueIndex);
        let (rx, tx) = match reading.rule.numbers {
            Numbers::All => return Some(Serves::All),
            Numbers::Combined => (Some(number), Some(number)),
            Numbers::Rx => (Some(number), None),
            Numbers::Tx => (None, Some(number)),
            Numbers::RxVector => (from(first_rx), None),
            Numbers::TxVector => (None, from(first_tx)),
            Numbers::TxThenRx if number.0 < middle => (None, Some(number)),
            Numbers::TxThenRx => (from(middle), None),
        };
        match (rx.filter(has_rx), tx.filter(has_tx)) {
            (Some(rx), Some(_)) => Some(Serves::Both(rx)),
            (Some(rx), None) => Some(Serves::Rx(rx)),
            (None, Some(tx)) => Some(Serves::Tx(tx)),
            (None, None) => None,
        }
    };
    let row = |reading: &Reading| {
        Some(QueueIrq { irq: reading.irq, name: reading.name.to_owned(), serves: serves(reading)?, how })
    };
    readings.iter().filter_map(row).collect()
}

/// In ascending order of queue, then interrupt.
pub(super) fn sort(rows: &mut [QueueIrq]) {
    rows.sort_by_key(|row| (order(row.serves), row.irq));
}

fn order(serves: Serves) -> (QueueIndex, u8) {
    match serves {
        Serves::All => (QueueIndex(0), 0),
        Serves::Both(queue) | Serves::Rx(queue) => (queue, 1),
        Serves::Tx(queue) => (queue, 2),
    }
}

/// What makes the map more than one possible map, or less than a whole one.
fn doubt(nic: &Nic, rows: &[QueueIrq], readings: &[Reading]) -> Option<String> {
    let interfaces: BTreeSet<&str> = readings.iter().filter_map(|reading| reading.found.interface).collect();
    if interfaces.len() > 1 {
        let names: Vec<&str> = interfaces.into_iter().collect();
        return Some(format!(
            "interrupts of its device carry the names of several interfaces: {}",
            names.join(", ")
        ));
    }
    blocks_missing(readings).or_else(|| claimed_twice_or_not_at_all(nic, rows))
}

/// What was not known but guessed: whose the interrupts are, or, since `step` knew that, which queues they
/// serve.
fn guess(nic: &Nic, rows: &[QueueIrq], step: HowKnown) -> Option<String> {
    let QueueIrq { irq, name, .. } = rows.iter().find(|row| row.how == HowKnown::NameOnly)?;
    if step == HowKnown::NameOnly {
        return Some(format!(
            "that IRQ {irq} ({name}) is one of its own is known by the name only, which is a guess"
        ));
    }
    let driver = nic.driver().unwrap_or("its unknown driver");
    Some(format!(
        "there is no rule for how {driver} names its interrupts, so that which queues IRQ {irq} ({name}) \
         serves is a guess"
    ))
}

/// Where the middle of the numbers divides TX from RX, every number must be there.
fn blocks_missing(readings: &[Reading]) -> Option<String> {
    let blocks = readings.iter().filter(|reading| reading.rule.numbers == Numbers::TxThenRx);
    let numbers: BTreeSet<QueueIndex> = blocks.filter_map(|reading| reading.found.number).collect();
    let count = numbers.last().map_or(0, |last| last.0 as usize + 1);
    (numbers.len() != count || !count.is_multiple_of(2)).then(|| {
        let (there, last) = (numbers.len(), count.next_multiple_of(2) - 1);
        format!(
            "its blocks are for TX up to the middle and for RX from there, and only {there} of 0 to \
                 {last} are there"
        )
    })
}

/// What makes rows less than a map of every queue, or more than one.
pub(super) fn claimed_twice_or_not_at_all(nic: &Nic, rows: &[QueueIrq]) -> Option<String> {
    let rx = nic.rx_queues.iter().map(|rx| (Direction::Rx, rx.index));
    let tx = nic.tx_queues.iter().map(|tx| (Direction::Tx, tx.index));
    let mut unserved: BTreeMap<Direction, Vec<QueueIndex>> = BTreeMap::new();
    for (direction, queue) in rx.chain(tx) {
        let mut claims = rows.iter().filter(|row| match direction {
            Direction::Rx => row.serves.rx(queue),
            Direction::Tx => row.serves.tx(queue),
        });
        match (claims.next(), claims.next()) {
            (Some(one), Some(other)) => {
                return Some(format!(
                    "IRQ {} ({}) and IRQ {} ({}) both claim {direction} queue {queue}",
                    one.irq, one.name, other.irq, other.name
                ));
            }
            (Some(_), None) => {}
            (None, _) => unserved.entry(direction).or_default().push(queue),
        }
    }
    let (direction, queues) = unserved.first_key_value()?;
    let plural = if queues.len() == 1 { "" } else { "s" };
    Some(format!("no interrupt is known for {direction} queue{plural} {} of {}", ranges(queues), nic.name))
}

fn nothing_known(nic: &Nic, device: &Device, candidates: &[Candidate]) -> String {
    let driver = nic.driver().unwrap_or("an unknown driver");
    if let Some(server) = driver_names::served_by(device) {
        return format!("its device ({driver}) has no interrupt of its own and is served by {server}");
    }
    let names: Vec<&str> =
        candidates.iter().flat_map(|c| c.names.iter().map(String::as_str)).take(4).collect();
    if names.is_empty() {
        return format!("no interrupt of its device ({driver}) was found; is the interface up?");
    }
    let names = names.join(", ");
    if driver_names::is_unreadable(nic.driver()) {
        return format!("{driver} names its interrupts {names}, …, which does not say whose queues they are");
    }
    format!("{driver} names its interrupts {names}, …, which no rule reads")
}

/// Queue numbers in list form.
fn ranges(queues: &[QueueIndex]) -> String {
    let small = queues.iter().map(|queue| queue.0).filter(|&queue| queue < MAX_CPUS);
    small.collect::<CpuSet>().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::device_nic as nic;

    fn map_names(nic: &Nic, names: &[&str], how: HowKnown) -> QueueIrqs {
        let candidates: Vec<Candidate> = (40..)
            .zip(names)
            .map(|(irq, name)| Candidate { irq: Irq(irq), names: vec![(*name).into()] })
            .collect();
        map(nic, nic.device.as_ref().unwrap(), &candidates, how)
    }

    fn served(map: &QueueIrqs) -> Vec<(u32, Serves)> {
        map.rows.iter().map(|row| (row.irq.0, row.serves)).collect()
    }

    #[test]
    fn virtio_has_an_interrupt_per_direction_and_its_own_number() {
        let nic = nic("virtio_net", "virtio2", 2, 2);
        let names =
            ["virtio2-config", "virtio2-input.0", "virtio2-output.0", "virtio2-input.1", "virtio2-output.1"];
        let map = map_names(&nic, &names, HowKnown::MsiIrqs);
        let (q0, q1) = (QueueIndex(0), QueueIndex(1));
        assert_eq!(
            served(&map),
            [(41, Serves::Rx(q0)), (42, Serves::Tx(q0)), (43, Serves::Rx(q1)), (44, Serves::Tx(q1))]
        );
        assert_eq!(map.doubt, None);
        let other = map_names(&nic, &["virtio4-input.0", "virtio4-input"], HowKnown::MsiIrqs);
        assert!(other.rows.is_empty());
        assert!(other.doubt.unwrap().contains("virtio_net names its interrupts virtio4-input.0"));
    }

    #[test]
    fn queue_10_comes_after_queue_2() {
        let nic = nic("mlx5_core", "", 12, 12);
        let names: Vec<String> = [10, 2, 0, 1, 11, 3, 4, 5, 6, 7, 8, 9, 12, 13]
            .iter()
            .map(|n| format!("mlx5_comp{n}@pci:0000:3b:00.0"))
            .chain(["mlx5_async0@pci:0000:3b:00.0".into(), "mlx5_comp0@pci:0000:3b:00.1".into()])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let map = map_names(&nic, &names, HowKnown::MsiIrqs);
        let queues: Vec<Serves> = map.rows.iter().map(|row| row.serves).collect();
        assert_eq!(queues, (0..12).map(|n| Serves::Both(QueueIndex(n))).collect::<Vec<_>>());
        assert_eq!(map.rows[2].irq, Irq(41));
        assert_eq!(map.doubt, None);
    }

    #[test]
    fn gve_counts_rx_blocks_from_the_middle() {
        let nic = nic("gve", "", 2, 2);
        let names: Vec<String> = (0..8).map(|n| format!("gve-ntfy-blk{n}@pci:0000:3b:00.0")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let map = map_names(&nic, &names, HowKnown::MsiIrqs);
        assert_eq!(map.rx(QueueIndex(0)).unwrap().irq, Irq(44));
        assert_eq!(map.rx(QueueIndex(1)).unwrap().irq, Irq(45));
        assert_eq!(map.tx(QueueIndex(1)).unwrap().irq, Irq(41));
        assert_eq!(map.rows.len(), 4);
    }

    #[test]
    fn a_name_from_before_a_rename_is_taken_when_the_device_owns_the_interrupt() {
        let nic = nic("ixgbe", "", 2, 2);
        let map = map_names(&nic, &["eno1-TxRx-0", "eno1-TxRx-1", "eno1"], HowKnown::MsiIrqs);
        assert_eq!((map.rows.len(), map.doubt), (2, None));
        let guess = map_names(&nic, &["eno1-TxRx-0", "eno1-TxRx-1"], HowKnown::NameOnly);
        assert!(guess.rows.is_empty());
        let guess = map_names(&nic, &["eth0-TxRx-0", "eth0-TxRx-1", "eno1-TxRx-0"], HowKnown::NameOnly);
        assert_eq!((guess.rows.len(), guess.rows[0].how), (2, HowKnown::NameOnly));
        let doubt = guess.doubt.unwrap();
        assert!(doubt.contains("IRQ 40 (eth0-TxRx-0)") && doubt.contains("by the name only"), "{doubt}");
    }

    #[test]
    fn maps_that_could_be_read_in_two_ways_are_in_doubt() {
        let nic = nic("ixgbe", "", 2, 2);
        for (names, reason) in [
            (&["eth0-TxRx-0", "eth0-TxRx-0", "eth0-TxRx-1"][..], "both claim RX queue 0"),
            (&["eth0-TxRx-0"], "no interrupt is known for RX queue 1 of eth0"),
            (&["a-TxRx-0", "b-TxRx-1"], "names of several interfaces: a, b"),
            (&["eth0", "eth0"], "both claim RX queue 0"),
            (&["xyz"], "ixgbe names its interrupts xyz"),
            (&[], "no interrupt of its device (ixgbe) was found"),
        ] {
            let doubt = map_names(&nic, names, HowKnown::MsiIrqs).doubt.unwrap();
            assert!(doubt.contains(reason), "{names:?}: {doubt}");
        }
    }

    #[test]
    fn the_bare_name_counts_only_where_no_numbered_one_is() {
        let single = nic("e1000", "", 1, 1);
        let map = map_names(&single, &["eth0"], HowKnown::IrqFile);
        assert_eq!((served(&map), map.doubt), (vec![(40, Serves::All)], None));
        let igb = nic("igb", "", 1, 1);
        let map = map_names(&igb, &["eth0", "eth0-TxRx-0"], HowKnown::MsiIrqs);
        assert_eq!(served(&map), [(41, Serves::Both(QueueIndex(0)))]);
    }
}
