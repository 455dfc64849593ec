//! Sysctls of TCP against the configuration. Pure.

use super::{count, worker_cpus};
use crate::config::{Config, Overload};
use crate::doctor::facts::{CAP_NET_ADMIN, Facts};
use crate::doctor::finding::{Finding, Group, Mark};

/// The sysctls that are read.
pub(in crate::doctor) const SYSCTLS: [&str; 9] = [
    "kernel.io_uring_disabled",
    "kernel.io_uring_group",
    "net.core.busy_read",
    "net.core.somaxconn",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_syncookies",
];

/// The bit of `net.ipv4.tcp_fastopen` that lets servers take data with a SYN (`TFO_SERVER_ENABLE`).
const FASTOPEN_SERVER: u64 = 2;

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let number = |name| facts.sysctls.get(name).and_then(|text| text.trim().parse::<u64>().ok());
    let mut findings = Vec::new();
    if !config.udp {
        findings.extend(number("net.core.somaxconn").map(|value| somaxconn(config, value)));
        let cookies = number("net.ipv4.tcp_syncookies");
        findings.extend(cookies.map(syncookies));
        let longest = number("net.ipv4.tcp_max_syn_backlog");
        findings.extend(longest.zip(cookies).map(|(longest, cookies)| syn_queue(config, longest, cookies)));
        findings.extend(number("net.ipv4.tcp_abort_on_overflow").map(|value| overflow(config, value)));
        let workers = worker_cpus(config, facts).len();
        findings.extend(number("net.ipv4.tcp_migrate_req").map(|value| migrate(workers, value)));
        findings.extend(number("net.ipv4.tcp_fastopen").and_then(|value| fastopen(config, value)));
    }
    findings.extend(number("net.core.busy_read").and_then(|value| busy_poll(config, facts, value)));
    findings
}

fn finding(check: &'static str, mark: Mark, sysctl: &str, says: impl Into<String>) -> Finding {
    Finding::new(Group::Network, check, mark, sysctl, says)
}

fn set(sysctl: &str, value: u64) -> String {
    format!("sysctl -w {sysctl}={value}")
}

/// `listen(2)`: the backlog is silently cut to it.
fn somaxconn(config: &Config, value: u64) -> Finding {
    const NAME: &str = "net.core.somaxconn";
    let backlog = u64::from(config.backlog);
    let check = "network.somaxconn";
    if value >= backlog {
        return finding(check, Mark::Ok, NAME, format!("{value}, enough for --backlog {backlog}"));
    }
    let says =
        format!("{value}: the kernel cuts the accept queue of each core from --backlog {backlog} to that");
    finding(check, Mark::Warning, NAME, says).next(set(NAME, backlog))
}

/// `tcp_conn_request()` in `net/ipv4/tcp_input.c`: with cookies the backlog alone bounds the queue; without,
/// the last quarter of `tcp_max_syn_backlog` is for peers that are known.
fn syn_queue(config: &Config, longest: u64, cookies: u64) -> Finding {
    const NAME: &str = "net.ipv4.tcp_max_syn_backlog";
    let check = "network.syn_queue";
    let backlog = u64::from(config.backlog);
    if cookies != 0 {
        return finding(
            check,
            Mark::Ok,
            NAME,
            format!("{longest}; does not matter while SYN cookies are on"),
        );
    }
    if longest >= backlog {
        return finding(check, Mark::Ok, NAME, format!("{longest}, enough for --backlog {backlog}"));
    }
    let says =
        format!("{longest}: without SYN cookies, more than that wait in vain, though --backlog is {backlog}");
    finding(check, Mark::Warning, NAME, says).next(set(NAME, backlog))
}

