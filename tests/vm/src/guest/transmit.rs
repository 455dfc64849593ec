//! Which CPU transmitted on which queue, from the kernel's trace of eth0.
//!
//! * A packet belongs to the CPU that queued it (`net:net_dev_queue`). Another one may hand it to the NIC
//!   (`net:net_dev_start_xmit`): whoever finds a queue running leaves its packet to the CPU that runs it
//!   (`__qdisc_run()`).
//! * A timer (retransmission, delayed acknowledgement, the probe of a neighbour entry) belongs to no CPU:
//!   while its own sleeps, another runs it (`tmigr_handle_remote()` in `kernel/time/timer_migration.c`). What
//!   is queued within a TIMER softirq (`irq:softirq_entry`) is counted apart.
//! * A socket remembers the queue that its last packet chose, and keeps to it while packets are on their way
//!   (`netdev_pick_tx()` and `ooo_okay`). So a timer that another CPU ran leaves the socket on that CPU's
//!   queue for a few packets more, which are counted apart, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tune::cpu_set::{Cpu, CpuSet};

use super::nic::{self, Queue};

const TRACING: &str = "/sys/kernel/tracing";

/// Events made of the kernel's own: short, and with the socket, which no event has (`struct sk_buff`: after
/// `next`, `prev` and `dev`).
const MADE: &str =
    "e:corelocal/queued net.net_dev_queue name=$name:string skb=$skbaddr:x64 socket=+24($skbaddr):x64
e:corelocal/sent net.net_dev_start_xmit name=$name:string skb=$skbaddr:x64 queue=$queue_mapping:u16
";

/// The events, and what is asked of them: of the softirqs those of timers, 1 and 8 in
/// `include/linux/interrupt.h`. With all of them the trace of 48 CPUs would take longer than the rest of the
/// check. They are enabled in this order and disabled in the other: whatever is seen to be sent was queued
/// while that was looked at, too.
const EVENTS: [(&str, &str); 4] = [
    ("irq/softirq_entry", "vec == 1 || vec == 8"),
    ("irq/softirq_exit", "vec == 1 || vec == 8"),
    ("corelocal/queued", "name == \"eth0\""),
    ("corelocal/sent", "name == \"eth0\""),
];

/// What eth0 transmitted, in packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Transmitted {
    /// Sent by processes and on receipt of a packet.
    pub(super) packets: u64,
    /// Of these on the queue to which a timer had moved their socket.
    pub(super) after_timers: u64,
    /// Of these on a queue of another CPU for no such reason, a text each.
    pub(super) strays: Vec<String>,
    /// Sent by timers.
    pub(super) by_timers: u64,
    /// Of these on a queue of another CPU.
    pub(super) by_timers_elsewhere: u64,
    /// The queues on which something was sent.
    pub(super) used: CpuSet,
    /// Packets that were sent and had not been queued: none in a whole trace.
    pub(super) unqueued: u64,
    /// Events that the kernel had no room for, or could not write down.
    pub(super) lost: u64,
}

/// A trace of what eth0 transmits, from [`Trace::start`] on. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Trace(());

