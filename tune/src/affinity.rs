//! On which CPUs a thread may run, and pinning it to one of them.
//!
//! The masks of rustix and of the C library end at CPU 1023: on a host with more, their `sched_getaffinity(2)` is
//! EINVAL and no thread can be pinned to the others. So the two system calls stand here, with a mask that is as large as
//! any kernel's.
#![allow(unsafe_code)]

use std::io;

use crate::cpu_set::{Cpu, CpuSet, MAX_CPUS};

const WORD_BITS: u32 = libc::c_ulong::BITS;

/// A mask as the system calls take it: bit `c % WORD_BITS` of word `c / WORD_BITS` is CPU `c`.
type Mask = [libc::c_ulong; (MAX_CPUS / WORD_BITS) as usize];

const NO_CPU: Mask = [0; (MAX_CPUS / WORD_BITS) as usize];

/// The CPUs on which the calling thread may run and that are online.
///
/// # Errors
/// Those of `sched_getaffinity(2)`.
pub fn allowed() -> io::Result<CpuSet> {
    let mut mask = NO_CPU;
    // SAFETY: the kernel writes at most the size that it is given, which is the mask's; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..MAX_CPUS).filter(|&cpu| mask[word(cpu)] & bit(cpu) != 0).collect())
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// EINVAL if the CPU does not exist, is offline or is not allowed (cpuset cgroup).
pub fn pin(cpu: Cpu) -> io::Result<()> {
    if cpu >= MAX_CPUS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut mask = NO_CPU;
    mask[word(cpu)] |= bit(cpu);
    // SAFETY: the kernel reads at most the size that it is given, which is the mask's; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn word(cpu: Cpu) -> usize {
    (cpu / WORD_BITS) as usize
}

fn bit(cpu: Cpu) -> libc::c_ulong {
    1 << (cpu % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_files::KernelFiles;

    /// Against another way to ask: the thread's status file, whose list may name CPUs that are offline.
    #[test]
    fn allowed_is_what_the_status_file_says_of_the_cpus_online() {
        let files = KernelFiles::open("/").unwrap();
        let status = files.read("/proc/thread-self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let online = CpuSet::parse_list(&files.read("/sys/devices/system/cpu/online").unwrap()).unwrap();
        let expected = CpuSet::parse_list(list).unwrap().intersection(&online);
        assert_eq!(allowed().unwrap(), expected);
    }

    #[test]
    fn a_pinned_thread_may_run_nowhere_else() {
        for cpu in allowed().unwrap().iter() {
            let pinned = std::thread::spawn(move || {
                pin(cpu).unwrap();
                (allowed().unwrap(), rustix::thread::sched_getcpu())
            });
            assert_eq!(pinned.join().unwrap(), ([cpu].into_iter().collect(), cpu as usize));
        }
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error() {
        for cpu in [1023, 1024, MAX_CPUS - 1, MAX_CPUS, Cpu::MAX] {
            assert!(pin(cpu).is_err(), "{cpu}");
        }
    }
}
