//! `--numa`: all that a worker allocates is on its core's node.
#![allow(unsafe_code)]

use std::io;

use tune::cpu_set::Cpu;
use tune::kernel_files::KernelFiles;

/// Bits of the node mask: the kernel's largest `MAX_NUMNODES`.
const NODES: usize = 1024;

/// Lets the calling thread's memory, its ring's among it, come from the node of this CPU only. No node known:
/// nothing to bind to.
///
/// # Errors
/// Of `set_mempolicy(2)`: EINVAL if the node has no memory that this process may use.
pub(crate) fn bind(cpu: Cpu) -> io::Result<()> {
    let Some(node) = node_of(cpu).filter(|&node| node < NODES) else { return Ok(()) };
    let mut mask = [0u64; NODES / 64];
    mask[node / 64] |= 1 << (node % 64);
    // SAFETY: the kernel reads `maxnode - 1` bits of the mask, which has that many, and keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, mask.as_ptr(), NODES + 1) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The node of a CPU: `nodeN` in its directory (`Documentation/ABI/stable/sysfs-devices-node`).
fn node_of(cpu: Cpu) -> Option<usize> {
    let files = KernelFiles::open("/").ok()?;
    let names = files.list(&format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    names.iter().find_map(|name| name.strip_prefix("node")?.parse().ok())
}
