//! The CPUs on which this process may run: what `sched_getaffinity(2)` says, which is what the cpuset of its
//! cgroup and `taskset` left of the online ones. A captured tree has them in `corelocal/cpus.json`.

use serde::{Deserialize, Serialize};

use super::{HostError, read_optional_as};
use crate::affinity;
use crate::cpu_set::CpuSet;
use crate::errno::describe;
use crate::kernel_files::KernelFiles;

/// Where a captured tree has it.
pub const FILE: &str = "/corelocal/cpus.json";

const SCHEMA: u32 = 1;

/// What stands in [`FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedCpus {
    /// Version of the form.
    pub schema: u32,
    /// The allowed CPUs.
    pub allowed: CpuSet,
}

impl CapturedCpus {
    /// In the present form.
    #[must_use]
    pub fn of(allowed: CpuSet) -> Self {
        Self { schema: SCHEMA, allowed }
    }
}

/// The allowed CPUs; `None` if the tree does not say.
///
/// # Errors
/// If the kernel cannot be asked, or the file of a tree is not understood.
pub fn read(files: &KernelFiles) -> Result<Option<CpuSet>, HostError> {
    if files.is_live() {
        return affinity::allowed().map(Some).map_err(|error| HostError::Allowed(describe(&error)));
    }
    read_optional_as(files, FILE, parse)
}

fn parse(text: &str) -> Result<CpuSet, String> {
    let found: CapturedCpus = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match found.schema {
        SCHEMA => Ok(found.allowed),
        other => Err(format!("schema {other}, known is {SCHEMA}; capture the host again with this tune")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_captured_is_read_back_and_another_form_is_refused() {
        let captured = CapturedCpus::of("0-3,8".parse().unwrap());
        let text = serde_json::to_string(&captured).unwrap();
        assert_eq!(text, r#"{"schema":1,"allowed":"0-3,8"}"#);
        assert_eq!(parse(&text).unwrap(), captured.allowed);
        for (text, part) in [
            (r#"{"schema":2,"allowed":"0"}"#, "schema 2, known is 1"),
            (r#"{"schema":1,"allowed":"x"}"#, "not a CPU number"),
            ("{}", "missing field"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_live_host_says_it_and_a_tree_without_the_file_does_not() {
        let live = KernelFiles::open("/").unwrap();
        assert_eq!(read(&live).unwrap(), Some(affinity::allowed().unwrap()));
        let tree = tempfile::tempdir().unwrap();
        assert_eq!(read(&KernelFiles::open(tree.path()).unwrap()).unwrap(), None);
    }
}
