//! Open files, locked memory, memory, the right to become somebody else. Pure.

use super::{bytes, count};
use crate::config::Config;
use crate::doctor::facts::{CAP_IPC_LOCK, Facts};
use crate::doctor::finding::{Finding, Group, Mark};
use crate::udp;
use crate::worker_plan::{DEFAULT_SLOTS, PlanError, files_for};

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(open_files(config, facts));
    findings.push(locked_memory(facts));
    findings.extend(buffers(config, facts));
    findings.extend(spill(config, facts));
    findings.extend(privileges(config, facts));
    findings
}

/// RLIMIT_NOFILE against the connections, by the rules of [`crate::worker_plan`]. A plan that fails for its
/// cores is told with the cores, one that fails for its memory with the memory.
fn open_files(config: &Config, facts: &Facts) -> Option<Finding> {
    let finding =
        |mark, says: String| Finding::new(Group::Limits, "limits.open_files", mark, "open files", says);
    let files = facts.offer.files;
    if config.udp && facts.plan.is_ok() {
        return Some(finding(Mark::Ok, format!("{files} allowed; --udp has no connections that take any")));
    }
    match &facts.plan {
        Ok(plan) => {
            let total: u64 = plan.iter().map(|worker| u64::from(worker.max_connections)).sum();
            let most = plan.iter().map(|worker| worker.max_connections).max().unwrap_or(0);
            let says = format!(
                "{files} allowed: {total} connections, {most} on each of {}",
                count(plan.len(), "core")
            );
            let is_cut = config.max_connections.is_none() && most < DEFAULT_SLOTS;
            let workers = u32::try_from(plan.len()).unwrap_or(u32::MAX);
            let wanted = files_for(
                facts.offer.others,
                facts.direct_descriptors,
                workers,
                DEFAULT_SLOTS.saturating_mul(workers),
            );
            Some(if is_cut {
                finding(
                    Mark::Note,
                    format!("{says}; the limit keeps it below the default of {DEFAULT_SLOTS} each"),
                )
                .next(raise_to(wanted))
            } else {
                finding(Mark::Ok, says)
            })
        }
        Err(error @ PlanError::TooManyConnections { asked, workers, .. }) => {
            let wanted = files_for(facts.offer.others, facts.direct_descriptors, *workers, *asked);
            Some(finding(Mark::Problem, error.to_string()).next(raise_to(wanted)))
        }
        Err(error @ PlanError::TooFewFiles { workers, .. }) => {
            let all = DEFAULT_SLOTS.saturating_mul(*workers);
            let wanted = files_for(
                facts.offer.others,
                facts.direct_descriptors,
                *workers,
                config.max_connections.unwrap_or(all),
            );
            Some(finding(Mark::Problem, error.to_string()).next(raise_to(wanted)))
        }
        Err(error @ PlanError::TooFewConnections { .. }) => Some(finding(Mark::Problem, error.to_string())),
        Err(
            PlanError::NotOnline { .. } | PlanError::NotAllowed { .. } | PlanError::TooLittleSpill { .. },
        ) => None,
    }
}

fn raise_to(files: u32) -> String {
    format!("ulimit -Hn {files} (LimitNOFILE={files} in the unit)")
}

/// RLIMIT_MEMLOCK. Whether it is enough the rings that were made have shown.
fn locked_memory(facts: &Facts) -> Finding {
    let finding =
        |says: String| Finding::new(Group::Limits, "limits.locked_memory", Mark::Ok, "locked memory", says);
    match facts.process.memlock {
        None => finding("no limit".to_owned()),
        Some(limit) if facts.process.may(CAP_IPC_LOCK) => {
            finding(format!("{}, but not for this process: it has CAP_IPC_LOCK", bytes(limit)))
        }
        Some(limit) => finding(format!(
            "{} for all processes of this user; kernels that count rings as locked memory count all of \
             theirs",
            bytes(limit)
        )),
    }
}

/// Bytes of memory that are free, as far as this process may have them.
fn available(facts: &Facts) -> Option<u64> {
    facts.memory.map(|free| free.min(facts.offer.memory.unwrap_or(free)))
}

/// Bytes of the receive buffers of so many cores.
fn bytes_of_buffers(config: &Config, cores: usize) -> u64 {
    u64::from(config.buffers) * u64::from(config.buffer_size) * cores as u64
}

/// The receive buffers of all cores against what is free. They take memory when they are first used.
fn buffers(config: &Config, facts: &Facts) -> Option<Finding> {
    let cores = facts.plan.as_ref().ok()?.len();
    if config.huge_pages {
        return huge_pages(config, facts, cores as u64);
    }
    let available = available(facts)?;
    let needed = bytes_of_buffers(config, cores);
    let says = format!(
        "receive buffers take up to {} ({} x {} on each of {}) of {} available",
        bytes(needed),
        config.buffers,
        bytes(config.buffer_size.into()),
        count(cores, "core"),
        bytes(available)
    );
    let finding = |mark| Finding::new(Group::Limits, "limits.memory", mark, "memory", says.as_str());
    Some(if needed > available {
        finding(Mark::Warning).next("smaller --buffers or --buffer-size, or fewer --cores")
    } else {
        finding(Mark::Ok)
    })
}

