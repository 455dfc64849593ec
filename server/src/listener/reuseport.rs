//! Which socket of a reuseport group gets a connection: the group's program first, then the CPU of each
//! socket, then the hash (`inet_lookup_listener()` in `net/ipv4/inet_hashtables.c`, `udp4_lib_lookup2()` in
//! `net/ipv4/udp.c`).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::Socket;
use tune::cpu_set::Cpu;

use crate::steering::Instruction;

/// What the kernel has for "no CPU": -1 (`sk_incoming_cpu`).
const NO_CPU: u32 = u32::MAX;

/// Prefers this socket of its group for what is received on `cpu`; with `None`, for nothing.
pub(super) fn set_cpu(socket: &Socket, cpu: Option<Cpu>) -> io::Result<()> {
    Ok(sockopt::set_socket_incoming_cpu(socket, cpu.unwrap_or(NO_CPU))?)
}

/// Gives the socket's reuseport group, present or future, its program.
pub(super) fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.operand })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(Errno::INVAL))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the option takes a `struct sock_fprog`; it and the filter it points to live until the call
    // returns, and the kernel copies both.
    unsafe { set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// Takes the program away from the socket's reuseport group.
pub(super) fn detach(socket: &Socket) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the option takes an int, which it does not look at.
    unsafe { set_option(socket, libc::SO_DETACH_REUSEPORT_BPF, &unused) }
}

/// # Safety
/// The kernel must take a `T` for this option of SOL_SOCKET, and what it points to must be there as long.
unsafe fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).expect("a few bytes");
    // SAFETY: the kernel reads `size` bytes, which are `value`'s; that they are right for it the caller says.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
