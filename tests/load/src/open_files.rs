//! The limit of open files (RLIMIT_NOFILE), which is the limit of connections at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Error;

/// Files of the process besides connections and the epoll of each thread: standard streams, and what the C
/// library and whoever uses this library may hold.
const OTHERS: u64 = 32;

/// Raises the soft limit of this process, and so of the processes that it starts, to the hard limit; gives
/// that, `u64::MAX` if there is none.
///
/// # Errors
/// If `setrlimit` fails.
pub fn raise_limit() -> Result<u64, Error> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(Error::system("raise the soft RLIMIT_NOFILE to the hard one"))?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Raises the limit and checks that `connections` at once from `threads` threads are within it.
///
/// # Errors
/// If they are not, with what to do; or as [`raise_limit`].
pub fn allow(connections: u64, threads: usize) -> Result<(), Error> {
    check(connections, threads as u64 + OTHERS, raise_limit()?)
}

fn check(connections: u64, others: u64, limit: u64) -> Result<(), Error> {
    let most = limit.saturating_sub(others);
    if connections > most {
        return Err(Error::OpenFiles { connections, limit, most });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_files_are_refused_with_what_to_do() {
        check(968, 32, 1000).unwrap();
        check(1, 0, u64::MAX).unwrap();
        let error = check(969, 32, 1000).unwrap_err().to_string();
        assert_eq!(
            error,
            "969 connections at once: the hard limit of open files is 1000; give at most 968, or raise the \
             limit as root (ulimit -n in the shell that starts this, LimitNOFILE= of a service)"
        );
        assert!(check(1, 32, 10).is_err());
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_limit().unwrap();
        let now = getrlimit(Resource::Nofile);
        assert_eq!((now.current, now.maximum.unwrap_or(u64::MAX)), (now.maximum, limit));
    }
}
