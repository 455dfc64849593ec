//! System calls on plain descriptors, beside the ring. None of them sleeps.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};

use super::kernel::Spliced;
use super::pipe::Pipe;
use super::token::Descriptor;

/// `SO_MEMINFO` of `asm-generic/socket.h`, and how many values it gives (`SK_MEMINFO_VARS` of
/// `linux/sock_diag.h`).
const SO_MEMINFO: libc::c_int = 55;
const SK_MEMINFO_VARS: usize = 9;

/// A descriptor number as a system call takes it.
pub(super) fn raw(number: u32) -> RawFd {
    RawFd::try_from(number).expect("the kernel numbers descriptors in 31 bits")
}

/// Takes an accepted socket over.
fn plain(socket: OwnedFd) -> Descriptor {
    Descriptor::Plain(socket.into_raw_fd().unsigned_abs())
}

/// A connection's socket, for one call.
fn socket(number: u32) -> BorrowedFd<'static> {
    // SAFETY: the worker asks for a connection that it owns and has not closed, so the descriptor is open
    // during the call that each function here makes with it; none keeps it.
    unsafe { BorrowedFd::borrow_raw(raw(number)) }
}

/// As [`super::kernel::Kernel::close_now`].
pub(super) fn close_now(descriptor: Descriptor) {
    if let Descriptor::Plain(number) = descriptor {
        // SAFETY: the worker that accepted the socket, or was given it, owns it, and calls this once, when it
        // asks for nothing more.
        drop(unsafe { OwnedFd::from_raw_fd(raw(number)) });
    }
}

/// As [`super::kernel::Kernel::incoming_cpu`].
pub(super) fn incoming_cpu(number: u32) -> Option<u32> {
    let cpu = sockopt::socket_incoming_cpu(socket(number)).ok()?;
    (cpu <= i32::MAX.unsigned_abs()).then_some(cpu) // -1: none yet
}

/// As [`super::kernel::Kernel::unsent_bytes`].
pub(super) fn unsent_bytes(number: u32) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ (`linux/sockios.h`), writes one int to the address given.
    let result = unsafe { libc::ioctl(raw(number), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) };
    if result == 0 { Ok(bytes.unsigned_abs()) } else { Err(Errno::NOTCONN) }
}

/// As [`super::kernel::Kernel::reset_on_close`].
pub(super) fn reset_on_close(number: u32) {
    // If it fails the connection ends with a FIN.
    let _ = sockopt::set_socket_linger(socket(number), Some(Duration::ZERO));
}

/// As [`super::kernel::Kernel::splice`].
pub(super) fn splice(number: u32, pipe: &Pipe) -> Result<Spliced, Errno> {
    pipe.echo(socket(number))
}

/// As [`super::kernel::Kernel::accept_now`].
pub(super) fn accept_now(listener: BorrowedFd<'_>) -> Result<Descriptor, Errno> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map(plain)
}

/// What the kernel has thrown away instead of queueing it on the socket, modulo 2^32 (`SK_MEMINFO_DROPS`):
/// datagrams, or what would have made a connection of a listener's. `None` on a kernel that does not say.
pub(crate) fn drops(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut values = [0u32; SK_MEMINFO_VARS];
    let mut size = libc::socklen_t::try_from(size_of_val(&values)).expect("36 bytes");
    // SAFETY: the kernel writes at most `size` bytes to the array, and how many it wrote to `size`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    (result == 0 && size as usize == size_of_val(&values)).then_some(values[SK_MEMINFO_VARS - 1])
}
