//! Which CPU transmitted on which queue: the kernel's tracepoint `net:net_dev_start_xmit`.
//!
//! A timer (retransmission, delayed acknowledgement, the probe of a neighbour entry) belongs to no CPU: while its own sleeps, the
//! kernel may let another run it (timer migration, `sysctl kernel.timer_migration`), and what it sends leaves from there. So
//! packets that are sent within a TIMER softirq are counted apart (`irq:softirq_entry`).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use tune::cpu_set::Cpu;

const TRACING: &str = "/sys/kernel/tracing";

/// The events, and what is asked of them: of the softirqs those of timers, 1 and 8 in `include/linux/interrupt.h`. With all of
/// them the trace of 48 CPUs would take longer than the rest of the check.
const EVENTS: [(&str, &str); 3] = [
    ("net/net_dev_start_xmit", "name == \"eth0\""),
    ("irq/softirq_entry", "vec == 1 || vec == 8"),
    ("irq/softirq_exit", "vec == 1 || vec == 8"),
];

/// What the kernel calls the softirqs of timers.
const TIMERS: [&str; 2] = ["TIMER", "HRTIMER"];

/// The packets that each CPU transmitted on each queue.
pub(super) type Packets = BTreeMap<(Cpu, u32), Sent>;

/// How many, and who sent the last one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) packets: u64,
    /// The thread that ran or was interrupted, its CPU, and the softirq.
    pub(super) by: String,
}

/// What eth0 transmitted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Transmitted {
    /// By processes and by what runs on receipt of a packet.
    pub(super) packets: Packets,
    /// By timers.
    pub(super) by_timers: Packets,
}

/// A trace of what eth0 transmits, from [`Trace::start`] on.
#[derive(Debug)]
pub(super) struct Trace(());

impl Trace {
    pub(super) fn start() -> Result<Self> {
        write("buffer_size_kb", "4096")?;
        write("trace", "")?;
        for (event, filter) in EVENTS {
            write(&format!("events/{event}/filter"), filter)?;
            write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(Self(()))
    }

    /// Stops, and gives what was transmitted.
    pub(super) fn stop(self) -> Result<Transmitted> {
        for (event, _) in EVENTS {
            write(&format!("events/{event}/enable"), "0")?;
        }
        let path = format!("{TRACING}/trace");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        write("trace", "")?;
        Ok(parse(&text))
    }
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = format!("{TRACING}/{file}");
    fs::write(&path, text).with_context(|| format!("write \"{text}\" to {path}"))
}

fn parse(text: &str) -> Transmitted {
    let mut transmitted = Transmitted::default();
    // The softirq that each CPU is in.
    let mut softirqs: BTreeMap<Cpu, &str> = BTreeMap::new();
    for (cpu, event) in text.lines().filter_map(|line| Some((cpu(line)?, line))) {
        if event.contains(": softirq_entry:") {
            softirqs.insert(cpu, action(event));
        } else if event.contains(": softirq_exit:") {
            softirqs.remove(&cpu);
        } else if let Some(queue) = queue(event) {
            let softirq = softirqs.get(&cpu).copied();
            let by_timer = softirq.is_some_and(|softirq| TIMERS.contains(&softirq));
            let packets = if by_timer { &mut transmitted.by_timers } else { &mut transmitted.packets };
            let sent = packets.entry((cpu, queue)).or_default();
            sent.packets += 1;
            let thread = event.split_once(" [").map_or("", |(thread, _)| thread.trim());
            sent.by = format!("{thread} on CPU {cpu}, {}", softirq.unwrap_or("in no timer"));
        }
    }
    transmitted
}

fn action(line: &str) -> &str {
    line.split_once("[action=").map_or("", |(_, action)| action.trim_end().trim_end_matches(']'))
}

fn cpu(line: &str) -> Option<Cpu> {
    let (_, cpu) = line.split_once(" [")?;
    cpu.split_once(']')?.0.parse().ok()
}

fn queue(line: &str) -> Option<u32> {
    let (_, fields) = line.split_once("net_dev_start_xmit:")?;
    let (_, queue) = fields.split_once("queue_mapping=")?;
    queue.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_timer_sends_is_counted_apart() {
        let text = "# tracer: nop
          server-90      [047] b..2.    12.1: net_dev_start_xmit: dev=eth0 queue_mapping=46 skbaddr=0
          <idle>-0       [003] ..s1.    12.2: softirq_entry: vec=1 [action=TIMER]
          server-91      [047] b..2.    12.3: net_dev_start_xmit: dev=eth0 queue_mapping=46 skbaddr=0
          <idle>-0       [003] b.s2.    12.4: net_dev_start_xmit: dev=eth0 queue_mapping=7 skbaddr=0
          <idle>-0       [003] ..s1.    12.5: softirq_exit: vec=1 [action=TIMER]
          <idle>-0       [003] b.s2.    12.6: net_dev_start_xmit: dev=eth0 queue_mapping=3 skbaddr=0
";
        let found = parse(text);
        let counts =
            |packets: &Packets| packets.iter().map(|(pair, sent)| (*pair, sent.packets)).collect::<Vec<_>>();
        assert_eq!(counts(&found.packets), [((3, 3), 1), ((47, 46), 2)]);
        assert_eq!(counts(&found.by_timers), [((3, 7), 1)]);
        assert_eq!(found.packets[&(47, 46)].by, "server-91 on CPU 47, in no timer");
        assert_eq!(found.by_timers[&(3, 7)].by, "<idle>-0 on CPU 3, TIMER");
    }
}
