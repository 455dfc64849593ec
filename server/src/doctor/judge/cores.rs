//! The CPUs of `--cores`: may the process run there, and what else is true of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tune::cpu_set::CpuSet;

use super::{count, cpus, set_of, worker_cpus};
use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Group, Mark};
use crate::worker_plan::PlanError;

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let cores = worker_cpus(config, facts);
    let mut findings = vec![workers(facts, &cores)];
    findings.extend(allowed(facts));
    findings.extend(isolated(facts, &cores));
    findings.extend(siblings(facts, &cores));
    findings.extend(governor(facts, &cores));
    findings.extend(nodes(config, facts, &cores));
    findings
}

fn finding(check: &'static str, mark: Mark, subject: &str, says: impl Into<String>) -> Finding {
    Finding::new(Group::Cores, check, mark, subject, says)
}

/// What the plan makes of `--cores`. A plan that fails for its limits is told with them.
fn workers(facts: &Facts, cores: &CpuSet) -> Finding {
    match &facts.plan {
        Err(error @ (PlanError::NotOnline { .. } | PlanError::NotAllowed { .. })) => {
            let usable = facts.offer.online.intersection(&facts.offer.allowed);
            finding("cores.workers", Mark::Problem, "--cores", error.to_string())
                .next(format!("--cores {usable}, or a larger cpuset or affinity for the process"))
        }
        _ => {
            let says = format!("a worker on each of {}", cpus(cores));
            finding("cores.workers", Mark::Ok, "--cores", says)
        }
    }
}

/// The affinity mask, and the cgroup that may be behind it.
fn allowed(facts: &Facts) -> Option<Finding> {
    let forbidden = facts.offer.online.difference(&facts.offer.allowed);
    if forbidden.is_empty() {
        return None;
    }
    let by = match &facts.cpus.cpuset {
        Some(cpuset) if facts.offer.online.difference(cpuset) == forbidden => "by the cpuset of its cgroup",
        _ => "by its affinity (taskset, CPUAffinity=) or cgroup",
    };
    let says = format!(
        "{} of {} online; kept off {} {by}",
        facts.offer.allowed,
        facts.offer.online,
        cpus(&forbidden)
    );
    Some(finding("cores.allowed", Mark::Note, "allowed CPUs", says))
}

/// `isolcpus=`, isolated cpusets and `nohz_full=`.
fn isolated(facts: &Facts, cores: &CpuSet) -> Option<Finding> {
    let (isolated, nohz_full) =
        (facts.cpus.isolated.intersection(cores), facts.cpus.nohz_full.intersection(cores));
    if isolated.is_empty() && nohz_full.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    if !isolated.is_empty() {
        parts.push(format!("{isolated} isolated: nothing else is scheduled there"));
    }
    if !nohz_full.is_empty() {
        parts.push(format!("{nohz_full} nohz_full: system calls cost more there, ticks less"));
    }
    let says = format!("of --cores {}; RPS sends no packets to either", parts.join(", "));
    Some(finding("cores.isolated", Mark::Note, "isolation", says))
}

/// Threads of one core that both have a worker.
fn siblings(facts: &Facts, cores: &CpuSet) -> Option<Finding> {
    let mut by_core: BTreeMap<u32, CpuSet> = BTreeMap::new();
    for place in facts.cpus.topology.cpus.iter().filter(|place| cores.contains(place.cpu)) {
        by_core.entry(place.core).or_default().insert(place.cpu);
    }
    let shared: Vec<String> =
        by_core.values().filter(|threads| threads.len() > 1).map(ToString::to_string).collect();
    if shared.is_empty() {
        return None;
    }
    let one_each = set_of(by_core.values().filter_map(CpuSet::first));
    let list = shared.iter().take(4).map(|pair| format!("{{{pair}}}")).collect::<Vec<_>>().join(" ");
    let more = if shared.len() > 4 { format!(" and {} more", shared.len() - 4) } else { String::new() };
    let says =
        format!("{} of one core each have two workers or more: {list}{more}", count(shared.len(), "group"));
    let finding = finding("cores.smt", Mark::Note, "SMT", says);
    Some(finding.next(format!("to compare: --cores {one_each}, one thread of each core")))
}

