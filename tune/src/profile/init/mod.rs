//! `profile init`: a commented profile for one host, to be read and changed. What is not recommended without
//! a measurement on that host is commented out. Pure.

mod ethtool;
mod power;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::Profile;
use crate::cpu_set::CpuSet;
use crate::host::{Host, NicHost, SysctlName};
use crate::irqbalance::Irqbalance;
use crate::plan;
use crate::setting::Value;

/// The sysctls of a profile for TCP: name, lower bound (`=` before it: exactly), why.
const SYSCTLS: [(&str, &str, &str); 5] = [
    ("net.core.somaxconn", "4096", "connections that may wait to be accepted, per listener"),
    (
        "net.ipv4.tcp_migrate_req",
        "1",
        "those of a listener that closes go to another one instead of being reset",
    ),
    (
        "net.ipv4.tcp_rmem",
        "4096 131072 16777216",
        "min, default, max in bytes; max is bandwidth x round-trip time, here 40 Gbit/s x 3.4 ms",
    ),
    ("net.ipv4.tcp_wmem", "4096 16384 16777216", "the same for what is sent"),
    (
        "net.ipv4.tcp_slow_start_after_idle",
        "=0",
        "a connection that was idle goes on at its old rate; { exact = … } may lower a value, a plain number \
         never does",
    ),
];

/// The text of a profile for the interfaces of this host, which the plan accepts there. `sysctls` are read in
/// `host`: one that it does not have is left out.
#[must_use]
pub fn init(host: &Host) -> String {
    let names = host.interfaces();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# {} on this host: {}. Written by \"tune profile init\"; every key: profiles/README.md.\n#\n\
         #     tune plan THIS_FILE      what would be written\n\
         #     tune apply THIS_FILE     as root; \"tune restore\" puts back what was there\n",
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        describe(host),
    );
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let interface = match quoted.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let _ = writeln!(
        text,
        "# The interface whose queues are meant; \"auto\" is that of the default route.\n\
         interface = {interface}\n"
    );
    let _ = writeln!(
        text,
        "# One worker each: the same list as server --cores. \"online\" is all of them; these are {}.",
        cpus_comment(host)
    );
    let _ = writeln!(text, "cpus = \"{}\"\n", workers(host));
    irqbalance(&mut text, host);
    push(&mut text, "channels", &ethtool::channels(host, interrupts_are_kept(host).is_none()));
    push(&mut text, "rings", &ethtool::rings(host));
    push(&mut text, "rss", &ethtool::rss(host));
    push(&mut text, "coalesce", &ethtool::coalesce(host));
    push(&mut text, "features", &ethtool::features(host));
    push(&mut text, "queues", &queues(host));
    push(&mut text, "napi", &power::napi(host));
    push(&mut text, "cpu", &power::governor(host, &workers(host)));
    sysctls(&mut text, host);
    text
}

/// A key with the comment above it.
struct Key {
    why: String,
    line: String,
    /// It is recommended; else it is commented out.
    on: bool,
}

impl Key {
    fn on(why: impl Into<String>, line: impl Into<String>) -> Self {
        Self { why: why.into(), line: line.into(), on: true }
    }

    fn off(why: impl Into<String>, line: impl Into<String>) -> Self {
        Self { on: false, ..Self::on(why, line) }
    }
}

/// A section; without keys there is none, and without one that is recommended it is commented out.
fn push(text: &mut String, section: &str, keys: &[Key]) {
    let commented = |on| if on { "" } else { "# " };
    if !keys.is_empty() {
        let _ = writeln!(text, "{}[{section}]", commented(keys.iter().any(|key| key.on)));
        for Key { why, line, on } in keys {
            let _ = writeln!(text, "# {why}\n{}{line}", commented(*on));
        }
        text.push('\n');
    }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The names of the sysctls that [`init`] writes about.
#[must_use]
pub fn sysctl_names() -> Vec<SysctlName> {
    SYSCTLS.iter().filter_map(|(name, ..)| name.parse().ok()).collect()
}

fn describe(host: &Host) -> String {
    let nics = host.nics.iter().map(|NicHost { nic, .. }| {
        let node = nic.numa_node.map_or_else(String::new, |node| format!(", NUMA node {node}"));
        let (rx, tx) = (nic.rx_queues.len(), nic.tx_queues.len());
        format!("{}{node}, {rx} RX and {tx} TX queues", nic.driver().unwrap_or("virtual"))
    });
    format!("{}; CPUs {}", nics.collect::<Vec<_>>().join("; "), host.topology.online)
}

/// The CPUs that the kernel gives to ordinary work; all where it keeps none back.
fn workers(host: &Host) -> CpuSet {
    let topology = &host.topology;
    let housekeeping: CpuSet =
        topology.online.iter().filter(|cpu| topology.housekeeping.contains(*cpu)).collect();
    if housekeeping.is_empty() { topology.online.clone() } else { housekeeping }
}

fn cpus_comment(host: &Host) -> &'static str {
    if workers(host) == host.topology.online {
        "all that are online"
    } else {
        "those that are online and not isolated (isolcpus, nohz_full)"
    }
}

