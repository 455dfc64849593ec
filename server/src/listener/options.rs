//! The options that listening sockets have and connections inherit: set once here, not once for each
//! connection.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};
use tune::kernel_files::KernelFiles;

use super::ListenError;
use crate::config::{Config, Keepalive, Mode};

/// Sets all that the configuration asks for. The kernel's `sk_clone()` copies each to the connections.
pub(super) fn set(socket: &Socket, config: &Config, address: SocketAddr) -> Result<(), ListenError> {
    let fail = |operation| ListenError::of(operation, address);
    // For the accept(2) at the end of a drain. io_uring's accepts wait all the same.
    socket.set_nonblocking(true).map_err(fail("set O_NONBLOCK for"))?;
    if !config.busy_poll.is_zero() {
        let time = u32::try_from(config.busy_poll.as_micros()).unwrap_or(u32::MAX);
        socket.set_busy_poll(time).map_err(fail("set SO_BUSY_POLL for"))?;
    }
    if config.udp {
        return Ok(());
    }
    socket.set_tcp_nodelay(config.nodelay).map_err(fail("set TCP_NODELAY for"))?;
    socket.set_keepalive(config.keepalive != Keepalive::Off).map_err(fail("set SO_KEEPALIVE for"))?;
    if let Keepalive::After(idle) = config.keepalive {
        let idle = TcpKeepalive::new().with_time(idle);
        socket.set_tcp_keepalive(&idle).map_err(fail("set TCP_KEEPIDLE for"))?;
    }
    if let Some(time) = config.defer_accept {
        set_number(socket, libc::TCP_DEFER_ACCEPT, seconds(time))
            .map_err(fail("set TCP_DEFER_ACCEPT for"))?;
    }
    if let Some(queue) = config.fastopen {
        set_number(socket, libc::TCP_FASTOPEN, queue.into()).map_err(fail("set TCP_FASTOPEN for"))?;
    }
    if config.mode == Mode::AcceptClose {
        // A close is a reset.
        socket.set_linger(Some(Duration::ZERO)).map_err(fail("set SO_LINGER for"))?;
    }
    Ok(())
}

fn seconds(time: Duration) -> libc::c_int {
    libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX)
}

/// Sets an option of TCP that is a number.
fn set_number(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).expect("4 bytes");
    // SAFETY: the kernel reads `size` bytes, which are `value`'s, and keeps no pointer to them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            std::ptr::from_ref(&value).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What was asked for and the host's settings make void.
pub(crate) fn advice(config: &Config) -> Option<String> {
    config.fastopen?;
    let files = KernelFiles::open("/").ok()?;
    fastopen_advice(&files.read("/proc/sys/net/ipv4/tcp_fastopen").ok()?)
}

/// Bit 1 is `TFO_SERVER_ENABLE` (`Documentation/networking/ip-sysctl.rst`).
fn fastopen_advice(setting: &str) -> Option<String> {
    let bits: u32 = setting.trim().parse().ok()?;
    (bits & 2 == 0).then(|| {
        format!(
            "--fastopen has no effect while net.ipv4.tcp_fastopen is {bits}: sysctl -w \
             net.ipv4.tcp_fastopen={}",
            bits | 2
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_open_that_the_host_has_off_is_said() {
        assert_eq!(fastopen_advice("3\n"), None);
        assert_eq!(fastopen_advice("519"), None);
        let advice = fastopen_advice("1").unwrap();
        assert!(advice.ends_with("sysctl -w net.ipv4.tcp_fastopen=3"), "{advice}");
    }
}
