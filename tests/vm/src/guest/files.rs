//! Everything that `tune` may write, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::programs;

/// Paths and what they hold, and what ethtool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<String, Vec<u8>>);

/// The directories: all interrupts, the queues, all sysctls of the network.
const TREES: [&str; 3] = ["/proc/irq", "/sys/class/net/eth0/queues", "/proc/sys/net"];

/// Files of eth0 itself.
const OF_ETH0: [&str; 3] = ["gro_flush_timeout", "napi_defer_hard_irqs", "threaded"];

/// What ethtool shows of eth0: channels, rings, coalescing, features, RSS.
const ETHTOOL: [&str; 5] = ["-l", "-g", "-c", "-k", "-x"];

/// Names of what is counted or reported there, and nobody sets.
const COUNTED: [&str; 6] = [
    "byte_queue_limits",
    "spurious",
    "effective_affinity",
    "effective_affinity_list",
    "tx_timeout",
    "nf_conntrack_count",
];

impl Files {
    /// Reads them all.
    pub(super) fn read() -> Result<Self> {
        let mut files = BTreeMap::new();
        for tree in TREES {
            add_tree(Path::new(tree), &mut files).with_context(|| format!("read {tree}"))?;
        }
        for name in OF_ETH0 {
            add_file(&Path::new("/sys/class/net/eth0").join(name), &mut files);
        }
        for option in ETHTOOL {
            let said = programs::run("ethtool", &[option, "eth0"])?;
            files.insert(format!("ethtool {option} eth0"), said.stdout.into_bytes());
        }
        Ok(Self(files))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The same without the interrupts' affinities, for as long as irqbalance moves them.
    pub(super) fn without_interrupts(mut self) -> Self {
        self.0.retain(|path, _| !path.starts_with("/proc/irq/"));
        self
    }

    /// In what the other differs, a text each.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let text = |bytes: Option<&Vec<u8>>| {
            bytes.map_or("gone".to_owned(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
        };
        let paths: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let pairs = paths.into_iter().map(|path| (path, self.0.get(path), other.0.get(path)));
        let different = pairs.filter(|(_, before, after)| before != after);
        different
            .map(|(path, before, after)| format!("{path}: {} -> {}", text(before), text(after)))
            .collect()
    }
}

fn add_tree(directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if COUNTED.iter().any(|name| *name == entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            add_tree(&entry.path(), files)?;
        } else {
            add_file(&entry.path(), files);
        }
    }
    Ok(())
}

/// A file that cannot be read (write-only sysctls) is left out.
fn add_file(path: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    if let Ok(bytes) = fs::read(path) {
        files.insert(path.display().to_string(), bytes);
    }
}
