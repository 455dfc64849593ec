//! The addresses of `--listen` and `--metrics`: free, or who has them. Pure.

use crate::doctor::facts::{AddressFacts, Facts, Holder, Purpose};
use crate::doctor::finding::{Finding, Group, Mark};

/// The most holders of a port that are named.
const MOST_NAMED: usize = 4;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    facts.addresses.iter().map(address).collect()
}

fn address(facts: &AddressFacts) -> Finding {
    let (check, option) = match facts.purpose {
        Purpose::Listen => ("address.listen", "--listen"),
        Purpose::Metrics => ("address.metrics", "--metrics"),
    };
    let subject = facts.address.to_string();
    let finding = |mark, says| Finding::new(Group::Addresses, check, mark, subject.as_str(), says);
    let Some(error) = &facts.error else {
        let free = if facts.address.port() == 0 { "the kernel chooses a port" } else { "free" };
        return finding(Mark::Ok, format!("{option}: {free}"));
    };
    if facts.holders.is_empty() {
        return finding(Mark::Problem, format!("{option}: {error}"));
    }
    let mut names: Vec<String> = Vec::new();
    for name in facts.holders.iter().map(name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let says = format!("{option}: {error}: taken by {}{more}", names.join(", "));
    finding(Mark::Problem, says).next(way_out(option, &facts.holders))
}

/// Who it is, as far as it can be seen.
fn name(holder: &Holder) -> String {
    match &holder.process {
        Some((pid, name)) => format!("{name} (pid {pid}) on {}", holder.address),
        None => format!("a process of user {} on {}", holder.uid, holder.address),
    }
}

fn way_out(option: &str, holders: &[Holder]) -> String {
    match holders.iter().find_map(|holder| holder.process.as_ref()) {
        Some((pid, _)) => format!("kill {pid}, or another port for {option}"),
        None => format!("server doctor as root names the process; or another port for {option}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_one, facts};
    use super::*;

    fn judged(address: &str, error: Option<&str>, holders: Vec<Holder>) -> Vec<Finding> {
        let mut facts = facts();
        let (address, error) = (address.parse().unwrap(), error.map(str::to_owned));
        facts.addresses = vec![AddressFacts { address, purpose: Purpose::Listen, error, holders }];
        judge(&facts)
    }

    fn holder(address: &str, process: Option<(u32, &str)>) -> Holder {
        let process = process.map(|(pid, name)| (pid, name.to_owned()));
        Holder { address: address.parse().unwrap(), uid: 33, process }
    }

    #[test]
    fn a_free_port_is_free_and_port_0_is_chosen() {
        assert_one(&judged("[::1]:80", None, vec![]), "address.listen", Mark::Ok, &["free"]);
        assert_one(&judged("[::1]:0", None, vec![]), "address.listen", Mark::Ok, &["kernel chooses"]);
    }

    #[test]
    fn who_has_the_port_is_named_as_far_as_it_can_be_seen() {
        let error = Some("EADDRINUSE: address in use");
        let nginx = || holder("0.0.0.0:80", Some((812, "nginx")));
        let found = judged("10.0.0.1:80", error, vec![nginx(), nginx()]);
        let words = ["EADDRINUSE", "by nginx (pid 812) on 0.0.0.0:80", "kill 812"];
        assert_one(&found, "address.listen", Mark::Problem, &words);
        assert_eq!(found[0].says.matches("nginx").count(), 1, "each once: {}", found[0].says);
        let found = judged("10.0.0.1:80", error, vec![holder("[::]:80", None)]);
        assert_one(&found, "address.listen", Mark::Problem, &["user 33 on [::]:80", "as root"]);
        let many = (1..=6).map(|pid| holder("0.0.0.0:80", Some((pid, "a")))).collect();
        assert_one(&judged("10.0.0.1:80", error, many), "address.listen", Mark::Problem, &["and 2 more"]);
    }

    #[test]
    fn another_error_is_told_as_it_is() {
        let found = judged("192.0.2.1:80", Some("EADDRNOTAVAIL; see `ip address`"), vec![]);
        assert_one(&found, "address.listen", Mark::Problem, &["--listen: EADDRNOTAVAIL; see `ip address`"]);
    }
}
