//! Sysctls: raised and never lowered, unless the profile says exactly. Pure.

use super::{Desired, Kept, PlanError};
use crate::host::Host;
use crate::profile::{Profile, SysctlWish};
use crate::setting::{Setting, Value};

/// The kernel rounds this one up to a power of two (`rps_sock_flow_sysctl()` in
/// `net/core/sysctl_net_core.c`).
const ROUNDED_UP: &str = "net.core.rps_sock_flow_entries";

pub(super) fn plan(profile: &Profile, host: &Host, desired: &mut Desired) -> Result<(), PlanError> {
    for wish in &profile.sysctls {
        let Some(found) = host.sysctls.get(&wish.name) else {
            let reason = format!(
                "{} does not exist on this kernel or in this network namespace; is the name right?",
                wish.name.path()
            );
            desired.cannot(profile.require_sysctls, format!("sysctl.\"{}\"", wish.name), reason)?;
            continue;
        };
        let value = wanted(wish, found)?;
        if asks_less(wish, &value) {
            desired.kept.push(Kept {
                name: wish.name.clone(),
                value: value.clone(),
                asked: wish.value.clone(),
            });
        }
        let (asked, how) = (&wish.value, if wish.exact { "exactly" } else { "at least" });
        let reason = format!("the profile asks for {how} {asked}; the host has {found}");
        desired.set(Setting::Sysctl(wish.name.clone()), value, reason);
    }
    Ok(())
}

fn wanted(wish: &SysctlWish, found: &Value) -> Result<Value, PlanError> {
    let shape = || PlanError::SysctlShape {
        name: wish.name.clone(),
        found: found.clone(),
        asked: wish.value.clone(),
    };
    match (&wish.value, found) {
        (Value::Numbers(asked), Value::Numbers(found)) if asked.len() == found.len() => {
            let asked = asked.iter().map(|&number| rounded(wish, number));
            let raised = |(asked, &found): (i128, &i128)| {
                if wish.exact || is_less(found, asked) { asked } else { found }
            };
            Ok(Value::Numbers(asked.zip(found).map(raised).collect()))
        }
        (Value::Words(_), Value::Words(_)) if wish.exact => Ok(wish.value.clone()),
        _ => Err(shape()),
    }
}

/// True if one number is less than another and not -1, which means "unlimited" in more than one file
/// (`tcp_notsent_lowat` before it was printed as 4294967295, `kernel.sched_rt_runtime_us`): nothing is more.
fn is_less(number: i128, other: i128) -> bool {
    number != -1 && number < other
}

/// True if `value`, which is what the sysctl shall hold, is more than the profile asks for.
fn asks_less(wish: &SysctlWish, value: &Value) -> bool {
    let (Value::Numbers(asked), Value::Numbers(value)) = (&wish.value, value) else { return false };
    !wish.exact && asked.iter().zip(value).any(|(&asked, &value)| rounded(wish, asked) != value)
}

