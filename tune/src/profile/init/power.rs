//! `profile init`: polling and governors, which cost power or latency and are left to whoever measures. Pure.

use std::collections::BTreeSet;

use super::Key;
use crate::cpu_set::CpuSet;
use crate::host::{Host, NapiFile, NicHost};

pub(super) fn napi(host: &Host) -> Vec<Key> {
    let mut keys = Vec::new();
    for (file, value, why) in [
        (
            NapiFile::GroFlushTimeout,
            "20000",
            "Nanoseconds after which a queue is polled whose interrupt is deferred: fewer interrupts, and a \
             packet may wait so long",
        ),
        (NapiFile::DeferHardIrqs, "2", "Polls without a packet before the interrupt is switched on again"),
        (NapiFile::Threaded, "false", "Threads poll instead of softirqs, where the scheduler puts them"),
    ] {
        let of = |on: &NicHost| Some(format!("{} {}", on.nic.name, on.nic.napi.get(&file)?));
        let now: Vec<String> = host.nics.iter().filter_map(of).collect();
        if !now.is_empty() {
            keys.push(Key::off(
                format!("{why}. Now: {}.", now.join(", ")),
                format!("{} = {value}", file.name()),
            ));
        }
    }
    keys
}

/// Only where the workers' CPUs have cpufreq.
pub(super) fn governor(host: &Host, workers: &CpuSet) -> Vec<Key> {
    let found: Vec<_> = workers.iter().filter_map(|cpu| host.governors.get(&cpu)).collect();
    let now: BTreeSet<&str> = found.iter().map(|governor| governor.name.as_str()).collect();
    if found.is_empty() || !found.iter().all(|governor| governor.available.contains("performance")) {
        return Vec::new();
    }
    let now: Vec<&str> = now.into_iter().collect();
    let why =
        "A CPU that sleeps between requests is at its lowest frequency when the next one comes; costs power";
    vec![Key::off(format!("{why}. Now: {}.", now.join(", ")), "governor = \"performance\"")]
}
