//! Giving up what the server may do and need not: once its sockets are bound, before it accepts.
//!
//! All of it happens before the first thread is started. Capabilities and no_new_privs belong to a thread and
//! go to those that it starts; user and group the kernel keeps for each thread, too, and only the C library's
//! wrappers change those of all (nptl(7)), which is why they are called here, through `nix`, and not the
//! system calls.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use tune::errno::describe;
use tune::kernel_files::KernelFiles;

use crate::config::Config;

/// Why the server does not run as `--user` and `--group` say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    /// No such name or number in the user database.
    #[error("--{option} {name}: no such {option} here; see `getent {database}`")]
    Unknown {
        /// `user` or `group`
        option: &'static str,
        /// As asked.
        name: String,
        /// `passwd` or `group`
        database: &'static str,
    },
    /// A number that the user database does not know has no group of its own.
    #[error(
        "--user {0}: this number has no entry in the user database, so its group is not known; give --group, \
         too"
    )]
    NoGroup(u32),
    /// The user database can't be read.
    #[error("look --{option} {name} up: {error}", error = describe(error))]
    Lookup {
        /// `user` or `group`
        option: &'static str,
        /// As asked.
        name: String,
        /// What the C library says.
        error: io::Error,
    },
    /// A system call failed.
    #[error("{operation} {object}: {error}{hint}", error = describe(error), hint = hint(error))]
    Failed {
        /// The system call.
        operation: &'static str,
        /// What it was for.
        object: String,
        /// Its error.
        error: io::Error,
    },
    /// The process could become what it was before.
    #[error(
        "{operation} still succeeds after --user {user}: privileges are not gone; a security module or \
         seccomp filter interferes"
    )]
    Regained {
        /// The system call that must fail.
        operation: &'static str,
        /// The new user.
        user: u32,
    },
    /// The new user may not use io_uring.
    #[error(
        "--user {user}: kernel.io_uring_disabled is 1, so that user {user} may not create an io_uring; make \
         one of its groups the kernel.io_uring_group: sysctl -w kernel.io_uring_group={group}"
    )]
    NoRings {
        /// The new user.
        user: u32,
        /// Its group.
        group: u32,
    },
}

/// Whom to become.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// `None`: the user stays.
    uid: Option<Uid>,
    /// The user's name, where it has one: the name that supplementary groups are looked up by.
    name: Option<CString>,
    gid: Gid,
}

/// Becomes `--user` and `--group` and makes sure that there is no way back. In any case the process and what
/// it starts can't gain privileges by execve(2) any more (`PR_SET_NO_NEW_PRIVS`). To be called before there
/// are threads.
///
/// # Errors
/// If the names are unknown, the process may not become another user, or could become the old one again.
pub(crate) fn give_up(config: &Config) -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| failed("prctl", "PR_SET_NO_NEW_PRIVS".to_owned(), errno.into()))?;
    match resolve(config.user.as_deref(), config.group.as_deref())? {
        Some(identity) => identity.assume(),
        None => Ok(()),
    }
}

/// Whether [`give_up`] could do what it is to do. Changes nothing.
///
/// # Errors
/// If the names are unknown, or the process may not become another user.
pub(crate) fn check(config: &Config) -> Result<(), PrivilegeError> {
    let Some(identity) = resolve(config.user.as_deref(), config.group.as_deref())? else { return Ok(()) };
    let refused =
        |error| failed("become", config.user.clone().unwrap_or_else(|| identity.gid.to_string()), error);
    let rights = rustix::thread::capabilities(None).map_err(|errno| refused(errno.into()))?.effective;
    let may = rights.contains(CapabilitySet::SETUID | CapabilitySet::SETGID);
    if may || identity.is_ours().map_err(refused)? { Ok(()) } else { Err(refused(Errno::PERM.into())) }
}

fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, PrivilegeError> {
    let group = group.map(find_group).transpose()?;
    let Some(name) = user else {
        return Ok(group.map(|gid| Identity { uid: None, name: None, gid }));
    };
    let identity = match find_user(name)? {
        Found::Entry(user) => Identity {
            uid: Some(user.uid),
            gid: group.unwrap_or(user.gid),
            name: CString::new(user.name).ok(),
        },
        Found::Number(uid) => Identity {
            uid: Some(Uid::from_raw(uid)),
            gid: group.ok_or(PrivilegeError::NoGroup(uid))?,
            name: None,
        },
    };
    Ok(Some(identity))
}

enum Found {
    Entry(User),
    /// A number without an entry.
    Number(u32),
}

/// As chown(1): a name first, then a number.
fn find_user(name: &str) -> Result<Found, PrivilegeError> {
    let lookup = |errno: nix::Error| PrivilegeError::Lookup {
        option: "user",
        name: name.to_owned(),
        error: errno.into(),
    };
    if let Some(user) = User::from_name(name).map_err(lookup)? {
        return Ok(Found::Entry(user));
    }
    let Some(number) = number(name) else {
        return Err(PrivilegeError::Unknown { option: "user", name: name.to_owned(), database: "passwd" });
    };
    let user = User::from_uid(Uid::from_raw(number)).map_err(lookup)?;
    Ok(user.map_or(Found::Number(number), Found::Entry))
}

fn find_group(name: &str) -> Result<Gid, PrivilegeError> {
    let group = Group::from_name(name).map_err(|errno| PrivilegeError::Lookup {
        option: "group",
        name: name.to_owned(),
        error: errno.into(),
    })?;
    let unknown = || PrivilegeError::Unknown { option: "group", name: name.to_owned(), database: "group" };
    group.map(|group| group.gid).or_else(|| number(name).map(Gid::from_raw)).ok_or_else(unknown)
}

