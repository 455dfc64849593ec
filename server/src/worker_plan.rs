//! Which worker runs on which CPU, with how many connections and how much memory for their bytes. Pure.

use tune::cpu_set::{Cpu, CpuSet};

use crate::config::{Config, Cores};
use crate::metrics;
use crate::worker::{self, LEAST_SPILL, MAX_SLOTS, SPILL_PIECE};

/// One worker to be started. Its listener has the same index in the reuseport group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedWorker {
    /// The CPU that its thread is pinned to.
    pub(crate) cpu: Cpu,
    /// The most connections it may have open.
    pub(crate) max_connections: u32,
    /// Bytes of its spill, a multiple of [`SPILL_PIECE`]; 0 where it needs none.
    pub(crate) spill: u64,
    /// A connection's second, plain descriptor has a number below this, so that what is no connection, such
    /// as a client of the metrics endpoint, always finds one.
    pub(crate) aliases_below: u32,
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
        /// Where it may run.
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
    /// More connections than there can be descriptors for.
    #[error(
        "--max-connections {asked}: with a limit of {files} open files {workers} cores can have at most \
         {most}; give no more, or raise the limit (ulimit -n, LimitNOFILE=)"
    )]
    TooManyConnections {
        /// `--max-connections`
        asked: u32,
        /// Number of workers.
        workers: u32,
        /// RLIMIT_NOFILE.
        files: u32,
        /// The largest number that would do.
        most: u32,
    },
    /// Less memory for what peers do not read than each worker must have.
    #[error("--spill {asked} is less than {LEAST_SPILL} for each of {workers} cores; give at least {least}")]
    TooLittleSpill {
        /// `--spill`
        asked: u64,
        /// Number of workers.
        workers: u32,
        /// The smallest number that would do.
        least: u64,
    },
    /// Not even one connection for each worker.
    #[error(
        "a limit of {files} open files is too low for {workers} cores; raise it (ulimit -n, LimitNOFILE=)"
    )]
    TooFewFiles {
        /// RLIMIT_NOFILE.
        files: u32,
        /// Number of workers.
        workers: u32,
    },
}

/// What this host and this process offer.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// CPUs online.
    pub(crate) online: CpuSet,
    /// CPUs that this process may run on.
    pub(crate) allowed: CpuSet,
    /// Files that this process may have open: RLIMIT_NOFILE.
    pub(crate) files: u32,
    /// What of them is not for connections.
    pub(crate) others: OtherFiles,
    /// Bytes of memory that this process may have, if that is known.
    pub(crate) memory: Option<u64>,
}

/// Open files that are no connections within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherFiles {
    /// Of the process.
    process: u32,
    /// Of each worker beside its connections.
    worker: u32,
    /// Connections of each worker [beyond its limit](worker::reserve).
    reserve: u32,
}

impl OtherFiles {
    /// What a server with this configuration has: what it inherits, pipes for signals, the metrics endpoint
    /// with its clients; of each worker the ring, a pipe, the eventfd, and for each address a listener, the
    /// last two also in the main thread's hands.
    pub(crate) fn of(config: &Config) -> Self {
        let addresses = u32::try_from(config.listen.len()).unwrap_or(u32::MAX);
        let endpoint = if config.metrics.is_some() { metrics::MOST_FILES } else { 0 };
        Self {
            process: 16 + endpoint,
            worker: addresses.saturating_mul(2).saturating_add(5),
            reserve: worker::reserve(config.overload, config.listen.len()),
        }
    }

    fn total(self, workers: u32) -> u32 {
        let of_each = self.worker.saturating_add(self.reserve);
        self.process.saturating_add(of_each.saturating_mul(workers))
    }
}

/// Connections of a worker when `--max-connections` is not given, if the limit of open files allows as many.
pub(crate) const DEFAULT_SLOTS: u32 = 65_536;

/// The most connections that each of `workers` can have. The direct descriptor table of each ring may have as
/// many entries as the process may have files; with plain descriptors all connections share that limit.
fn most_connections(others: OtherFiles, direct_descriptors: bool, workers: u32, files: u32) -> u32 {
    if direct_descriptors {
        return files.min(MAX_SLOTS).saturating_sub(others.reserve);
    }
    (files.saturating_sub(others.total(workers)) / workers.max(1)).min(MAX_SLOTS)
}

