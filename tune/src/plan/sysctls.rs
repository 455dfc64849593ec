//! Sysctls: raised and never lowered, unless the profile says exactly. Pure.

use super::{Desired, PlanError};
use crate::host::Host;
use crate::profile::{Profile, SysctlWish};
use crate::setting::{Setting, Value};

/// The kernel rounds this one up to a power of two (`rps_sock_flow_sysctl()` in `net/core/sysctl_net_core.c`).
const ROUNDED_UP: &str = "net.core.rps_sock_flow_entries";

pub(super) fn plan(profile: &Profile, host: &Host, desired: &mut Desired) -> Result<(), PlanError> {
    for wish in &profile.sysctls {
        let found = host.sysctls.get(&wish.name).ok_or_else(|| PlanError::NoSysctl(wish.name.clone()))?;
        let value = wanted(wish, found)?;
        desired.settings.insert(Setting::Sysctl(wish.name.clone()), value);
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
            let raised = |(asked, &found): (i64, &i64)| if wish.exact { asked } else { asked.max(found) };
            Ok(Value::Numbers(asked.zip(found).map(raised).collect()))
        }
        (Value::Words(_), Value::Words(_)) if wish.exact => Ok(wish.value.clone()),
        _ => Err(shape()),
    }
}

fn rounded(wish: &SysctlWish, number: i64) -> i64 {
    match u64::try_from(number) {
        Ok(entries @ 1..) if wish.name.as_str() == ROUNDED_UP => entries
            .checked_next_power_of_two()
            .and_then(|entries| i64::try_from(entries).ok())
            .unwrap_or(number),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