/// A user or group number; -1 means "leave as it is" to the system calls, so it is none.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number != u32::MAX)
}

impl Identity {
    fn assume(&self) -> Result<(), PrivilegeError> {
        if self.is_ours().map_err(|error| failed("getresuid", "of this process".to_owned(), error))? {
            return Ok(());
        }
        let before = (Uid::effective(), Gid::effective());
        raise_locked_memory();
        self.set_groups()?;
        if let Some(uid) = self.uid.filter(|uid| !uid.is_root()) {
            nix::unistd::setresuid(uid, uid, uid)
                .map_err(|errno| failed("setresuid", uid.to_string(), errno.into()))?;
            // The kernel takes them away when root becomes somebody else, but not when another user does who
            // has them.
            let none = CapabilitySet::empty();
            let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, none)
                .map_err(|errno| failed("capset", "to none".to_owned(), errno.into()))?;
            self.check_that_it_is_final(uid, before)?;
            self.check_that_there_will_be_rings(uid)?;
        }
        Ok(())
    }

    /// Whether an unprivileged process has this user and group already, as when a service manager has set
    /// them.
    fn is_ours(&self) -> io::Result<bool> {
        let (uids, gids) = (nix::unistd::getresuid()?, nix::unistd::getresgid()?);
        let users = [uids.real, uids.effective, uids.saved];
        let groups = [gids.real, gids.effective, gids.saved];
        let user = self.uid.unwrap_or(uids.effective);
        Ok(!user.is_root() && users == [user; 3] && groups == [self.gid; 3])
    }

    fn set_groups(&self) -> Result<(), PrivilegeError> {
        match &self.name {
            Some(name) => nix::unistd::initgroups(name, self.gid)
                .map_err(|errno| failed("initgroups", name.to_string_lossy().into_owned(), errno.into())),
            None => nix::unistd::setgroups(&[self.gid])
                .map_err(|errno| failed("setgroups", self.gid.to_string(), errno.into())),
        }?;
        nix::unistd::setresgid(self.gid, self.gid, self.gid)
            .map_err(|errno| failed("setresgid", self.gid.to_string(), errno.into()))
    }

    /// Tries to go back.
    fn check_that_it_is_final(&self, uid: Uid, before: (Uid, Gid)) -> Result<(), PrivilegeError> {
        let regained = |operation| PrivilegeError::Regained { operation, user: uid.as_raw() };
        let (old_uid, old_gid) = before;
        if nix::unistd::setuid(Uid::from_raw(0)).is_ok()
            || old_uid != uid && nix::unistd::seteuid(old_uid).is_ok()
        {
            return Err(regained("setuid to the old user"));
        }
        if old_gid != self.gid && nix::unistd::setegid(old_gid).is_ok() {
            return Err(regained("setgid to the old group"));
        }
        if nix::unistd::setgroups(&[old_gid]).is_ok() {
            return Err(regained("setgroups"));
        }
        Ok(())
    }

    /// The workers make their rings as the new user. Whether this process could, which had more rights, says
    /// nothing.
    fn check_that_there_will_be_rings(&self, uid: Uid) -> Result<(), PrivilegeError> {
        let read = |name| {
            let files = KernelFiles::open("/").ok()?;
            files.read(&format!("/proc/sys/kernel/{name}")).ok()?.trim().parse::<i64>().ok()
        };
        let (disabled, group) = (read("io_uring_disabled"), read("io_uring_group"));
        let groups = nix::unistd::getgroups().unwrap_or_default();
        let groups = groups.into_iter().chain([self.gid]).map(Gid::as_raw).collect::<Vec<u32>>();
        if may_use_io_uring(disabled, group, &groups) {
            Ok(())
        } else {
            Err(PrivilegeError::NoRings { user: uid.as_raw(), group: self.gid.as_raw() })
        }
    }
}

/// RLIMIT_MEMLOCK, as high as this process may have it. The memory of rings, about 350 KiB for each worker,
/// counts against it only for those without CAP_IPC_LOCK (`ctx->user` in `io_uring/io_uring.c`), so that the
/// rings of 48 workers do not fit the usual 8 MiB of a user while those of root do.
fn raise_locked_memory() {
    let maximum = getrlimit(Resource::Memlock).maximum;
    if setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err() {
        // Without CAP_SYS_RESOURCE. If this fails, too, the old limit is what there is; a ring that does not
        // fit says so.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    }
}

/// `io_uring_allowed()` in `io_uring/io_uring.c`, for a process without capabilities; before 6.6 there are no
/// such settings.
fn may_use_io_uring(disabled: Option<i64>, group: Option<i64>, groups: &[u32]) -> bool {
    match disabled {
        None | Some(0) => true,
        Some(1) => groups.iter().any(|&own| Some(i64::from(own)) == group),
        Some(_) => false,
    }
}

fn failed(operation: &'static str, object: String, error: io::Error) -> PrivilegeError {
    PrivilegeError::Failed { operation, object, error }
}

fn hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => {
            "; only root, or who has CAP_SETUID and CAP_SETGID, can become another user: start as root, or \
             leave --user and --group out"
        }
        Some(Errno::INVAL) => "; in a user namespace only the numbers of its uid_map and gid_map exist",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
