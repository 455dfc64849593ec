//! From facts to findings. Pure.

mod addresses;
mod cores;
mod limits;
mod network;
mod nic;
mod uring;

pub(super) use network::SYSCTLS;
pub(super) use nic::shipped;

use super::catalogue;
use super::facts::Facts;
use super::finding::Finding;
use crate::config::{AcceptModel, Config, Cores, Steer};
use tune::cpu_set::{Cpu, CpuSet};

/// Everything that there is to be said, in the order of the output.
pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = uring::judge(config, facts);
    if let Ok(capabilities) = &facts.capabilities {
        findings.extend(catalogue::features(config, |capability| capabilities.contains(&capability)));
    }
    findings.extend(limits::judge(config, facts));
    findings.extend(network::judge(config, facts));
    findings.extend(addresses::judge(facts));
    findings.extend(cores::judge(config, facts));
    findings.extend(nic::judge(config, facts));
    findings
}

/// The CPUs of the workers; where they can't all be had, those that were asked for and exist.
pub(super) fn worker_cpus(config: &Config, facts: &Facts) -> CpuSet {
    let usable = facts.offer.online.intersection(&facts.offer.allowed);
    match (&facts.plan, &config.cores) {
        (Ok(plan), _) => plan.iter().map(|worker| worker.cpu).collect(),
        (Err(_), Cores::All) => usable,
        (Err(_), Cores::List(cores)) => cores.iter().copied().filter(|&cpu| usable.contains(cpu)).collect(),
    }
}

/// Whether a connection is served on the CPU where its packets arrive, so that it matters where they do.
fn steers_by_cpu(config: &Config) -> bool {
    config.accept == AcceptModel::PerCore && config.steer != Steer::Hash
}

/// `1 core`, `2 cores`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Bytes as people write them: `8 MiB`.
fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fits = |unit: u64| bytes >= 10 * unit || (bytes >= unit && bytes.is_multiple_of(unit));
    match units.into_iter().find(|&(_, unit)| fits(unit)) {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// Whether it is `CPU 3` or `CPUs 3-4`.
fn cpus(set: &CpuSet) -> String {
    if set.len() == 1 { format!("CPU {set}") } else { format!("CPUs {set}") }
}

fn set_of(cpus: impl IntoIterator<Item = Cpu>) -> CpuSet {
    cpus.into_iter().collect()
}

#[cfg(test)]
pub(super) mod fixture {
    //! A host with four CPUs on which nothing is wrong.

    use std::collections::{BTreeMap, BTreeSet};

    use tune::cpu_set::{Cpu, CpuSet};
    use tune::host::{CpuPlace, Topology};

    use super::super::facts::{CpuFacts, Facts, NicFacts, Process, Rings};
    use super::super::finding::{Finding, Mark};
    use crate::config::Config;
    use crate::worker::Capability;
    use crate::worker_plan::{self, Offer};

    /// Four CPUs, two threads of two cores: 0 and 2, 1 and 3.
    pub(crate) fn facts() -> Facts {
        let online: CpuSet = "0-3".parse().unwrap();
        let place = |cpu: Cpu| CpuPlace { cpu, node: Some(0), core: cpu % 2, thread: cpu / 2, llc: 0 };
        let topology = Topology {
            online: online.clone(),
            housekeeping: online.clone(),
            cpus: online.iter().map(place).collect(),
            ..Topology::default()
        };
        let others = worker_plan::OtherFiles::of(&Config::default());
        let memory = Some(8 << 30);
        let offer = Offer { online: online.clone(), allowed: online, files: 100_000, others, memory };
        Facts {
            kernel: "6.18.0".to_owned(),
            capabilities: Ok(BTreeSet::from([Capability::DirectDescriptors])),
            direct_descriptors: true,
            plan: worker_plan::plan(&Config::default(), true, &offer),
            offer,
            rings: Some(Rings { asked: 4, made: 4, refusal: None }),
            process: Process { memlock: Some(8 << 20), capabilities: 0, has_seccomp: false },
            memory: Some(8 << 30),
            huge_pages: None,
            privileges: Ok(()),
            sysctls: BTreeMap::new(),
            addresses: Vec::new(),
            cpus: CpuFacts {
                topology,
                cpuset: None,
                isolated: CpuSet::new(),
                nohz_full: CpuSet::new(),
                governors: BTreeMap::new(),
            },
            nics: NicFacts { hosts: Vec::new(), errors: Vec::new(), loopback: Vec::new(), irqbalance: None },
        }
    }

    /// The facts with the workers that this configuration gives on them.
    pub(crate) fn planned(config: &Config, facts: Facts) -> Facts {
        Facts { plan: worker_plan::plan(config, true, &facts.offer), ..facts }
    }

    /// Mark, words and next step of the findings of this check.
    pub(crate) fn of<'a>(findings: &'a [Finding], check: &str) -> Vec<&'a Finding> {
        findings.iter().filter(|finding| finding.check == check).collect()
    }

    /// # Panics
    /// If there is not one finding of this check with this mark whose words and next step contain these.
    pub(crate) fn assert_one(findings: &[Finding], check: &str, mark: Mark, words: &[&str]) {
        let found = of(findings, check);
        let [finding] = found[..] else { panic!("{check}: {found:#?}") };
        assert_eq!(finding.mark, mark, "{finding:#?}");
        let text = format!("{} {}", finding.says, finding.next.as_deref().unwrap_or_default());
        words.iter().for_each(|word| assert!(text.contains(word), "\"{word}\" in {finding:#?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Mark;

    #[test]
    fn a_host_on_which_nothing_is_wrong_has_no_warning() {
        let facts = fixture::facts();
        let findings = limits::judge(&Config::default(), &facts);
        assert!(findings.iter().all(|finding| finding.mark <= Mark::Note), "{findings:#?}");
    }

    #[test]
    fn findings_come_in_the_order_of_their_groups() {
        let findings = judge(&Config::default(), &fixture::facts());
        assert!(findings.is_sorted_by_key(|finding| finding.group), "{findings:#?}");
    }

    #[test]
    fn bytes_are_written_in_the_largest_unit_that_keeps_two_digits() {
        let texts = [0, 8192, 65_536, 8 << 20, (8 << 20) + 1, 3 << 30, (64 << 30) + 7].map(bytes);
        assert_eq!(texts, ["0 bytes", "8 KiB", "64 KiB", "8 MiB", "8192 KiB", "3 GiB", "64 GiB"]);
    }
}
