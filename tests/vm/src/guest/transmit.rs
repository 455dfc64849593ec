//! Which CPU transmitted on which queue: the kernel's tracepoint `net:net_dev_start_xmit`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use tune::cpu_set::Cpu;

const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "events/net/net_dev_start_xmit";

/// A trace of what eth0 transmits, from [`Trace::start`] on.
#[derive(Debug)]
pub(super) struct Trace(());

impl Trace {
    pub(super) fn start() -> Result<Self> {
        write("trace", "")?;
        write(&format!("{EVENT}/filter"), "name == \"eth0\"")?;
        write(&format!("{EVENT}/enable"), "1")?;
        Ok(Self(()))
    }

    /// Stops, and gives how many packets each CPU transmitted on each queue.
    pub(super) fn stop(self) -> Result<BTreeMap<(Cpu, u32), u64>> {
        write(&format!("{EVENT}/enable"), "0")?;
        let path = format!("{TRACING}/trace");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        write("trace", "")?;
        let mut packets = BTreeMap::new();
        for pair in text.lines().filter_map(parse) {
            *packets.entry(pair).or_default() += 1;
        }
        Ok(packets)
    }
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = format!("{TRACING}/{file}");
    fs::write(&path, text).with_context(|| format!("write \"{text}\" to {path}"))
}

/// CPU and queue of a line.
fn parse(line: &str) -> Option<(Cpu, u32)> {
    let (_, fields) = line.split_once("net_dev_start_xmit:")?;
    let (_, queue) = fields.split_once("queue_mapping=")?;
    let queue = queue.split_whitespace().next()?.parse().ok()?;
    let (_, cpu) = line.split_once(" [")?;
    Some((cpu.split_once(']')?.0.parse().ok()?, queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_cpu_and_a_queue() {
        let line = "          server-90      [047] b..2.    12.345678: net_dev_start_xmit: dev=eth0 queue_mapping=46 skbaddr=0 vlan_tagged=0";
        assert_eq!(parse(line), Some((47, 46)));
        assert_eq!(parse("# tracer: nop"), None);
    }
}