/// The spill of all cores against what the receive buffers leave of what is free. It takes memory when it is
/// first used.
fn spill(config: &Config, facts: &Facts) -> Option<Finding> {
    let finding = |mark, says: String| Finding::new(Group::Limits, "limits.spill", mark, "spill", says);
    let plan = match &facts.plan {
        Ok(plan) => plan,
        Err(error @ PlanError::TooLittleSpill { .. }) => {
            return Some(finding(Mark::Problem, error.to_string()));
        }
        Err(_) => return None,
    };
    let most: u64 = plan.iter().map(|worker| worker.spill).sum();
    let buffers = if config.huge_pages { 0 } else { bytes_of_buffers(config, plan.len()) };
    let left = available(facts)?.saturating_sub(buffers);
    let says =
        format!("what peers do not read takes up to {} (--spill) of {} left", bytes(most), bytes(left));
    match most {
        0 => None,
        _ if most > left => Some(
            finding(Mark::Warning, says).next("smaller --spill, and --idle-timeout for those who never read"),
        ),
        _ => Some(finding(Mark::Ok, says)),
    }
}

/// The huge pages of all cores' receive buffers against those that are free. The kernel takes them when they
/// are mapped, so that the server does not start without.
fn huge_pages(config: &Config, facts: &Facts, cores: u64) -> Option<Finding> {
    let found = facts.huge_pages?;
    let head = if config.udp { udp::HEAD as u64 } else { 0 };
    let of_a_core = u64::from(config.buffers) * (u64::from(config.buffer_size) + head);
    let needed = of_a_core.div_ceil(found.size) * cores;
    let says = format!(
        "receive buffers take {needed} huge pages of {} on {}; {} are free",
        bytes(found.size),
        count(usize::try_from(cores).unwrap_or(usize::MAX), "core"),
        found.free
    );
    let finding = |mark| Finding::new(Group::Limits, "limits.memory", mark, "huge pages", says.as_str());
    Some(if needed > found.free {
        let more = found.total.saturating_add(needed - found.free);
        finding(Mark::Problem).next(format!("sysctl -w vm.nr_hugepages={more}, or leave --huge-pages out"))
    } else {
        finding(Mark::Ok)
    })
}