fn queues(host: &Host) -> Vec<Key> {
    let keep = interrupts_are_kept(host);
    let few = host.nics.iter().all(|on| on.nic.rx_queues.len() < workers(host).len());
    let (irq, why) = match &keep {
        None => {
            ("queue-cpu", "receive and transmit interrupt of a queue on the CPU of that queue".to_owned())
        }
        Some(reason) => ("keep", format!("left alone: {reason}")),
    };
    let has_device = host.nics.iter().any(|on| on.nic.device.is_some());
    // With a queue per CPU "auto" asks where the interrupts fire, and here nobody says.
    let (rps, rps_why) = match irq {
        "keep" if has_device && !few => {
            ("off", "the interrupts already spread packets; \"queue-cpu\" is the other choice")
        }
        _ => {
            ("auto", "off where every CPU has a queue with an interrupt, else over the queue's group of CPUs")
        }
    };
    let queues =
        host.nics.iter().map(|NicHost { nic, .. }| format!("{} {} queues", nic.name, nic.rx_queues.len()));
    let queues = queues.collect::<Vec<_>>().join(", ");
    let mut keys = vec![
        Key::on(
            "Which CPU serves which queue: the NIC's NUMA node first, there one thread of each core first.",
            "placement = \"one-per-core\"",
        ),
        Key::on(format!("\"queue-cpu\", \"follow\" or \"keep\". {why}."), format!("irq = \"{irq}\"")),
        Key::on(
            "\"queue-cpu\": a CPU sends on the queue that is its own; \"off\"; \"keep\". Skipped with one \
             transmit queue.",
            "xps = \"queue-cpu\"",
        ),
        Key::on(
            format!(
                "\"auto\", \"queue-cpu\", \"off\" or \"keep\". {rps_why}. Now: {queues}, {} CPUs.",
                workers(host).len()
            ),
            format!("rps = \"{rps}\""),
        ),
        Key::on(
            "Entries of each queue's RFS table. 0: the listener is chosen by CPU, so a flow already is where \
             it is served.",
            "rps_flow_cnt = 0",
        ),
    ];
    if host.nics.iter().any(|on| on.netdev.has_threads()) {
        keys.push(Key::on(
            "Threads poll the queues here: each on the CPU of its queue; or \"keep\".",
            "napi_threads = \"queue-cpu\"",
        ));
    }
    keys
}

fn irqbalance(text: &mut String, host: &Host) {
    let now = match &host.irqbalance {
        Irqbalance::Running(daemons) => {
            let pids: Vec<String> = daemons.iter().map(|daemon| daemon.pid.to_string()).collect();
            format!("It runs, process {}", pids.join(", "))
        }
        Irqbalance::Absent => "It does not run".to_owned(),
        Irqbalance::Unknown(reason) => format!("Not known whether it runs: {}", one_line(reason)),
    };
    let _ = writeln!(
        text,
        "# irqbalance would move the interrupts again: \"ban\" has it leave them alone, \"coexist\" does not \
         tell it. {now}.\n\
         irqbalance = \"ban\"\n"
    );
}

/// Why the interrupts must be left alone, if they must: a map that is not certain is refused by the plan.
fn interrupts_are_kept(host: &Host) -> Option<String> {
    let profile = Profile::parse("[queues]\nxps = \"keep\"\nrps = \"keep\"", "init").ok()?;
    match plan::plan(&profile, host) {
        Ok(_) if host.nics.iter().all(|on| on.nic.device.is_none()) => {
            Some("a virtual interface has no interrupts".to_owned())
        }
        Ok(_) => None,
        Err(error) => Some(one_line(&error.to_string())),
    }
}

fn sysctls(text: &mut String, host: &Host) {
    let known: Vec<_> = SYSCTLS
        .iter()
        .filter_map(|(name, value, why)| {
            let found = host.sysctls.get(&name.parse::<SysctlName>().ok()?)?;
            Some((name, value, why, found))
        })
        .collect();
    if known.is_empty() {
        return;
    }
    text.push_str(
        "[sysctl]\n# A number or a row of numbers is a lower bound: what the host has more of stays.\n",
    );
    for (name, value, why, found) in known {
        let asked = match value.strip_prefix('=') {
            Some(exact) => format!("{{ exact = {} }}", Value::from_sysctl(exact).in_toml()),
            None => Value::from_sysctl(value).in_toml(),
        };
        let _ = writeln!(text, "# {why}. Now {found}.\n\"{name}\" = {asked}");
    }
}
