//! Every value that a tuning could have changed, read back as text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::namespace::Namespace;

/// Files below `/proc/sys/net` that count instead of set.
const COUNTERS: [&str; 1] = ["/proc/sys/net/netfilter/nf_conntrack_count"];

/// The queue files of an interface (RPS, RFS, XPS) and all sysctls below `net`, as one network namespace shows them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<PathBuf, String>);

/// One value that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it held; none if it did not exist or could not be read.
    pub(crate) before: Option<String>,
    /// What it holds.
    pub(crate) after: Option<String>,
}

impl Settings {
    /// Reads them in `namespace` for `interface`.
    pub(crate) fn read(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let queues = PathBuf::from(format!("/sys/class/net/{interface}/queues"));
        namespace.run(|| {
            let mut values = BTreeMap::new();
            for directory in [&queues, Path::new("/proc/sys/net")] {
                collect(directory, &mut values)?;
            }
            Ok(Self(values))
        })?
    }

    /// The values of `self` that are not those of `before`.
    pub(crate) fn differences(&self, before: &Self) -> Vec<Difference> {
        let mut paths: Vec<&PathBuf> = before.0.keys().chain(self.0.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let difference = |path: &PathBuf| Difference {
            path: path.clone(),
            before: before.0.get(path).cloned(),
            after: self.0.get(path).cloned(),
        };
        paths.into_iter().map(difference).filter(|difference| difference.before != difference.after).collect()
    }
}

/// Adds the files below `directory`. Files that cannot be read (write-only sysctls, XPS files of a kernel without
/// XPS) cannot be compared and are left out.
fn collect(directory: &Path, values: &mut BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
    let list = || format!("list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(list)? {
        let entry = entry.with_context(list)?;
        let path = entry.path();
        if entry.file_type().with_context(list)?.is_dir() {
            collect(&path, values)?;
        } else if !COUNTERS.iter().any(|counter| path == Path::new(counter))
            && let Ok(text) = fs::read_to_string(&path)
        {
            values.insert(path, text.trim_end().to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_what_changed_came_and_went() {
        let settings = |values: &[(&str, &str)]| {
            Settings(values.iter().map(|(path, value)| (path.into(), (*value).to_owned())).collect())
        };
        let before = settings(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let after = settings(&[("a", "1"), ("b", "5"), ("d", "4")]);
        let differences = after.differences(&before);
        let found: Vec<_> = differences
            .iter()
            .map(|d| (d.path.to_str().unwrap(), d.before.as_deref(), d.after.as_deref()))
            .collect();
        assert_eq!(found, [("b", Some("2"), Some("5")), ("c", Some("3"), None), ("d", None, Some("4"))]);
        assert_eq!(before.differences(&before), []);
    }
}