fn rounded(wish: &SysctlWish, number: i128) -> i128 {
    if wish.name.as_str() != ROUNDED_UP || number < 1 {
        return number;
    }
    number.unsigned_abs().checked_next_power_of_two().map_or(number, u128::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::super::plan as plan_all;
    use super::*;
    use crate::host::fixture::veth_host;

    #[test]
    fn one_that_the_kernel_lacks_is_skipped_or_refused_where_it_is_required() {
        let planned = |require: &str| {
            let sysctls = "\"net.core.busy_read\" = 50\n\"net.core.somaxconn\" = 8192\n";
            let text = format!("irqbalance = \"coexist\"\n[sysctl]\n{require}{sysctls}");
            plan_all(&Profile::parse(&text, "p").unwrap(), &veth_host(1, 1))
        };
        let desired = planned("").unwrap();
        assert_eq!(desired.skipped[0].wish, "sysctl.\"net.core.busy_read\"");
        assert!(desired.skipped[0].reason.starts_with("/proc/sys/net/core/busy_read does not exist"));
        let somaxconn = Setting::Sysctl("net.core.somaxconn".parse().unwrap());
        assert_eq!(desired.settings[&somaxconn], Value::Numbers(vec![8192]));
        assert!(matches!(planned("require = true\n"), Err(PlanError::Required { .. })));
    }

    fn want(name: &str, asked: &str, exact: bool, found: &str) -> Result<String, String> {
        let wish = SysctlWish { name: name.parse().unwrap(), value: Value::from_sysctl(asked), exact };
        wanted(&wish, &Value::from_sysctl(found))
            .map(|value| value.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_raised_field_by_field() {
        assert_eq!(want("net.core.somaxconn", "4096", false, "128").unwrap(), "4096");
        assert_eq!(want("net.core.somaxconn", "4096", false, "65535").unwrap(), "65535");
        assert_eq!(want("net.core.somaxconn", "4096", true, "65535").unwrap(), "4096");
        assert_eq!(
            want("net.ipv4.tcp_rmem", "4096 131072 16777216", false, "8192\t131072\t6291456").unwrap(),
            "8192 131072 16777216"
        );
    }

    #[test]
    fn unlimited_is_never_lowered_and_what_does_not_fit_an_i64_is_a_number() {
        assert_eq!(want("net.ipv4.tcp_notsent_lowat", "131072", false, "4294967295").unwrap(), "4294967295");
        assert_eq!(want("net.ipv4.tcp_notsent_lowat", "131072", false, "-1").unwrap(), "-1");
        assert_eq!(want("net.ipv4.tcp_notsent_lowat", "131072", true, "-1").unwrap(), "131072");
        let shmmax = "18446744073692774399";
        assert_eq!(want("kernel.shmmax", "68719476736", false, shmmax).unwrap(), shmmax);
        assert_eq!(want("kernel.shmmax", shmmax, false, "68719476736").unwrap(), shmmax);
    }

    #[test]
    fn what_holds_more_than_is_asked_for_is_listed() {
        let profile = Profile::parse(
            "[sysctl]\n\"net.core.somaxconn\" = 128\n\"net.core.a\" = { exact = 1 }\n\"net.core.b\" = \"1 \
             9\"\n\
             \"net.core.rps_sock_flow_entries\" = 33000",
            "p",
        );
        let mut host = veth_host(1, 1);
        let value = |text: &str| Value::from_sysctl(text);
        for (name, text) in [("net.core.a", "2"), ("net.core.b", "2 3"), (ROUNDED_UP, "65536")] {
            host.sysctls.insert(name.parse().unwrap(), value(text));
        }
        let mut desired = Desired::default();
        plan(&profile.unwrap(), &host, &mut desired).unwrap();
        let kept = |name: &str, held: &str, asked: &str| Kept {
            name: name.parse().unwrap(),
            value: value(held),
            asked: value(asked),
        };
        assert_eq!(
            desired.kept,
            [kept("net.core.somaxconn", "4096", "128"), kept("net.core.b", "2 9", "1 9")]
        );
    }

    #[test]
    fn the_rfs_table_is_rounded_as_the_kernel_rounds_it() {
        assert_eq!(want("net.core.rps_sock_flow_entries", "33000", false, "0").unwrap(), "65536");
        assert_eq!(want("net.core.rps_sock_flow_entries", "0", true, "32768").unwrap(), "0");
        assert_eq!(want("net.core.somaxconn", "33000", false, "0").unwrap(), "33000");
    }

    #[test]
    fn words_are_set_and_shapes_must_agree() {
        assert_eq!(want("net.core.default_qdisc", "fq", true, "pfifo_fast").unwrap(), "fq");
        let error = want("net.ipv4.tcp_rmem", "4096", false, "4096 131072 6291456").unwrap_err();
        assert!(error.contains("give a value of that form"), "{error}");
        assert!(want("net.core.default_qdisc", "1", true, "fq").is_err());
    }
}