impl Trace {
    pub(super) fn start() -> Result<Self> {
        let trace = Self(());
        write("buffer_size_kb", "4096")?;
        write("trace_clock", "counter")?; // a number for each event, the same series on all CPUs
        write("trace", "")?;
        write("dynamic_events", MADE)?;
        for (event, filter) in EVENTS {
            write(&format!("events/{event}/filter"), filter)?;
            write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    /// Stops, and gives what was transmitted on these queues.
    pub(super) fn stop(self, queues: &BTreeMap<u32, Queue>) -> Result<Transmitted> {
        for (event, _) in EVENTS.into_iter().rev() {
            write(&format!("events/{event}/enable"), "0")?;
        }
        let text = read()?;
        let lost = lost()?;
        let owns = |cpu, queue| queues.get(&queue).is_some_and(|queue: &Queue| queue.xps.contains(cpu));
        Ok(Transmitted { lost, ..parse(&text, owns) })
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // What fails here fails again, and is said, when the next trace starts.
        for (event, _) in EVENTS.into_iter().rev() {
            let _ = write(&format!("events/{event}/enable"), "0");
        }
        let _ = write("trace", "");
        let _ = write("dynamic_events", ""); // to open it for writing anew removes them
    }
}

/// The trace in the order of its events, from a file for each CPU: for the one of all CPUs the kernel looks
/// at the next event of each of them for every line (`__find_next_entry()` in `kernel/trace/trace.c`).
fn read() -> Result<String> {
    let mut events = Vec::new();
    for directory in of_each_cpu()? {
        let text = nic::read(directory.join("trace"))?;
        events.extend(text.lines().filter_map(|line| Some((time(line)?, line.to_owned()))));
    }
    events.sort_by_key(|(time, _)| *time);
    Ok(events.into_iter().map(|(_, line)| line + "\n").collect())
}

/// What the kernel has of the trace of each CPU.
fn of_each_cpu() -> Result<Vec<PathBuf>> {
    let directory = format!("{TRACING}/per_cpu");
    let list = || fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    list().with_context(|| format!("list {directory}"))
}

/// The events that are not in the trace, of all CPUs (`tracing_stats_read()` in `kernel/trace/trace.c`).
fn lost() -> Result<u64> {
    let mut lost = 0;
    for directory in of_each_cpu()? {
        let path = directory.join("stats");
        lost +=
            lost_of(&nic::read(&path)?).with_context(|| format!("{} is not understood", path.display()))?;
    }
    Ok(lost)
}

/// Of the statistics of one CPU.
fn lost_of(stats: &str) -> Option<u64> {
    let value = |name| stats.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(value("overrun:")? + value("commit overrun:")? + value("dropped events:")?)
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = format!("{TRACING}/{file}");
    fs::write(&path, text).with_context(|| format!("write \"{text}\" to {path}"))
}

/// A packet that was queued.
#[derive(Debug, Clone)]
struct Queued<'a> {
    cpu: Cpu,
    by_timer: bool,
    /// The thread that ran or was interrupted.
    thread: &'a str,
    socket: &'a str,
}

/// Reads a trace of [`EVENTS`]; `owns` says whether a queue is one of a CPU.
fn parse(text: &str, owns: impl Fn(Cpu, u32) -> bool) -> Transmitted {
    let mut found = Transmitted::default();
    let mut in_timer = BTreeSet::new();
    let mut packets: BTreeMap<&str, Queued> = BTreeMap::new();
    // Of each socket the queue on which it last was by itself, and the one to which a timer has moved it
    // since.
    let mut homes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut moved: BTreeMap<&str, u32> = BTreeMap::new();
    for (cpu, event) in text.lines().filter_map(|line| Some((cpu(line)?, line))) {
        if event.contains(": softirq_entry:") {
            in_timer.insert(cpu);
        } else if event.contains(": softirq_exit:") {
            in_timer.remove(&cpu);
        } else if let (Some(skb), Some(socket)) = (field(event, "skb"), field(event, "socket")) {
            let thread = event.split_once(" [").map_or("", |(thread, _)| thread.trim());
            packets.insert(skb, Queued { cpu, by_timer: in_timer.contains(&cpu), thread, socket });
        } else if let Some((queue, skb)) = sent(event) {
            let Some(&Queued { cpu, by_timer, thread, socket }) = packets.get(skb) else {
                found.unqueued += 1;
                continue;
            };
            let own = owns(cpu, queue);
            found.used.insert(queue);
            match (by_timer, own) {
                (true, true) if homes.get(socket) != Some(&queue) => drop(moved.insert(socket, queue)),
                (false, true) => {
                    homes.insert(socket, queue);
                    moved.remove(socket);
                }
                (false, false) if moved.get(socket) == Some(&queue) => found.after_timers += 1,
                (false, false) => found.strays.push(format!("{thread} on CPU {cpu}, TX queue {queue}")),
                (true, _) => {}
            }
            found.packets += u64::from(!by_timer);
            found.by_timers += u64::from(by_timer);
            found.by_timers_elsewhere += u64::from(by_timer && !own);
        }
    }
    found
}

/// The queue of an event `sent`, and its packet.
fn sent(event: &str) -> Option<(u32, &str)> {
    Some((field(event, "queue")?.parse().ok()?, field(event, "skb")?))
}

fn cpu(line: &str) -> Option<Cpu> {
    let (_, cpu) = line.split_once(" [")?;
    cpu.split_once(']')?.0.parse().ok()
}

/// When an event was, by the clock of the trace; `None` for the lines of its head.
fn time(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" [")?;
    rest.split_whitespace().nth(2)?.strip_suffix(':')?.parse().ok()
}