fn syncookies(value: u64) -> Finding {
    const NAME: &str = "net.ipv4.tcp_syncookies";
    let check = "network.syncookies";
    match value {
        0 => finding(check, Mark::Note, NAME, "0: when the queue of a listener is full its SYNs are dropped")
            .next(set(NAME, 1)),
        1 => finding(check, Mark::Ok, NAME, "1: when the queue of a listener is full, its SYNs get cookies"),
        _ => finding(
            check,
            Mark::Warning,
            NAME,
            format!("{value}: every connection begins with a cookie, which costs time and TCP options"),
        )
        .next(set(NAME, 1)),
    }
}

/// `Documentation/networking/ip-sysctl.rst`: "enable this option _only_ if you are really sure".
fn overflow(config: &Config, value: u64) -> Finding {
    const NAME: &str = "net.ipv4.tcp_abort_on_overflow";
    let check = "network.abort_on_overflow";
    if value == 0 {
        return finding(check, Mark::Ok, NAME, "0: a client that meets a full accept queue tries again");
    }
    let says = format!("{value}: a client that meets a full accept queue is reset");
    if config.overload == Overload::Reset {
        return finding(check, Mark::Ok, NAME, format!("{says}, in keeping with --overload reset"));
    }
    let says = format!("{says}, though with --overload queue it is to wait");
    finding(check, Mark::Warning, NAME, says).next(set(NAME, 0))
}

/// Since Linux 5.14.
fn migrate(workers: usize, value: u64) -> Finding {
    const NAME: &str = "net.ipv4.tcp_migrate_req";
    let check = "network.migrate_req";
    match value {
        0 if workers > 1 => finding(
            check,
            Mark::Note,
            NAME,
            "0: connections in the queue of a listener that closes are reset, not handed to another core's",
        )
        .next(set(NAME, 1)),
        0 => {
            finding(check, Mark::Ok, NAME, format!("0; with {} there is nobody to hand to", count(1, "core")))
        }
        _ => finding(
            check,
            Mark::Ok,
            NAME,
            format!("{value}: a listener that closes hands its queue to another"),
        ),
    }
}

fn fastopen(config: &Config, value: u64) -> Option<Finding> {
    const NAME: &str = "net.ipv4.tcp_fastopen";
    let check = "network.fastopen";
    let queue = config.fastopen?;
    if value & FASTOPEN_SERVER != 0 {
        return Some(finding(check, Mark::Ok, NAME, format!("{value:#x}: servers take data with a SYN")));
    }
    let says = format!("{value:#x}: --fastopen {queue} has no effect, since servers take no data with a SYN");
    Some(finding(check, Mark::Warning, NAME, says).next(set(NAME, value | FASTOPEN_SERVER)))
}