/// The CPU frequency governor.
fn governor(facts: &Facts, cores: &CpuSet) -> Option<Finding> {
    let of_cores = facts.cpus.governors.iter().filter(|(cpu, _)| cores.contains(**cpu));
    let mut by_name: BTreeMap<&str, CpuSet> = BTreeMap::new();
    for (cpu, name) in of_cores {
        by_name.entry(name.trim()).or_default().insert(*cpu);
    }
    if by_name.is_empty() {
        return None;
    }
    let says = by_name.iter().map(|(name, cpus)| format!("{name} on {cpus}")).collect::<Vec<_>>().join(", ");
    if by_name.keys().all(|name| *name == "performance") {
        return Some(finding("cores.governor", Mark::Ok, "governor", says));
    }
    let says = format!("{says}; figures vary with the clock");
    let finding = finding("cores.governor", Mark::Note, "governor", says);
    Some(finding.next(format!("cpupower -c {cores} frequency-set -g performance")))
}

/// The NUMA nodes.
fn nodes(config: &Config, facts: &Facts, cores: &CpuSet) -> Option<Finding> {
    let places = facts.cpus.topology.cpus.iter().filter(|place| cores.contains(place.cpu));
    let nodes: BTreeSet<u32> = places.filter_map(|place| place.node).collect();
    if nodes.len() < 2 {
        return None;
    }
    let list = nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let says = format!("--cores lie on nodes {list}");
    if config.numa {
        return Some(finding("cores.numa", Mark::Ok, "NUMA", format!("{says}; --numa keeps memory on them")));
    }
    Some(
        finding("cores.numa", Mark::Note, "NUMA", says).next("--numa keeps each worker's memory on its node"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_one, facts, of, planned};
    use super::*;
    use crate::config::Cores;

    fn on(cores: &[u32]) -> Config {
        Config { cores: Cores::List(cores.to_vec()), ..Config::default() }
    }

    #[test]
    fn cores_that_cannot_be_had_are_a_problem_and_those_that_can_are_named() {
        let config = on(&[1, 9]);
        let findings = judge(&config, &planned(&config, facts()));
        assert_one(&findings, "cores.workers", Mark::Problem, &["no CPU 9 online", "--cores 0-3"]);
        let config = on(&[1, 3]);
        let mut facts = facts();
        facts.offer.allowed = "0-1".parse().unwrap();
        facts.cpus.cpuset = Some("0-1".parse().unwrap());
        let findings = judge(&config, &planned(&config, facts));
        assert_one(&findings, "cores.workers", Mark::Problem, &["may not run on CPU 3", "--cores 0-1"]);
        assert_one(
            &findings,
            "cores.allowed",
            Mark::Note,
            &["0-1 of 0-3", "CPUs 2-3", "cpuset of its cgroup"],
        );
    }

    #[test]
    fn siblings_are_told_only_if_both_work() {
        let judged = |cores: &[u32]| judge(&on(cores), &planned(&on(cores), facts()));
        assert!(of(&judged(&[0, 1]), "cores.smt").is_empty());
        assert_one(&judged(&[0, 1, 2]), "cores.smt", Mark::Note, &["1 group", "{0,2}", "--cores 0-1"]);
    }

    #[test]
    fn what_is_true_of_other_cpus_is_not_told() {
        let mut facts = facts();
        facts.cpus.isolated = "2-3".parse().unwrap();
        facts.cpus.nohz_full = "3".parse().unwrap();
        facts.cpus.governors =
            (0..4).map(|cpu| (cpu, ["performance", "powersave"][cpu as usize / 2].into())).collect();
        facts.cpus.topology.cpus[3].node = Some(1);
        let facts = planned(&on(&[0, 1]), facts);
        let findings = judge(&on(&[0, 1]), &facts);
        assert!(of(&findings, "cores.isolated").is_empty() && of(&findings, "cores.numa").is_empty());
        assert_one(&findings, "cores.governor", Mark::Ok, &["performance on 0-1"]);
        let facts = planned(&on(&[1, 2, 3]), facts);
        let findings = judge(&on(&[1, 2, 3]), &facts);
        assert_one(&findings, "cores.isolated", Mark::Note, &["2-3 isolated", "3 nohz_full"]);
        assert_one(&findings, "cores.governor", Mark::Note, &["powersave on 2-3", "cpupower -c 1-3"]);
        assert_one(&findings, "cores.numa", Mark::Note, &["nodes 0, 1", "--numa"]);
    }
}