fn field<'a>(event: &'a str, name: &str) -> Option<&'a str> {
    event.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queue q belongs to CPU q.
    fn parsed(text: &str) -> Transmitted {
        parse(text, |cpu, queue| cpu == queue)
    }

    fn queued(thread: &str, cpu: Cpu, skb: &str, socket: &str) -> String {
        format!(
            "{thread} [{cpu:03}] ..s1. 121: queued: (net.net_dev_queue) name=\"eth0\" skb={skb} \
             socket={socket}\n"
        )
    }

    fn sent(cpu: Cpu, skb: &str, queue: u32) -> String {
        format!(
            "<idle>-0 [{cpu:03}] b.s2. 122: sent: (net.net_dev_start_xmit) name=\"eth0\" skb={skb} \
             queue={queue}\n"
        )
    }

    const ENTRY: &str = "<idle>-0 [003] ..s1. 122: softirq_entry: vec=1 [action=TIMER]\n";
    const EXIT: &str = "<idle>-0 [003] ..s1. 125: softirq_exit: vec=1 [action=TIMER]\n";

    #[test]
    fn an_event_has_a_time_and_the_head_has_none() {
        assert_eq!(
            time("          <idle>-0       [003] ..s1.        4711: softirq_entry: vec=1"),
            Some(4711)
        );
        assert_eq!(time("#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION"), None);
    }

    #[test]
    fn a_packet_is_of_the_cpu_that_queued_it() {
        let found = parsed(&[queued("server-90", 5, "0xa", "0x1"), sent(3, "0xa", 5)].concat());
        assert_eq!((found.packets, found.used.to_string().as_str()), (1, "5"));
        assert!(found.strays.is_empty());
        let found = parsed(&[queued("server-90", 3, "0xa", "0x1"), sent(3, "0xa", 5)].concat());
        assert_eq!(found.strays, ["server-90 on CPU 3, TX queue 5"]);
    }

    #[test]
    fn what_the_trace_lacks_is_counted() {
        let found =
            parsed(&[sent(3, "0xa", 3), queued("server-90", 3, "0xb", "0x1"), sent(3, "0xb", 3)].concat());
        assert_eq!((found.unqueued, found.packets), (1, 1));
        let stats = "entries: 9\noverrun: 2\ncommit overrun: 1\nbytes: 64\nnow ts: 12.3\ndropped events: 4\n";
        assert_eq!(lost_of(stats), Some(7));
        assert_eq!(lost_of("entries: 9\noverrun: 2\n"), None);
    }

    #[test]
    fn what_a_timer_sends_is_counted_apart() {
        let text = [
            ENTRY,
            &queued("<idle>-0", 3, "0xa", "0x1"),
            &sent(3, "0xa", 7),
            &queued("server-91", 6, "0xb", "0x2"),
            &sent(6, "0xb", 6),
            EXIT,
            &queued("<idle>-0", 3, "0xc", "0x3"),
            &sent(3, "0xc", 3),
        ];
        let found = parsed(&text.concat());
        assert_eq!((found.packets, found.by_timers, found.by_timers_elsewhere), (2, 1, 1));
        assert!(found.strays.is_empty());
    }

    #[test]
    fn a_timer_moves_a_socket_to_another_queue_until_it_is_on_its_own_again() {
        let on = |cpu, queue| [queued("server-90", cpu, "0xa", "0x1"), sent(cpu, "0xa", queue)].concat();
        let timer = [ENTRY, &queued("<idle>-0", 3, "0xb", "0x1"), &sent(3, "0xb", 3), EXIT].concat();
        let found = parsed(&[on(5, 5), timer.clone(), on(5, 3), on(5, 3), on(5, 5)].concat());
        assert_eq!((found.packets, found.after_timers, found.strays.len()), (4, 2, 0));
        let found = parsed(&[on(5, 5), timer.clone(), on(5, 5), on(5, 3)].concat());
        assert_eq!((found.after_timers, found.strays.len()), (0, 1), "it was back");
        let found = parsed(&[on(3, 3), timer, on(5, 3)].concat());
        assert_eq!((found.after_timers, found.strays.len()), (0, 1), "the timer ran where the socket was");
    }
}
