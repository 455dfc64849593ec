//! Processes and threads that may do less than others.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Runs `work` on a thread whose `io_uring_setup(2)` fails with `errno`, as under a container's seccomp
/// profile. A process it starts inherits that; the other threads of the test do not.
pub(crate) fn without_io_uring<T: Send>(errno: i32, work: impl FnOnce() -> T + Send) -> T {
    let fails = SeccompAction::Errno(errno.unsigned_abs());
    let always = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let machine = std::env::consts::ARCH.try_into().expect("a machine that seccompiler knows");
    let filter = SeccompFilter::new(always, SeccompAction::Allow, fails, machine).expect("a valid filter");
    let program: BpfProgram = filter.try_into().expect("a filter that fits");
    std::thread::scope(|scope| {
        let confined = scope.spawn(move || {
            apply_filter(&program).expect("install a seccomp filter");
            work()
        });
        confined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Raises this process's limit of open descriptors, which servers started later inherit, to the hard limit.
/// False if that is less than `needed`.
pub(crate) fn allow_descriptors(needed: u64) -> bool {
    load::open_files::raise_limit().expect("raise the soft limit to the hard one") >= needed
}
