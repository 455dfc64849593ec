//! `capture`: what tune reads on a host, in one file, so that a plan for it can be reviewed elsewhere: `tune
//! --root FILE`.
//!
//! Nothing here knows which files those are: the interfaces are read as `show` and `plan` read them, and what
//! was asked of [`KernelFiles`] on the way is what is kept.

mod archive;
mod private;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use archive::{ArchiveError, Format, pack, unpack};

use crate::host::allowed::{self, CapturedCpus};
use crate::host::{
    Ethtool, Host, HostError, InterfaceChoice, InterfaceName, SysctlName, ToldMap, netdev, nic,
};
use crate::irqbalance::Irqbalance;
use crate::kernel_files::{KernelFiles, Node, Tree};

/// Sysctls outside of `net` that a profile may well name.
const OTHER_SYSCTLS: [&str; 3] =
    ["kernel.numa_balancing", "kernel.watchdog_cpumask", "kernel.timer_migration"];

/// What was captured.
#[derive(Debug)]
pub struct Capture {
    /// The files, with what is not to leave the host taken out.
    pub tree: Tree,
    /// The interfaces in it.
    pub interfaces: Vec<InterfaceName>,
    /// Those that could not be read, with the reason.
    pub failed: Vec<String>,
}

/// What a capture says of itself, in `corelocal/capture.json`.
#[derive(Serialize)]
struct About<'a> {
    schema: u32,
    command: &'a str,
    tool: String,
    kernel: Option<String>,
    interfaces: &'a [InterfaceName],
}

/// Captures these interfaces, or, if there are none, all that have a device or several queues. `more` are
/// sysctls beside those that [`sysctl_names`] gives.
///
/// # Errors
/// If the interfaces cannot be listed. One that cannot be read is in [`Capture::failed`].
pub fn capture(
    files: KernelFiles,
    interfaces: &[InterfaceName],
    more: &[SysctlName],
) -> Result<Capture, HostError> {
    let files = files.recording();
    let worth_showing = nic::interesting(&files)?;
    let wanted = if interfaces.is_empty() { &worth_showing } else { interfaces };
    let names = sysctl_names(&files);
    let (mut read, mut failed) = (Vec::new(), Vec::new());
    for name in wanted {
        // As show reads it, and then as plan does: what it stands on.
        let shown = Host::read_nics(&files, std::slice::from_ref(name), &[], &ToldMap::default());
        match shown
            .and_then(|_| Host::read(&files, &InterfaceChoice::Named(name.clone()), &[], &ToldMap::default()))
        {
            Ok(host) => {
                // Those of all CPUs, once: a profile chooses among them. A CPU without cpufreq has none.
                if read.is_empty() {
                    let _ = host.with_governors(&files);
                }
                read.push(name.clone());
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    // For the sake of the default route, of which there may be none.
    let _ = Host::read(&files, &InterfaceChoice::Auto, &[], &ToldMap::default());
    for name in names.iter().chain(more) {
        // One that cannot be read is not in the capture, as if it did not exist.
        let _ = files.read_optional(&name.path());
    }
    let kernel = files.read_optional("/proc/sys/kernel/osrelease").ok().flatten();
    let extras = extras(&files, &read).unwrap_or_else(|error| {
        failed.push(error.to_string());
        Vec::new()
    });
    let mut tree = private::without_private(files.recorded());
    let about = About {
        schema: 1,
        command: "capture",
        tool: format!("tune {}", env!("CARGO_PKG_VERSION")),
        kernel,
        interfaces: &read,
    };
    let mut text = serde_json::to_vec_pretty(&about).expect("strings and a number");
    text.push(b'\n');
    tree.insert("/corelocal/capture.json".into(), Node::File { mode: 0o644, text });
    for (path, text) in extras {
        tree.insert(path, Node::File { mode: 0o644, text: text.into_bytes() });
    }
    Ok(Capture { tree, interfaces: read, failed })
}

/// What the kernel, of these interfaces, and irqbalance say by other ways than files, as JSON below
/// `/corelocal/`: each with its path and text, without keys. Of a captured tree that is a file, which is kept
/// like any other.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn extras(files: &KernelFiles, interfaces: &[InterfaceName]) -> Result<Vec<(String, String)>, HostError> {
    if !files.is_live() {
        return Ok(Vec::new());
    }
    let netdev = ("/corelocal/netdev.json".to_owned(), netdev::capture(files)?);
    let mut extras = vec![netdev, Irqbalance::read(files).captured()];
    for name in interfaces {
        let mut ethtool = Ethtool::read(files, name)?;
        if let Some(rss) = &mut ethtool.rss {
            rss.key = None; // who knows it can send everything to one queue
        }
        if ethtool != Ethtool::default() {
            let text = serde_json::to_string_pretty(&ethtool).expect("strings and numbers");
            extras.push((Ethtool::captured_path(name), format!("{text}\n")));
        }
    }
    if let Some(cpus) = allowed::read(files)? {
        let text = serde_json::to_string(&CapturedCpus::of(cpus)).expect("a number and a string");
        extras.push((allowed::FILE.to_owned(), format!("{text}\n")));
    }
    Ok(extras)
}

/// The sysctls of a host that a profile for it may name: those of `net.core`, and of `net.ipv4` those of TCP
/// and the port ranges. None that holds a key.
#[must_use]
pub fn sysctl_names(files: &KernelFiles) -> Vec<SysctlName> {
    let list = |directory: &str, prefixes: &[&str]| -> Vec<SysctlName> {
        let path = format!("/proc/sys/net/{directory}");
        let names = files.list_optional(&path).ok().flatten().unwrap_or_default();
        let names = names.into_iter().filter(|name| {
            prefixes.iter().any(|prefix| name.starts_with(prefix)) && !private::is_secret(name)
        });
        names.filter_map(|name| format!("net.{directory}.{name}").parse().ok()).collect()
    };
    let mut names = list("core", &[""]);
    names.extend(list("ipv4", &["tcp_", "udp_", "ip_local_"]));
    names.extend(OTHER_SYSCTLS.iter().filter_map(|name| name.parse().ok()));
    names
}