/// The limit of open files with which `workers` can have this many connections altogether: what
/// [`most_connections`] takes to give them.
pub(crate) fn files_for(others: OtherFiles, direct_descriptors: bool, workers: u32, connections: u32) -> u32 {
    let of_each = connections.div_ceil(workers.max(1));
    if direct_descriptors {
        return of_each.saturating_add(others.reserve);
    }
    others.total(workers).saturating_add(of_each.saturating_mul(workers))
}

/// The workers of this configuration, in the order of its cores, with connections and the spill split evenly.
pub(crate) fn plan(
    config: &Config,
    direct_descriptors: bool,
    offer: &Offer,
) -> Result<Vec<PlannedWorker>, PlanError> {
    let cpus: Vec<Cpu> = match &config.cores {
        Cores::All => offer.online.intersection(&offer.allowed).iter().collect(),
        Cores::List(cores) => cores.clone(),
    };
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
    let workers = u32::try_from(cpus.len()).expect("CPU numbers are below 8192");
    let limit = most_connections(offer.others, direct_descriptors, workers, offer.files);
    let slots = split(config.max_connections, workers, limit, offer.files)?;
    let spill = if config.spills() { spill(config.spill, workers, offer.memory)? } else { 0 };
    let aliases_below = offer.files.saturating_sub(offer.others.process);
    Ok(cpus
        .into_iter()
        .zip(slots)
        .map(|(cpu, max_connections)| PlannedWorker { cpu, max_connections, spill, aliases_below })
        .collect())
}

/// Of the memory that the process may have, the spill has one part of so many unless `--spill` says
/// otherwise: it is never given up to others, and buffers, the kernel's sockets and the rest of the host need
/// some, too.
const SPILL_SHARE: u64 = 4;

/// Bytes of each worker's spill.
fn spill(asked: Option<u64>, workers: u32, memory: Option<u64>) -> Result<u64, PlanError> {
    let least = LEAST_SPILL * u64::from(workers);
    let total = asked.unwrap_or_else(|| (memory.unwrap_or(0) / SPILL_SHARE).max(least));
    if total < least {
        return Err(PlanError::TooLittleSpill { asked: total, workers, least });
    }
    let pieces = total / u64::from(workers.max(1)) / SPILL_PIECE as u64;
    Ok(pieces * SPILL_PIECE as u64)
}

