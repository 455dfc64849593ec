//! Failures of the kernel in the middle of an apply, put in by a writer that fails on purpose: everything
//! that was written is undone, in reverse order, and the message says what failed, where and why.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{assert_same_values, contents, copy_of, profile};
use rustix::io::Errno;
use tune::kernel_files::{DirectWrite, KernelFiles, KernelWrite};
use tune::profile::Profile;

/// The changes of `auto.toml` on `virtio-2cpu`: two interrupts, RPS, a sysctl.
const WRITES: usize = 4;

fn auto() -> Profile {
    let text = std::fs::read_to_string(profile("auto.toml")).unwrap();
    Profile::parse(&text, "auto.toml").unwrap()
}

fn state_dir(root: &Path) -> PathBuf {
    root.join("run/corelocal")
}

/// Applies `auto.toml` with this writer; the message of the error.
fn apply_with(root: &Path, writer: impl KernelWrite + 'static) -> Result<(), String> {
    let files = KernelFiles::with_writer(root, writer).unwrap();
    tune::apply_profile(&files, &state_dir(root), &auto()).map(|_| ()).map_err(|error| error.to_string())
}

fn journal_exists(root: &Path) -> bool {
    state_dir(root).join("journal.0.json").exists()
}

/// Numbers the writes from 0 and hands each to `decide`, which may let it through.
fn numbered(
    decide: impl Fn(usize, &Path, &str) -> Option<io::Error> + Send + Sync,
) -> impl Fn(&Path, &str) -> io::Result<()> + Send + Sync {
    let count = AtomicUsize::new(0);
    move |file, value| match decide(count.fetch_add(1, Ordering::Relaxed), file, value) {
        Some(error) => Err(error),
        None => DirectWrite.write(file, value),
    }
}

#[test]
fn whichever_write_fails_and_however_everything_before_it_is_undone() {
    for (errno, name) in [
        (Errno::IO, "EIO"),
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::OVERFLOW, "EOVERFLOW"),
        (Errno::INVAL, "EINVAL"),
        (Errno::NOSPC, "ENOSPC"),
    ] {
        for failing in 0..WRITES {
            let tree = copy_of("virtio-2cpu");
            let before = contents(tree.path());
            let failed = Arc::new(Mutex::new(None));
            let seen = failed.clone();
            let writer = numbered(move |number, file, value| {
                (number == failing).then(|| {
                    *seen.lock().unwrap() = Some((file.to_owned(), value.to_owned()));
                    errno.into()
                })
            });
            let message = apply_with(tree.path(), writer).unwrap_err();

            let (file, value) = failed.lock().unwrap().clone().expect("the write was tried");
            let root = std::fs::canonicalize(tree.path()).unwrap();
            let path = kernel_path(&root, &file);
            assert!(message.starts_with(&format!("write \"{value}\" to {path}: {name}")), "{message}");
            assert!(message.contains("undone"), "{message}");
            assert!(!message.contains('\n'), "{message}");
            assert_same_values(&contents(tree.path()), &before);
            assert!(!journal_exists(tree.path()), "write {failing}: nothing is left to restore");
        }
    }
}

/// The kernel's path of a file below the root: the links of /sys/class/net are resolved in `file`.
fn kernel_path(root: &Path, file: &Path) -> String {
    let path = format!("/{}", file.strip_prefix(root).unwrap().display());
    match path.split_once("/net/eth0/") {
        Some((_, rest)) if path.starts_with("/sys/") => format!("/sys/class/net/eth0/{rest}"),
        _ => path,
    }
}

#[test]
fn there_are_as_many_writes_as_the_cases_assume() {
    let tree = copy_of("virtio-2cpu");
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let writer = numbered(move |number, _, _| {
        seen.store(number + 1, Ordering::Relaxed);
        None
    });
    apply_with(tree.path(), writer).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), WRITES);
}

/// As `net.core.rps_default_mask` does: EOVERFLOW, and the old value is gone all the same.
#[test]
fn a_failed_write_that_leaves_a_trace_is_undone_as_well() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let writer = numbered(|number, file, _| {
        (number == 2).then(|| {
            DirectWrite.write(file, "0").unwrap();
            Errno::OVERFLOW.into()
        })
    });
    let message = apply_with(tree.path(), writer).unwrap_err();
    assert!(message.contains("EOVERFLOW"), "{message}");
    assert_same_values(&contents(tree.path()), &before);
}