/// Whether the process may become `--user` and `--group`.
fn privileges(config: &Config, facts: &Facts) -> Option<Finding> {
    let (option, name) = match (&config.user, &config.group) {
        (Some(user), _) => ("--user", user),
        (None, Some(group)) => ("--group", group),
        (None, None) => return None,
    };
    let finding = |mark, says: String| Finding::new(Group::Limits, "limits.privileges", mark, option, says);
    Some(match &facts.privileges {
        Ok(()) => finding(Mark::Ok, format!("this process may become {name}")),
        Err(error) => finding(Mark::Problem, error.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_one, facts, of, planned};
    use super::*;
    use crate::config::{Cores, Mode};
    use crate::doctor::facts::HugePages;

    #[test]
    fn the_limit_of_open_files_is_judged_by_the_rules_of_the_plan() {
        let judged = |max_connections, files, cores| {
            let config = Config { max_connections, cores, ..Config::default() };
            let mut facts = facts();
            facts.offer.files = files;
            judge(&config, &planned(&config, facts))
        };
        let check = "limits.open_files";
        assert_one(
            &judged(None, 100_000, Cores::All),
            check,
            Mark::Ok,
            &["262144 connections", "65536 on each"],
        );
        assert_one(&judged(None, 1024, Cores::All), check, Mark::Note, &["4096", "ulimit -Hn 65536"]);
        assert_one(&judged(Some(4096), 1024, Cores::All), check, Mark::Ok, &["4096 connections"]);
        let words = ["at most 4096", "LimitNOFILE=1025"];
        assert_one(&judged(Some(4097), 1024, Cores::All), check, Mark::Problem, &words);
        assert_one(&judged(None, 0, Cores::All), check, Mark::Problem, &["too low", "ulimit"]);
        assert_one(&judged(Some(3), 1024, Cores::All), check, Mark::Problem, &["at least 4"]);
        assert!(of(&judged(None, 1024, Cores::List(vec![9])), check).is_empty(), "told with the cores");
        let mut facts = facts();
        (facts.direct_descriptors, facts.offer.files) = (false, 1024);
        let config = Config { max_connections: Some(4096), ..Config::default() };
        facts.plan = crate::worker_plan::plan(&config, false, &facts.offer);
        let files = format!("ulimit -Hn {}", 4096 + 16 + 4 * 7);
        assert_one(&judge(&Config::default(), &facts), check, Mark::Problem, &["at most 980", &files]);
    }

    #[test]
    fn buffers_that_do_not_fit_into_memory_are_a_warning() {
        let mut facts = facts();
        facts.memory = Some(16 << 20);
        assert_one(&judge(&Config::default(), &facts), "limits.memory", Mark::Ok, &["16 MiB"]);
        facts.memory = Some((16 << 20) - 1);
        assert_one(&judge(&Config::default(), &facts), "limits.memory", Mark::Warning, &["--buffers"]);
        facts.memory = None;
        assert!(of(&judge(&Config::default(), &facts), "limits.memory").is_empty(), "unknown is not zero");
    }

    #[test]
    fn a_spill_that_does_not_fit_into_memory_beside_the_buffers_is_a_warning() {
        let judged = |huge_pages, memory, offered| {
            let mut facts = facts();
            (facts.memory, facts.offer.memory) = (memory, offered);
            judge(&Config { huge_pages, ..Config::default() }, &facts)
        };
        let (check, spill, buffers) = ("limits.spill", 2 << 30, 16 << 20);
        let words = ["2 GiB (--spill)", "2 GiB left"];
        assert_one(&judged(false, Some(spill + buffers), None), check, Mark::Ok, &words);
        assert_one(&judged(false, Some(spill + buffers - 1), None), check, Mark::Warning, &["--spill"]);
        assert_one(&judged(true, Some(spill), None), check, Mark::Ok, &words);
        assert_one(&judged(true, Some(spill - 1), None), check, Mark::Warning, &["2047 MiB"]);
        assert_one(&judged(true, Some(1 << 40), Some(spill - 1)), check, Mark::Warning, &["2047 MiB"]);
        assert!(of(&judged(false, None, None), check).is_empty(), "unknown is not zero");
        let config = Config { mode: Mode::Discard, ..Config::default() };
        assert!(of(&judge(&config, &planned(&config, facts())), check).is_empty(), "there is none");
    }

    #[test]
    fn a_spill_that_is_too_small_is_told_once() {
        let config = Config { spill: Some(1 << 20), ..Config::default() };
        let findings = judge(&config, &planned(&config, facts()));
        assert_one(&findings, "limits.spill", Mark::Problem, &["give at least 4194304"]);
        assert!(of(&findings, "limits.open_files").is_empty());
    }

    #[test]
    fn too_few_huge_pages_are_a_problem_and_the_number_that_would_do_is_told() {
        let mut facts = facts();
        let config = Config { huge_pages: true, ..Config::default() };
        facts.huge_pages = Some(HugePages { size: 2 << 20, free: 8, total: 10 });
        assert_one(&judge(&config, &facts), "limits.memory", Mark::Ok, &["8 huge pages"]);
        facts.huge_pages = Some(HugePages { size: 2 << 20, free: 7, total: 10 });
        assert_one(&judge(&config, &facts), "limits.memory", Mark::Problem, &["vm.nr_hugepages=11"]);
        facts.huge_pages = None;
        assert!(of(&judge(&config, &facts), "limits.memory").is_empty(), "unknown is not zero");
    }

    #[test]
    fn who_cannot_become_the_user_is_told() {
        let mut facts = facts();
        let asked = Config { user: Some("nobody".to_owned()), ..Config::default() };
        let check = "limits.privileges";
        assert_one(&judge(&asked, &facts), check, Mark::Ok, &["nobody"]);
        facts.privileges = Err("no such user".to_owned());
        assert_one(&judge(&asked, &facts), check, Mark::Problem, &["no such user"]);
        assert!(of(&judge(&Config::default(), &facts), check).is_empty());
    }

    #[test]
    fn datagrams_take_no_open_files() {
        let mut facts = facts();
        facts.offer.files = 1024;
        let config = Config { udp: true, ..Config::default() };
        assert_one(&judge(&config, &facts), "limits.open_files", Mark::Ok, &["--udp has no connections"]);
    }

    #[test]
    fn a_limit_of_locked_memory_that_does_not_count_says_so() {
        let mut facts = facts();
        let check = "limits.locked_memory";
        assert_one(&judge(&Config::default(), &facts), check, Mark::Ok, &["8 MiB", "of this user"]);
        facts.process.capabilities = 1 << CAP_IPC_LOCK;
        assert_one(&judge(&Config::default(), &facts), check, Mark::Ok, &["CAP_IPC_LOCK"]);
        facts.process.memlock = None;
        assert_one(&judge(&Config::default(), &facts), check, Mark::Ok, &["no limit"]);
    }
}
