//! On which CPUs a thread may run, and setting them.
//!
//! The masks of rustix and of the C library end at CPU 1023: on a host with more, their
//! `sched_getaffinity(2)` is EINVAL and no thread can be pinned to the others. So the two system calls stand
//! here, with a mask that is as large as any kernel's.
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
    allowed_of(0)
}

/// The CPUs on which a thread may run and that are online; 0 is the calling thread.
///
/// # Errors
/// ESRCH if there is no such thread, and the others of `sched_getaffinity(2)`.
pub fn allowed_of(thread: u32) -> io::Result<CpuSet> {
    let thread = number(thread)?;
    let mut mask = NO_CPU;
    // SAFETY: the kernel writes at most the size that it is given, which is the mask's.
    let result = unsafe { libc::sched_getaffinity(thread, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
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
    set_of(0, &CpuSet::from_iter([cpu]))
}

/// Sets the CPUs on which a thread may run; 0 is the calling thread.
///
/// # Errors
/// EINVAL if none of the CPUs exists, is online and is allowed (cpuset cgroup), or the kernel lets nobody
/// move this thread; ESRCH if there is no such thread; EPERM for the thread of another user without
/// CAP_SYS_NICE.
pub fn set_of(thread: u32, cpus: &CpuSet) -> io::Result<()> {
    let thread = number(thread)?;
    let mut mask = NO_CPU;
    for cpu in cpus.iter() {
        mask[word(cpu)] |= bit(cpu);
    }
    // SAFETY: the kernel reads at most the size that it is given, which is the mask's.
    let result = unsafe { libc::sched_setaffinity(thread, size_of::<Mask>(), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn number(thread: u32) -> io::Result<libc::pid_t> {
    thread.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
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
    fn another_thread_is_asked_and_set_by_its_number() {
        let (number, numbers) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            number.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            let _ = ended.recv();
        });
        let number = numbers.recv().unwrap();
        let before = allowed_of(number).unwrap();
        let last = before.iter().last().unwrap();
        set_of(number, &CpuSet::from_iter([last])).unwrap();
        assert_eq!(allowed_of(number).unwrap(), CpuSet::from_iter([last]));
        set_of(number, &before).unwrap();
        assert_eq!(allowed_of(number).unwrap(), before);
        assert!(set_of(number, &CpuSet::new()).is_err());
        drop(end);
        thread.join().unwrap();
        assert!(allowed_of(u32::MAX).is_err());
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error() {
        for cpu in [1023, 1024, MAX_CPUS - 1, MAX_CPUS, Cpu::MAX] {
            assert!(pin(cpu).is_err(), "{cpu}");
        }
    }
}
