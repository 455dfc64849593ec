//! Reads the facts: the one part of the doctor that asks the kernel. It changes nothing that stays.

mod addresses;
mod cpus;
mod holders;
mod nics;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tune::kernel_files::KernelFiles;

use super::facts::{Cause, Facts, HugePages, Process, Refusal, Rings};
use super::judge::SYSCTLS;
use crate::config::{Config, Feature};
use crate::worker::{self, Capability, SetupError};
use crate::{host, meminfo, privileges, worker_plan};

/// All facts of this host for this configuration.
///
/// # Errors
/// If not even the CPUs can be read.
pub(super) fn gather(config: &Config) -> Result<Facts> {
    let files = KernelFiles::open("/")?;
    let offer = host::offer(config)?;
    let capabilities = capabilities();
    let has_direct = capabilities.as_ref().is_ok_and(|found| found.contains(&Capability::DirectDescriptors));
    let is_direct = has_direct && !config.without.contains(&Feature::DirectDescriptors);
    let plan = worker_plan::plan(config, is_direct, &offer);
    let rings = plan.as_ref().ok().filter(|_| capabilities.is_ok()).map(|plan| {
        let slots = |most: u32| if is_direct { most } else { 0 };
        let slots: Vec<u32> = plan.iter().map(|worker| slots(worker.max_connections)).collect();
        rings(&slots, config.buffers)
    });
    let meminfo = files.read("/proc/meminfo").ok();
    let status = files.read("/proc/self/status").unwrap_or_default();
    Ok(Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        capabilities,
        offer,
        direct_descriptors: is_direct,
        plan,
        rings,
        process: Process::parse(&status, getrlimit(Resource::Memlock).current),
        memory: meminfo.as_deref().and_then(|text| meminfo::bytes(text, "MemAvailable:")),
        huge_pages: meminfo.as_deref().and_then(huge_pages),
        privileges: privileges::check(config).map_err(|error| error.to_string()),
        sysctls: sysctls(&files),
        addresses: addresses::gather(&files, config),
        cpus: cpus::gather(&files)?,
        nics: nics::gather(&files, &config.listen),
    })
}

/// How long the kernel may take to take rings apart, those of a process that has ended, too: until then they
/// count as locked memory of the user, so that want of memory counts the second time.
const TAKING_APART: Duration = Duration::from_millis(200);

fn capabilities() -> Result<BTreeSet<Capability>, Refusal> {
    let tried = worker::capabilities().map_err(|error| refusal(&error));
    match tried {
        Err(Refusal { cause: Cause::Memory, .. }) => {
            std::thread::sleep(TAKING_APART);
            worker::capabilities().map_err(|error| refusal(&error))
        }
        tried => tried,
    }
}

/// A ring for each worker.
fn rings(slots: &[u32], buffers: u16) -> Rings {
    let (mut made, mut error) = worker::try_rings(slots, buffers);
    if error.as_ref().is_some_and(|error| refusal(error).cause == Cause::Memory) {
        std::thread::sleep(TAKING_APART);
        (made, error) = worker::try_rings(slots, buffers);
    }
    Rings { asked: slots.len(), made, refusal: error.as_ref().map(refusal) }
}

fn refusal(error: &SetupError) -> Refusal {
    let cause = match error {
        SetupError::Disabled { .. } => Cause::Forbidden,
        SetupError::TooOld { .. } => Cause::TooOld,
        SetupError::Failed { error, .. } => match Errno::from_io_error(error) {
            Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Cause::Forbidden,
            Some(Errno::NOMEM) => Cause::Memory,
            _ => Cause::Other,
        },
    };
    Refusal { text: error.to_string(), cause }
}

/// The sysctls that exist here and can be read.
fn sysctls(files: &KernelFiles) -> BTreeMap<&'static str, String> {
    let read = |name: &'static str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        Some((name, files.read(&path).ok()?.trim().to_owned()))
    };
    SYSCTLS.into_iter().filter_map(read).collect()
}

/// The huge pages of the text of `/proc/meminfo`; `None` on a kernel without.
fn huge_pages(meminfo: &str) -> Option<HugePages> {
    let number = |name| meminfo::number(meminfo, name);
    Some(HugePages {
        size: meminfo::bytes(meminfo, "Hugepagesize:").filter(|&size| size > 0)?,
        free: number("HugePages_Free:")?.saturating_sub(number("HugePages_Rsvd:")?),
        total: number("HugePages_Total:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_errno() {
        let failed =
            |errno: Errno| SetupError::Failed { operation: "try", error: errno.into(), hint: "; do" };
        for (errno, cause) in [
            (Errno::PERM, Cause::Forbidden),
            (Errno::NOSYS, Cause::Forbidden),
            (Errno::NOMEM, Cause::Memory),
            (Errno::MFILE, Cause::Other),
        ] {
            let refusal = refusal(&failed(errno));
            assert_eq!(refusal.cause, cause);
            assert!(refusal.text.ends_with("; do"), "{}", refusal.text);
        }
    }

    #[test]
    fn huge_pages_that_are_promised_to_others_are_not_free() {
        let text = "HugePages_Total:      10\nHugePages_Free:        8\nHugePages_Rsvd:        3\n\
                    HugePages_Surp:        0\nHugepagesize:       2048 kB\n";
        assert_eq!(huge_pages(text), Some(HugePages { size: 2 << 20, free: 5, total: 10 }));
        assert_eq!(huge_pages("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn every_sysctl_that_is_judged_and_exists_is_read() {
        let found = sysctls(&KernelFiles::open("/").unwrap());
        assert!(found["net.core.somaxconn"].parse::<u32>().is_ok());
        let tree =
            KernelFiles::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hosts/i40e-48cpu")).unwrap();
        let found = sysctls(&tree);
        assert!(found.contains_key("net.core.somaxconn") && !found.contains_key("net.ipv4.tcp_syncookies"));
    }
}
