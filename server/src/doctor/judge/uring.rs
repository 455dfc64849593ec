//! Whether io_uring may be used, and as often as there are cores. Pure.

use super::count;
use crate::config::Config;
use crate::doctor::facts::{Cause, Facts};
use crate::doctor::finding::{Finding, Group, Mark};

const DISABLED: &str = "kernel.io_uring_disabled";
const GROUP_OF: &str = "kernel.io_uring_group";

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![allowed(facts)];
    findings.extend(rings(config, facts));
    findings
}

/// As `Documentation/admin-guide/sysctl/kernel.rst` describes the two sysctls.
fn allowed(facts: &Facts) -> Finding {
    let finding =
        |mark, says: String| Finding::new(Group::IoUring, "io_uring.allowed", mark, "io_uring", says);
    let disabled = facts.sysctls.get(DISABLED).map(String::as_str);
    let group = facts.sysctls.get(GROUP_OF).map(String::as_str);
    match (&facts.capabilities, disabled) {
        (Ok(_), Some("1")) => finding(
            Mark::Note,
            format!(
                "allowed to this user; {DISABLED} is 1, so others need CAP_SYS_ADMIN or membership of group \
                 {}",
                group.unwrap_or("-1 (none)")
            ),
        ),
        (Ok(_), Some(setting)) => finding(Mark::Ok, format!("allowed; {DISABLED} is {setting}")),
        (Ok(_), None) => finding(Mark::Ok, format!("allowed; this kernel has no {DISABLED}")),
        (Err(refusal), _) => with_way_out(finding(Mark::Problem, refusal.text.clone()), refusal.cause, facts),
    }
}

/// With what would let this process have what was refused, where that is known.
fn with_way_out(finding: Finding, cause: Cause, facts: &Facts) -> Finding {
    let setting = |name| facts.sysctls.get(name).map(String::as_str);
    match (cause, setting(DISABLED), setting(GROUP_OF)) {
        (Cause::Other, ..) => finding,
        (Cause::Memory, ..) => {
            finding.next("ulimit -l unlimited (LimitMEMLOCK=infinity in the unit), or fewer --cores")
        }
        (Cause::Forbidden, Some("1"), Some(group)) if group != "-1" => {
            finding.next(format!("sysctl -w {DISABLED}=0, or run it as a member of group {group}"))
        }
        (Cause::Forbidden, Some("1" | "2"), _) => finding.next(format!("sysctl -w {DISABLED}=0")),
        (Cause::Forbidden, ..) if facts.process.has_seccomp => finding.next(
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile, as with \
             docker run --security-opt seccomp=PROFILE.json",
        ),
        (Cause::Forbidden | Cause::TooOld, ..) => finding.next(
            "a kernel of 6.1 or later with \
            CONFIG_IO_URING=y",
        ),
    }
}

/// Before the workers make theirs.
fn rings(config: &Config, facts: &Facts) -> Option<Finding> {
    let trial = facts.rings.as_ref()?;
    let finding = |mark, says: String| Finding::new(Group::IoUring, "io_uring.rings", mark, "rings", says);
    Some(match &trial.refusal {
        None => finding(
            Mark::Ok,
            format!(
                "made {}, one for each core, each with {}",
                trial.made,
                count(config.buffers.into(), "buffer")
            ),
        ),
        Some(refusal) => {
            let says = format!("made {} of {}: {}", trial.made, trial.asked, refusal.text);
            with_way_out(finding(Mark::Problem, says), refusal.cause, facts)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_one, facts};
    use super::*;
    use crate::doctor::facts::{Refusal, Rings};

    fn refused(cause: Cause, sysctls: &[(&'static str, &str)], has_seccomp: bool) -> Vec<Finding> {
        let mut facts = facts();
        facts.capabilities = Err(Refusal { text: "io_uring_setup: EPERM".to_owned(), cause });
        facts.rings = None;
        facts.process.has_seccomp = has_seccomp;
        facts.sysctls = sysctls.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        judge(&Config::default(), &facts)
    }

    #[test]
    fn where_io_uring_is_refused_the_way_in_is_named() {
        for (sysctls, has_seccomp, words) in [
            (&[(DISABLED, "2"), (GROUP_OF, "-1")][..], true, &["sysctl -w kernel.io_uring_disabled=0"][..]),
            (&[(DISABLED, "1"), (GROUP_OF, "-1")], false, &["=0"]),
            (&[(DISABLED, "1"), (GROUP_OF, "27")], false, &["=0", "group 27"]),
            (&[(DISABLED, "0"), (GROUP_OF, "-1")], true, &["seccomp"]),
            (&[], true, &["seccomp"]),
            (&[], false, &["CONFIG_IO_URING"]),
        ] {
            let findings = refused(Cause::Forbidden, sysctls, has_seccomp);
            assert_eq!(findings.len(), 1, "no rings are judged that were not tried");
            assert_one(&findings, "io_uring.allowed", Mark::Problem, &[words, &["EPERM"]].concat());
        }
    }

    #[test]
    fn other_refusals_have_other_ways_out() {
        let set = [(DISABLED, "0")];
        let way = |cause| refused(cause, &set, true).swap_remove(0).next;
        assert!(way(Cause::Memory).unwrap().contains("ulimit -l"));
        assert!(way(Cause::TooOld).unwrap().contains("6.1"));
        assert_eq!(way(Cause::Other), None);
    }

    #[test]
    fn a_right_that_others_do_not_have_is_worth_a_note() {
        let mut facts = facts();
        assert_one(&judge(&Config::default(), &facts), "io_uring.allowed", Mark::Ok, &[]);
        facts.sysctls = [(DISABLED, "1".to_owned()), (GROUP_OF, "27".to_owned())].into();
        assert_one(&judge(&Config::default(), &facts), "io_uring.allowed", Mark::Note, &["group 27"]);
    }

    #[test]
    fn too_few_rings_for_the_cores_are_a_problem() {
        let mut facts = facts();
        assert_one(&judge(&Config::default(), &facts), "io_uring.rings", Mark::Ok, &["4", "256 buffers"]);
        let refusal = Refusal { text: "io_uring_setup: ENOMEM".to_owned(), cause: Cause::Memory };
        facts.rings = Some(Rings { asked: 48, made: 23, refusal: Some(refusal) });
        let words = ["23 of 48", "ENOMEM", "ulimit -l unlimited"];
        assert_one(&judge(&Config::default(), &facts), "io_uring.rings", Mark::Problem, &words);
    }
}