/// As RPS does with isolated CPUs: the write succeeds and the file holds something else.
#[test]
fn a_value_that_the_kernel_alters_is_seen_and_undone() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let writer = |file: &Path, value: &str| {
        let altered = if file.ends_with("rps_cpus") && value == "3" { "1" } else { value };
        DirectWrite.write(file, altered)
    };
    let message = apply_with(tree.path(), writer).unwrap_err();
    assert!(message.contains("write \"3\" to /sys/class/net/eth0/queues/rx-0/rps_cpus"), "{message}");
    assert!(message.contains("reads back \"1\""), "{message}");
    assert_same_values(&contents(tree.path()), &before);
}

/// A value that another program changes back right after it was written is found by the last look.
#[test]
fn a_value_that_is_lost_before_the_end_is_seen_and_everything_undone() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let irq = std::fs::canonicalize(tree.path()).unwrap().join("proc/irq/38/smp_affinity_list");
    let old = std::fs::read_to_string(&irq).unwrap().trim().to_owned();
    let writer = numbered(move |number, _, _| {
        if number == WRITES - 1 {
            DirectWrite.write(&irq, &old).unwrap();
        }
        None
    });
    let message = apply_with(tree.path(), writer).unwrap_err();
    assert!(message.contains("/proc/irq/38/smp_affinity_list"), "{message}");
    assert!(message.contains("undone"), "{message}");
    assert_same_values(&contents(tree.path()), &before);
    assert!(!journal_exists(tree.path()));
}

#[test]
fn what_cannot_be_undone_is_said_and_the_journal_kept_for_restore() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let broken = Arc::new(Mutex::new(None::<PathBuf>));
    let seen = broken.clone();
    // The first file takes its new value and never another; a later write fails.
    let writer = numbered(move |number, file, _| {
        let mut broken = seen.lock().unwrap();
        match number {
            0 => {
                *broken = Some(file.to_owned());
                None
            }
            2 => Some(Errno::PERM.into()),
            _ => (broken.as_deref() == Some(file)).then(|| Errno::IO.into()),
        }
    });
    let message = apply_with(tree.path(), writer).unwrap_err();
    assert!(message.contains("EPERM") && message.contains("EIO"), "both failures: {message}");
    assert!(message.contains("NOT wholly undone"), "{message}");
    assert!(message.contains("the journal is kept"), "{message}");
    assert!(journal_exists(tree.path()));

    common::run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
    assert!(!journal_exists(tree.path()));
}

/// The journal of an earlier apply holds the first values; a later apply that fails must not lose them.
#[test]
fn a_failed_second_apply_keeps_the_journal_of_the_first() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    let lab = profile("lab.toml");
    common::run(tree.path(), ["apply", lab.to_str().unwrap()]).expect(0);
    let after_first = contents(tree.path());
    let journal = std::fs::read_to_string(state_dir(tree.path()).join("journal.0.json")).unwrap();

    let message = apply_with(tree.path(), numbered(|number, _, _| (number == 1).then(|| Errno::IO.into())));
    assert!(message.unwrap_err().contains("undone"));
    assert_same_values(&contents(tree.path()), &after_first);
    let kept = std::fs::read_to_string(state_dir(tree.path()).join("journal.0.json")).unwrap();
    assert_eq!(kept, journal);

    common::run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}

#[test]
fn restore_goes_on_after_a_failure_and_keeps_the_journal_until_all_is_back() {
    let tree = copy_of("virtio-2cpu");
    let before = contents(tree.path());
    apply_with(tree.path(), DirectWrite).unwrap();
    let failing = numbered(|_, file, _| file.ends_with("rps_cpus").then(|| Errno::IO.into()));
    let files = KernelFiles::with_writer(tree.path(), failing).unwrap();
    let restored = tune::restore(&files, &state_dir(tree.path())).unwrap();
    assert_eq!(restored.failed.len(), 1, "{restored:?}");
    assert!(restored.failed[0].contains("EIO"), "{restored:?}");
    assert_eq!(restored.written.len(), WRITES - 1, "the others are back: {restored:?}");
    assert!(journal_exists(tree.path()));

    common::run(tree.path(), ["restore"]).expect(0);
    assert_same_values(&contents(tree.path()), &before);
}
