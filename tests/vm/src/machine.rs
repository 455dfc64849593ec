//! The machines, and running the guest's part in one of them.

use std::env;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tempfile::TempDir;

use crate::cli::{Group, Options};

/// The machines by name: CPUs and NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// 48 CPUs, virtio_net with Toeplitz RSS over 48 queues, an interrupt for each direction.
    #[value(name = "48-virtio-rss")]
    VirtioRss48,
    /// 8 CPUs, igb with 8 queues, one interrupt for both directions.
    #[value(name = "8-igb")]
    Igb8,
}

/// What the guest needs of the host's programs, beside what `machine.sh` itself takes.
const GUEST_PROGRAMS: [&str; 2] = ["perf", "irqbalance"];

/// And what the group [`Group::Others`] needs.
const OTHER_SERVERS: [&str; 2] = ["nginx", "haproxy"];

/// Where the programs come from.
const PACKAGES: &str = "apt-get install -y --no-install-recommends qemu-system-x86 busybox-static cpio \
                        xz-utils ethtool iproute2 linux-perf irqbalance nginx-light haproxy";

/// Seconds after which a machine is given up. Only a machine that hangs gets there.
const LIMIT: &str = "3000";

impl Name {
    fn options(self) -> [&'static str; 4] {
        match self {
            Self::VirtioRss48 => ["-c", "48", "-d", "virtio-rss"],
            Self::Igb8 => ["-c", "8", "-d", "igb"],
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs the groups in the machines; false if a check did not hold.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let home = home();
    if let Some(missing) = missing(options, &home) {
        println!("SKIPPED: {missing}");
        return Ok(true);
    }
    let payload = payload()?;
    let mut held = true;
    for name in machines(options) {
        held &= boot(name, options, payload.path(), &home)?;
    }
    Ok(held)
}

fn machines(options: &Options) -> Vec<Name> {
    match options {
        Options { machine, .. } if !machine.is_empty() => machine.clone(),
        Options { quick: true, .. } => vec![Name::VirtioRss48],
        _ => Name::value_variants().to_vec(),
    }
}

fn groups(options: &Options) -> Vec<Group> {
    match options {
        Options { group, .. } if !group.is_empty() => group.clone(),
        Options { quick: true, .. } => vec![Group::Steering, Group::FewQueues],
        _ => Group::value_variants().iter().copied().filter(|&group| group != Group::Others).collect(),
    }
}

/// The programs that these groups need in the guest.
fn guest_programs(options: &Options) -> Vec<&'static str> {
    let others = options.group.contains(&Group::Others);
    GUEST_PROGRAMS.into_iter().chain(OTHER_SERVERS.into_iter().filter(|_| others)).collect()
}

/// Where `setup.sh` puts kernel and qemu.
fn home() -> PathBuf {
    let cache =
        || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/corelocal-vm");
    env::var_os("VM_HOME").map_or_else(cache, PathBuf::from)
}

/// What is missing, and how to get it.
fn missing(options: &Options, home: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, for the network of the machines".to_owned());
    }
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "xz", "ip", "ethtool"];
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> =
        programs.into_iter().chain(guest_programs(options)).filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        return Some(format!("needs {}: {PACKAGES}", missing.join(", ")));
    }
    let kernel = options.kernel.clone().unwrap_or_else(|| home.join("kernel"));
    (!kernel.is_dir()).then(|| format!("needs a kernel in {}: tests/vm/setup.sh", kernel.display()))
}

/// The directory that becomes `/payload`: this program under the names of all, and the profile.
fn payload() -> anyhow::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("vm-test-").tempdir().context("make a directory")?;
    let path = directory.path();
    let program = env::current_exe().context("find this program")?;
    std::fs::copy(&program, path.join("vm")).with_context(|| format!("copy {}", program.display()))?;
    for name in ["server", "tune", "load"] {
        symlink("vm", path.join(name)).with_context(|| format!("link {name}"))?;
    }
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/../../profiles/40g.toml");
    std::fs::copy(profile, path.join("40g.toml")).with_context(|| format!("copy {profile}"))?;
    Ok(directory)
}

/// Runs the groups in one machine; false if a check did not hold.
fn boot(name: Name, options: &Options, payload: &Path, home: &Path) -> anyhow::Result<bool> {
    println!("== {}", name.name());
    let groups: Vec<String> = groups(options).into_iter().map(Group::name).collect();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/machine.sh"));
    command.args(name.options()).args(["-t", LIMIT]).env("VM_HOME", home);
    command.env("VM_PROGRAMS", guest_programs(options).join(" "));
    if let Some(kernel) = &options.kernel {
        command.arg("-k").arg(kernel);
    }
    if options.console {
        command.arg("-v");
    }
    command.arg(payload);
    command.arg(format!("exec ./vm guest --kills {} --group {}", options.kills, groups.join(",")));
    let status = command.status().context("run tests/vm/machine.sh")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("{}: the machine failed ({status})", name.name()),
    }
}
