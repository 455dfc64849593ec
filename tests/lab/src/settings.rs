//! Every value that a tuning could have changed, read back as text.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tune::kernel_files::{KernelFileError, KernelFiles};

use crate::namespace::Namespace;

/// Files below `/proc/sys/net` that count instead of set.
const COUNTERS: [&str; 1] = ["/proc/sys/net/netfilter/nf_conntrack_count"];

/// The queue files of an interface (RPS, RFS, XPS) and all sysctls below `net`, as one network namespace
/// shows them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<String, String>);

/// One value that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The file.
    pub(crate) path: String,
    /// What it held; none if it did not exist or could not be read.
    pub(crate) before: Option<String>,
    /// What it holds.
    pub(crate) after: Option<String>,
}

impl Settings {
    /// Reads them in `namespace` for `interface`.
    pub(crate) fn read(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        namespace.run(|| {
            let files = KernelFiles::open("/")?;
            let mut values = BTreeMap::new();
            for directory in [&format!("/sys/class/net/{interface}/queues"), "/proc/sys/net"] {
                for name in files.list(directory)? {
                    collect(&files, &format!("{directory}/{name}"), &mut values)?;
                }
            }
            Ok(Self(values))
        })?
    }

    /// The values of `self` that are not those of `before`.
    pub(crate) fn differences(&self, before: &Self) -> Vec<Difference> {
        let mut paths: Vec<&String> = before.0.keys().chain(self.0.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let difference = |path: &String| Difference {
            path: path.clone(),
            before: before.0.get(path).cloned(),
            after: self.0.get(path).cloned(),
        };
        paths.into_iter().map(difference).filter(|difference| difference.before != difference.after).collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |value: &Option<String>| value.as_ref().map_or("nothing".to_owned(), |text| format!("{text:?}"));
        write!(f, "{} held {} and holds {}", self.path, text(&self.before), text(&self.after))
    }
}

/// Adds a file, or all files below a directory. Files that cannot be read (write-only sysctls, XPS files of a
/// kernel without XPS) cannot be compared and are left out.
fn collect(
    files: &KernelFiles,
    path: &str,
    values: &mut BTreeMap<String, String>,
) -> Result<(), KernelFileError> {
    if let Some(names) = files.list_optional(path)? {
        return names.iter().try_for_each(|name| collect(files, &format!("{path}/{name}"), values));
    }
    if !COUNTERS.contains(&path)
        && let Ok(text) = files.read(path)
    {
        values.insert(path.to_owned(), text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_what_changed_came_and_went() {
        let settings = |values: &[(&str, &str)]| {
            Settings(values.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect())
        };
        let before = settings(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let after = settings(&[("a", "1"), ("b", "5"), ("d", "4")]);
        let differences = after.differences(&before);
        let found: Vec<_> =
            differences.iter().map(|d| (&*d.path, d.before.as_deref(), d.after.as_deref())).collect();
        assert_eq!(found, [("b", Some("2"), Some("5")), ("c", Some("3"), None), ("d", None, Some("4"))]);
        assert_eq!(before.differences(&before), []);
        assert_eq!(differences[1].to_string(), "c held \"3\" and holds nothing");
    }
}