fn split(
    asked: Option<u32>,
    workers: u32,
    limit: u32,
    files: u32,
) -> Result<impl Iterator<Item = u32>, PlanError> {
    if limit == 0 {
        return Err(PlanError::TooFewFiles { files, workers });
    }
    let total = asked.unwrap_or_else(|| DEFAULT_SLOTS.min(limit).saturating_mul(workers));
    if total < workers {
        return Err(PlanError::TooFewConnections { asked: total, workers });
    }
    if total.div_ceil(workers) > limit {
        let most = limit.saturating_mul(workers);
        return Err(PlanError::TooManyConnections { asked: total, workers, files, most });
    }
    Ok((0..workers).map(move |worker| total / workers + u32::from(worker < total % workers)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overload;

    fn offer() -> Offer {
        let others = OtherFiles::of(&Config::default());
        Offer {
            online: "0-3".parse().unwrap(),
            allowed: "0-2".parse().unwrap(),
            files: 1000,
            others,
            memory: None,
        }
    }

    fn plan(
        cores: Option<&[Cpu]>,
        max_connections: Option<u32>,
        offer: &Offer,
    ) -> Result<Vec<PlannedWorker>, PlanError> {
        super::plan(&asked(cores, max_connections), true, offer)
    }

    fn asked(cores: Option<&[Cpu]>, max_connections: Option<u32>) -> Config {
        let cores = cores.map_or(Cores::All, |cores| Cores::List(cores.to_vec()));
        Config { cores, max_connections, ..Config::default() }
    }

    #[test]
    fn plain_descriptors_share_the_limit_of_open_files() {
        let plain = |connections, files| {
            let offer = Offer { files, ..offer() };
            super::plan(&asked(Some(&[0, 1]), connections), false, &offer)
        };
        let workers = plain(None, 1000).unwrap();
        assert!(workers.iter().all(|worker| worker.max_connections == (1000 - 16 - 2 * 7) / 2));
        assert!(plain(Some(1000), 1000).unwrap_err().to_string().contains("at most 970"));
        assert_eq!(plain(None, 30).unwrap_err(), PlanError::TooFewFiles { files: 30, workers: 2 });
    }

    #[test]
    fn other_files_grow_with_the_addresses_and_the_endpoint() {
        let address = "127.0.0.1:80".parse().unwrap();
        let of = |addresses, metrics: bool, overload| {
            let metrics = metrics.then_some(address);
            OtherFiles::of(&Config {
                listen: vec![address; addresses],
                metrics,
                overload,
                ..Config::default()
            })
        };
        assert_eq!(of(1, false, Overload::Queue), OtherFiles { process: 16, worker: 7, reserve: 0 });
        assert_eq!(of(8, false, Overload::Queue), OtherFiles { process: 16, worker: 21, reserve: 7 });
        assert!(of(1, true, Overload::Queue).process > 16 + 16, "16 clients and two listeners' worth");
        assert_eq!(of(1, false, Overload::Reset).reserve, 64);
    }

    /// A ring's table of direct descriptors has no more than [`MAX_SLOTS`] entries, those of the reserve
    /// among them.
    #[test]
    fn a_table_of_direct_descriptors_has_room_for_the_reserve() {
        let config = Config { overload: Overload::Reset, ..Config::default() };
        let offer = Offer { files: 1 << 21, others: OtherFiles::of(&config), ..offer() };
        let most = plan(Some(&[0]), Some(MAX_SLOTS - 64), &offer).unwrap();
        assert_eq!(most[0].max_connections, MAX_SLOTS - 64);
        assert!(plan(Some(&[0]), Some(MAX_SLOTS), &offer).is_err());
    }

    #[test]
    fn the_files_for_connections_are_just_enough() {
        let others = OtherFiles::of(&Config { overload: Overload::Reset, ..Config::default() });
        for direct in [false, true] {
            for workers in [1, 2, 3, 48] {
                for connections in [workers, 4097, 100_000] {
                    let files = files_for(others, direct, workers, connections);
                    let each = connections.div_ceil(workers);
                    assert_eq!(most_connections(others, direct, workers, files), each);
                    assert!(
                        most_connections(others, direct, workers, files - 1) < each,
                        "{direct} {workers} {connections}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_spared_is_each_workers_and_the_refusal_names_the_true_limit() {
        let config = Config { overload: Overload::Reset, ..Config::default() };
        let offer = Offer { others: OtherFiles::of(&config), ..offer() };
        // 16 of the process and 7 of the worker are no connections.
        for (direct, each) in [(true, 1000 - 64), (false, (1000 - 23) - 64)] {
            let workers = super::plan(&asked(Some(&[0]), None), direct, &offer).unwrap();
            assert_eq!(workers[0].max_connections, each, "one worker, though three CPUs are allowed");
        }
        let refused = plan(Some(&[0, 1]), Some(2000), &offer).unwrap_err().to_string();
        assert!(
            refused.contains("limit of 1000 open files") && refused.contains("at most 1872"),
            "{refused}"
        );
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
    fn the_spill_is_split_in_whole_pieces_and_by_default_a_quarter_of_the_memory() {
        let spill = |config: &Config, memory| {
            let workers = super::plan(config, true, &Offer { memory, ..offer() });
            workers.map(|workers| workers.iter().map(|worker| worker.spill).collect::<Vec<_>>())
        };
        let of = |spill| Config { spill, ..Config::default() };
        let mib = 1 << 20;
        assert_eq!(spill(&of(None), Some(120 * mib)).unwrap(), [10 * mib; 3]);
        assert_eq!(spill(&of(None), Some(4 * mib)).unwrap(), [mib; 3], "no less");
        assert_eq!(spill(&of(None), None).unwrap(), [mib; 3], "unknown is not endless");
        assert_eq!(spill(&of(Some(6 * mib + 16_384)), Some(mib)).unwrap(), [2 * mib; 3]);
        let refused = spill(&of(Some(3 * mib - 1)), None).unwrap_err().to_string();
        assert!(refused.contains("3145727 is less than 1048576 for each of 3 cores"), "{refused}");
        let none = Config { mode: crate::config::Mode::Discard, ..of(None) };
        assert_eq!(spill(&none, Some(120 * mib)).unwrap(), [0; 3]);
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_there_is() {
        let refused =
            |cores: &[Cpu], connections| plan(Some(cores), connections, &offer()).unwrap_err().to_string();
        assert!(refused(&[1, 7], None).contains("no CPU 7 online; it has 0-3"));
        assert!(refused(&[3], None).contains("may not run on CPU 3, only on 0-2"));
        assert!(refused(&[0, 1], Some(1)).contains("give at least 2"));
        assert!(refused(&[0, 1], Some(2001)).contains("at most 2000"));
    }
}
