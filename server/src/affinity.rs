//! Pins a thread to a CPU.
#![allow(unsafe_code)]

use std::io;

use tune::cpu_set::{Cpu, MAX_CPUS};

const BITS: usize = u64::BITS as usize;

/// Pins the calling thread to one CPU, of any number that a kernel can have (the C library's `cpu_set_t` ends at 1023).
///
/// # Errors
/// EINVAL if the CPU is offline or outside the cpuset.
pub(crate) fn pin_to(cpu: Cpu) -> io::Result<()> {
    let mut mask = [0u64; MAX_CPUS as usize / BITS];
    let cpu = cpu as usize;
    mask[cpu / BITS] |= 1 << (cpu % BITS);
    // SAFETY: the mask is as long as the size says and lives until the call returns; the kernel reads as much of it as
    // it has CPUs (sched_setaffinity(2)).
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
