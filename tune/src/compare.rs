//! `diff A B`: what differs between two hosts or two profiles. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::setting::{Setting, Value};

/// One difference; `None` is what one of the two does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The kernel path of a setting, or the key of a profile.
    pub path: String,
    /// What the first has.
    pub a: Option<String>,
    /// What the second has.
    pub b: Option<String>,
}

/// The settings that differ, in the order of writing. Values are compared as what they mean.
#[must_use]
pub fn settings(a: &BTreeMap<Setting, Value>, b: &BTreeMap<Setting, Value>) -> Vec<Difference> {
    differences(a, b)
        .map(|(setting, a, b)| Difference {
            path: setting.path(),
            a: a.map(ToString::to_string),
            b: b.map(ToString::to_string),
        })
        .collect()
}

/// The keys that differ between two profiles, in alphabetical order; `net.core.somaxconn` of `[sysctl]` is
/// `sysctl."net.core.somaxconn"`.
///
/// # Errors
/// If a text is not TOML.
pub fn profiles(a: &str, b: &str) -> Result<Vec<Difference>, toml::de::Error> {
    let (a, b) = (keys(a)?, keys(b)?);
    let difference = |(key, a, b): (&String, Option<&String>, Option<&String>)| Difference {
        path: key.clone(),
        a: a.cloned(),
        b: b.cloned(),
    };
    Ok(differences(&a, &b).map(difference).collect())
}

fn differences<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let mut keys: Vec<&K> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().map(|key| (key, a.get(key), b.get(key))).filter(|(_, a, b)| a != b)
}

/// Every key of a profile with its value as TOML has it.
fn keys(text: &str) -> Result<BTreeMap<String, String>, toml::de::Error> {
    let mut keys = BTreeMap::new();
    flatten(&mut keys, "", &toml::from_str::<toml::Table>(text)?);
    Ok(keys)
}

fn flatten(keys: &mut BTreeMap<String, String>, above: &str, table: &toml::Table) {
    for (key, value) in table {
        let is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let key = if is_plain && !key.is_empty() { key.clone() } else { format!("{key:?}") };
        let path = if above.is_empty() { key } else { format!("{above}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(keys, &path, table),
            value => {
                keys.insert(path, value.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::nic_host;

    fn lines(differences: &[Difference]) -> Vec<String> {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        differences.iter().map(|d| format!("{}: {} {}", d.path, shown(&d.a), shown(&d.b))).collect()
    }

    #[test]
    fn settings_that_differ_and_those_that_only_one_host_has() {
        let (a, mut b) = (nic_host(2, 1), nic_host(2, 2));
        b.nics[0].nic.rx_queues[0].rps_cpus = Some("1".parse().unwrap());
        assert_eq!(settings(&a.settings(), &a.settings()), []);
        assert_eq!(
            lines(&settings(&a.settings(), &b.settings())),
            [
                "/proc/irq/41/smp_affinity_list: - 0-1",
                "/sys/class/net/eth0/queues/tx-0/xps_cpus: - 0",
                "/sys/class/net/eth0/queues/tx-1/xps_cpus: - 0",
                "/sys/class/net/eth0/queues/rx-0/rps_cpus: 0 2",
                "/sys/class/net/eth0/queues/rx-1/rps_cpus: - 0",
                "/sys/class/net/eth0/queues/rx-1/rps_flow_cnt: - 0",
            ]
        );
    }

    #[test]
    fn profiles_are_compared_key_by_key_whatever_their_order_and_spelling() {
        let a = "cpus = \"0-3\"\n[queues]\nirq = \"keep\"\nrps_flow_cnt = 0x10\n\
                 [sysctl]\n\"net.core.somaxconn\" = { exact = 4096 }\n";
        let b = "[sysctl]\n\"net.core.somaxconn\".exact = 128\n[queues]\nrps_flow_cnt = 16\nxps = \"off\"\n";
        assert_eq!(
            lines(&profiles(a, b).unwrap()),
            [
                "cpus: \"0-3\" -",
                "queues.irq: \"keep\" -",
                "queues.xps: - \"off\"",
                "sysctl.\"net.core.somaxconn\".exact: 4096 128",
            ]
        );
        assert_eq!(profiles(a, a).unwrap(), []);
        assert!(profiles("a = ", "").is_err());
    }
}
