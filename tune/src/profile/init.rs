//! `profile init`: a commented profile for one host, to be read and changed. Pure.

use std::fmt::Write;

use super::Profile;
use crate::cpu_set::CpuSet;
use crate::host::{Host, NicHost, SysctlName};
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
        "a connection that was idle goes on at its old rate; { exact = … } may lower a value, a plain number never does",
    ),
];

/// The text of a profile for the interfaces of this host, which the plan accepts there. `sysctls` are read in `host`: one
/// that it does not have is left out.
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
        "# The interface whose queues are meant; \"auto\" is that of the default route.\ninterface = {interface}\n"
    );
    let _ = writeln!(
        text,
        "# One worker each: the same list as server --cores. \"online\" is all of them; these are {}.",
        cpus_comment(host)
    );
    let _ = writeln!(text, "cpus = \"{}\"\n", workers(host));
    queues(&mut text, host);
    sysctls(&mut text, host);
    text
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

fn queues(text: &mut String, host: &Host) {
    let keep = interrupts_are_kept(host);
    let few = host.nics.iter().all(|on| on.nic.rx_queues.len() < workers(host).len());
    let (irq, why) = match keep {
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
    let _ = writeln!(
        text,
        "[queues]\n\
         # Which CPU serves which queue: the NIC's NUMA node first, there one thread of each core first.\n\
         placement = \"one-per-core\"\n\
         # \"queue-cpu\" or \"keep\". {why}.\n\
         irq = \"{irq}\"\n\
         # \"queue-cpu\": a CPU sends on the queue that is its own; \"off\"; \"keep\". Skipped with one transmit queue.\n\
         xps = \"queue-cpu\"\n\
         # \"auto\", \"queue-cpu\", \"off\" or \"keep\". {rps_why}.\n\
         rps = \"{rps}\"\n\
         # Entries of each queue's RFS table. 0: the listener is chosen by CPU, so a flow already is where it is served.\n\
         rps_flow_cnt = 0\n",
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
        Err(error) => Some(error.to_string().replace(char::is_control, " ")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::{nic_host, veth_host};
    use crate::plan::PlanError;

    fn planned(host: &Host) -> (String, Result<plan::Desired, PlanError>) {
        let text = init(host);
        let profile = Profile::parse(&text, "init").unwrap_or_else(|error| panic!("{error}\n{text}"));
        (text, plan::plan(&profile, host))
    }

    #[test]
    fn the_plan_accepts_it_with_few_queues_and_many_with_and_without_a_device() {
        for (cpus, queues) in [(2, 1), (2, 2), (4, 2), (4, 4), (4, 8)] {
            for mut host in [nic_host(cpus, queues), veth_host(cpus, queues)] {
                planned(&host).1.unwrap();
                host.nics[0].queue_irqs.doubt = Some("it is doubtful\nindeed".into());
                planned(&host).1.unwrap();
            }
        }
    }

    #[test]
    fn every_key_that_it_writes_has_a_comment_above() {
        let (text, _) = planned(&nic_host(4, 4));
        let lines: Vec<&str> = text.lines().collect();
        let mut keys = Vec::new();
        for pair in lines.windows(2) {
            if let Some((key, _)) = pair[1].split_once(" = ").filter(|_| !pair[1].starts_with('#')) {
                assert!(pair[0].starts_with("# "), "{key}: {text}");
                keys.push(key);
            }
        }
        assert_eq!(
            keys,
            ["interface", "cpus", "placement", "irq", "xps", "rps", "rps_flow_cnt", "\"net.core.somaxconn\""],
            "those of the profile, and the sysctls that the host has"
        );
    }

    #[test]
    fn what_the_kernel_keeps_back_is_no_worker() {
        let mut host = nic_host(4, 4);
        host.topology.housekeeping = "0-1".parse().unwrap();
        let (text, desired) = planned(&host);
        assert!(text.contains("cpus = \"0-1\"") && text.contains("not isolated"), "{text}");
        desired.unwrap();
    }
}
