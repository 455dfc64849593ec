//! The identity of the caller's network namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};

/// A number that no other network namespace has had or will have until the next boot; 1 is the first one. (The inode of
/// `/proc/self/ns/net` is given to another namespace when this one is gone.)
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).expect("8 bytes");
    // SAFETY: the option writes a u64 to `cookie` and its size to `length`; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_namespace_keeps_its_cookie() {
        let cookie = super::cookie().unwrap();
        assert!(cookie > 0);
        assert_eq!(super::cookie().unwrap(), cookie);
    }
}