/// `SO_BUSY_POLL` above what sockets begin with needs CAP_NET_ADMIN (`socket(7)`).
fn busy_poll(config: &Config, facts: &Facts, begin: u64) -> Option<Finding> {
    const NAME: &str = "net.core.busy_read";
    let check = "network.busy_poll";
    let asked = config.busy_poll.as_micros();
    if asked == 0 {
        return None;
    }
    if facts.process.may(CAP_NET_ADMIN) || asked <= begin.into() {
        return Some(finding(
            check,
            Mark::Ok,
            NAME,
            format!("{begin}; --busy-poll of {asked} us may be set"),
        ));
    }
    let says = format!("{begin}: a process without CAP_NET_ADMIN may not have --busy-poll {asked}us");
    let step =
        format!("sysctl -w {NAME}={asked}, or give it CAP_NET_ADMIN (AmbientCapabilities= in the unit)");
    Some(finding(check, Mark::Warning, NAME, says).next(step))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::{assert_one, facts, of, planned};
    use super::*;
    use crate::config::Cores;

    fn judged(config: &Config, sysctls: &[(&'static str, &str)]) -> Vec<Finding> {
        let mut facts = planned(config, facts());
        facts.sysctls = sysctls.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        judge(config, &facts)
    }

    #[test]
    fn a_backlog_above_somaxconn_is_cut() {
        let config = Config { backlog: 4096, ..Config::default() };
        let judged = |value| judged(&config, &[("net.core.somaxconn", value)]);
        assert_one(&judged("4096"), "network.somaxconn", Mark::Ok, &["4096"]);
        let words = ["128", "sysctl -w net.core.somaxconn=4096"];
        assert_one(&judged("128"), "network.somaxconn", Mark::Warning, &words);
        assert!(judged("many").is_empty(), "what is not understood is not judged");
        assert!(judge(&config, &facts()).is_empty(), "nor what is not there");
    }

    #[test]
    fn the_syn_queue_counts_only_without_cookies() {
        let judged = |longest, cookies| {
            let sysctls = [("net.ipv4.tcp_max_syn_backlog", longest), ("net.ipv4.tcp_syncookies", cookies)];
            judged(&Config::default(), &sysctls)
        };
        assert_one(&judged("128", "1"), "network.syn_queue", Mark::Ok, &["does not matter"]);
        assert_one(&judged("128", "0"), "network.syn_queue", Mark::Warning, &["tcp_max_syn_backlog=4096"]);
        assert_one(&judged("4096", "0"), "network.syn_queue", Mark::Ok, &[]);
        assert_one(&judged("1", "0"), "network.syncookies", Mark::Note, &["tcp_syncookies=1"]);
        assert_one(&judged("1", "1"), "network.syncookies", Mark::Ok, &[]);
        assert_one(&judged("1", "2"), "network.syncookies", Mark::Warning, &["every connection"]);
    }

    #[test]
    fn a_reset_on_overflow_is_right_where_it_was_asked_for() {
        let judged = |overload, value| {
            let config = Config { overload, ..Config::default() };
            judged(&config, &[("net.ipv4.tcp_abort_on_overflow", value)])
        };
        let check = "network.abort_on_overflow";
        assert_one(&judged(Overload::Queue, "0"), check, Mark::Ok, &[]);
        assert_one(&judged(Overload::Queue, "1"), check, Mark::Warning, &["tcp_abort_on_overflow=0"]);
        assert_one(&judged(Overload::Reset, "1"), check, Mark::Ok, &["--overload reset"]);
    }

    #[test]
    fn a_queue_is_migrated_only_where_there_is_another() {
        let judged = |cores, value| {
            let config = Config { cores, ..Config::default() };
            judged(&config, &[("net.ipv4.tcp_migrate_req", value)])
        };
        let check = "network.migrate_req";
        assert_one(&judged(Cores::All, "0"), check, Mark::Note, &["tcp_migrate_req=1"]);
        assert_one(&judged(Cores::All, "1"), check, Mark::Ok, &[]);
        assert_one(&judged(Cores::List(vec![2]), "0"), check, Mark::Ok, &[]);
    }

    #[test]
    fn options_that_the_host_does_not_let_work_are_warnings() {
        let config = Config { fastopen: Some(16), busy_poll: Duration::from_micros(50), ..Config::default() };
        let sysctls = [("net.ipv4.tcp_fastopen", "1"), ("net.core.busy_read", "0")];
        let findings = judged(&config, &sysctls);
        assert_one(&findings, "network.fastopen", Mark::Warning, &["tcp_fastopen=3"]);
        assert_one(&findings, "network.busy_poll", Mark::Warning, &["busy_read=50", "CAP_NET_ADMIN"]);
        let findings = judged(&config, &[("net.ipv4.tcp_fastopen", "3"), ("net.core.busy_read", "50")]);
        assert_one(&findings, "network.fastopen", Mark::Ok, &[]);
        assert_one(&findings, "network.busy_poll", Mark::Ok, &[]);
        assert!(judged(&Config::default(), &sysctls).is_empty(), "nobody asked");
        let udp = Config { udp: true, ..config };
        assert!(of(&judged(&udp, &sysctls), "network.fastopen").is_empty(), "no SYN in UDP");
    }
}
