//! A network namespace by its name, as `ip netns` keeps them: `/run/netns/NAME`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::mount::{mount, mount_change, move_mount, open_tree};

use crate::errno::describe;

/// Where `ip netns add` binds them.
const DIRECTORY: &str = "/run/netns";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Why a namespace was not entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No name of a file.
    #[error("\"{}\" is no name of a network namespace; \"ip netns list\" has them", .0.escape_debug())]
    Name(String),
    /// A system call failed.
    #[error("{operation}: {}{}", describe(error), hint(error))]
    System {
        /// The call and its object.
        operation: String,
        /// What it said.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; \"ip netns list\" has the names",
        io::ErrorKind::PermissionDenied => "; run it as root (CAP_SYS_ADMIN)",
        io::ErrorKind::InvalidInput => "; it is no network namespace",
        _ => "",
    }
}

fn failed<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> EnterError {
    |error| EnterError::System { operation: operation.into(), error: error.into() }
}

/// Moves this process, which must have one thread, into the namespace for good, and gives it mounts of its
/// own in which `/sys` shows that namespace: a sysfs mount belongs to the network namespace of whoever
/// mounted it. All other files, `/run` with the journals among them, stay the host's, and so does what lies
/// below `/sys/fs/cgroup`.
///
/// # Errors
/// If there is no such namespace, or the caller lacks CAP_SYS_ADMIN.
pub fn enter(name: &str) -> Result<(), EnterError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(EnterError::Name(name.to_owned()));
    }
    let path = format!("{DIRECTORY}/{name}");
    // Whatever lies there, setns(2) says if it is no namespace; a pipe is not waited for until then.
    let mut plainly = OpenOptions::new();
    plainly.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let namespace = plainly.open(&path).map_err(failed(format!("open network namespace {path}")))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(failed(format!("setns into {path}")))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare of the mounts"))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(failed("make the mounts private below /"))?;
    // A host without cgroups has nothing to keep.
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cgroups = open_tree(CWD, CGROUPS, clone).ok();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("sysfs", "/sys", "sysfs", flags, None).map_err(failed("mount sysfs on /sys"))?;
    if let Some(cgroups) = cgroups {
        move_mount(&cgroups, "", CWD, CGROUPS, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(failed(format!("mount the host's cgroups on {CGROUPS}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_file_in_one_directory() {
        for name in ["", ".", "..", "../../proc/1/ns/net", "a/b", "a\0b"] {
            assert!(matches!(enter(name), Err(EnterError::Name(_))), "{name:?}");
        }
        let error = enter("no-such-namespace").unwrap_err().to_string();
        assert_eq!(
            error,
            "open network namespace /run/netns/no-such-namespace: ENOENT: no such file or directory; \
             \"ip netns list\" has the names"
        );
    }
}
