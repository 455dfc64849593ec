//! Which worker runs on which CPU, with how many connections. Pure.

use tune::cpu_set::{Cpu, CpuSet};

/// One worker to be started. Its listener has the same index in the reuseport group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedWorker {
    /// The CPU that its thread is pinned to.
    pub(crate) cpu: Cpu,
    /// The most connections it may have open.
    pub(crate) max_connections: u32,
}

/// Why the workers asked for can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A core of `--cores` is not online.
    #[error("--cores {asked}: this host has no CPU {missing} online; it has {online}")]
    NotOnline {
        /// The list as asked.
        asked: String,
        /// What is missing of it.
        missing: CpuSet,
        /// `/sys/devices/system/cpu/online`
        online: CpuSet,
    },
    /// A core of `--cores` is outside the affinity mask of the process.
    #[error(
        "--cores {asked}: this process may not run on CPU {missing}, only on {allowed}; see taskset(1), \
         cpuset.cpus of its cgroup, CPUAffinity= of its service"
    )]
    NotAllowed {
        /// The list as asked.
        asked: String,
        /// What is missing of it.
        missing: CpuSet,
        /// `Cpus_allowed_list` of `/proc/self/status`.
        allowed: CpuSet,
    },
    /// Fewer connections than workers.
    #[error(
        "--max-connections {asked} is less than one for each of {workers} cores; give at least {workers}"
    )]
    TooFewConnections {
        /// `--max-connections`
        asked: u32,
        /// Number of workers.
        workers: u32,
    },
    /// A worker would have more connections than the process may have files.
    #[error(
        "--max-connections {asked}: {each} on each of {workers} cores is more than the {limit} that the limit of open \
         files allows a ring; give at most {most}, or raise the limit (ulimit -n, LimitNOFILE=)"
    )]
    TooManyConnections {
        /// `--max-connections`
        asked: u32,
        /// Connections that a worker would have.
        each: u32,
        /// Number of workers.
        workers: u32,
        /// RLIMIT_NOFILE, or what a connection's slot number can hold.
        limit: u32,
        /// The largest number that would do.
        most: u32,
    },
}

/// What this host and this process offer.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// CPUs online.
    pub(crate) online: CpuSet,
    /// CPUs that this process may run on.
    pub(crate) allowed: CpuSet,
    /// The most connections that one worker's table can have.
    pub(crate) slots: u32,
}

/// Connections of a worker when `--max-connections` is not given, if the limit of open files allows as many.
pub(crate) const DEFAULT_SLOTS: u32 = 65_536;

/// The workers for `cores` (all that are offered if `None`), in that order, with `max_connections` split evenly.
pub(crate) fn plan(
    cores: Option<&[Cpu]>,
    max_connections: Option<u32>,
    offer: &Offer,
) -> Result<Vec<PlannedWorker>, PlanError> {
    let usable = offer.online.intersection(&offer.allowed);
    let cpus = cores.map_or_else(|| usable.iter().collect(), <[Cpu]>::to_vec);
    let wanted: CpuSet = cpus.iter().copied().collect();
    let asked = || wanted.to_string();
    let missing = wanted.difference(&offer.online);
    if !missing.is_empty() {
        return Err(PlanError::NotOnline { asked: asked(), missing, online: offer.online.clone() });
    }
    let missing = wanted.difference(&offer.allowed);
    if !missing.is_empty() {
        return Err(PlanError::NotAllowed { asked: asked(), missing, allowed: offer.allowed.clone() });
    }
    let slots =
        split(max_connections, u32::try_from(cpus.len()).expect("CPU numbers are below 8192"), offer.slots)?;
    Ok(cpus
        .into_iter()
        .zip(slots)
        .map(|(cpu, max_connections)| PlannedWorker { cpu, max_connections })
        .collect())
}

fn split(asked: Option<u32>, workers: u32, limit: u32) -> Result<impl Iterator<Item = u32>, PlanError> {
    let total = asked.unwrap_or_else(|| DEFAULT_SLOTS.min(limit).saturating_mul(workers));
    if total < workers {
        return Err(PlanError::TooFewConnections { asked: total, workers });
    }
    let each = total.div_ceil(workers);
    if each > limit {
        let most = limit.saturating_mul(workers);
        return Err(PlanError::TooManyConnections { asked: total, each, workers, limit, most });
    }
    Ok((0..workers).map(move |worker| total / workers + u32::from(worker < total % workers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer { online: "0-3".parse().unwrap(), allowed: "0-2".parse().unwrap(), slots: 1000 }
    }

    fn cpus(plan: &[PlannedWorker]) -> Vec<Cpu> {
        plan.iter().map(|worker| worker.cpu).collect()
    }

    #[test]
    fn by_default_every_core_that_is_online_and_allowed_works() {
        let workers = plan(None, None, &offer()).unwrap();
        assert_eq!(cpus(&workers), [0, 1, 2]);
        assert!(workers.iter().all(|worker| worker.max_connections == 1000));
    }

    #[test]
    fn the_order_of_the_list_is_kept() {
        assert_eq!(cpus(&plan(Some(&[2, 0]), None, &offer()).unwrap()), [2, 0]);
    }

    #[test]
    fn connections_are_split_with_nothing_lost() {
        let workers = plan(None, Some(8), &offer()).unwrap();
        assert_eq!(workers.iter().map(|worker| worker.max_connections).collect::<Vec<_>>(), [3, 3, 2]);
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_there_is() {
        let refused =
            |cores: &[Cpu], connections| plan(Some(cores), connections, &offer()).unwrap_err().to_string();
        assert!(refused(&[1, 7], None).contains("no CPU 7 online; it has 0-3"));
        assert!(refused(&[3], None).contains("may not run on CPU 3, only on 0-2"));
        assert!(refused(&[0, 1], Some(1)).contains("give at least 2"));
        assert!(refused(&[0, 1], Some(2001)).contains("give at most 2000"));
    }
}
