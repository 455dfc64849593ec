//! What connections have of their listener: options, and what comes with the SYN.

use super::*;

#[test]
fn connections_inherit_nodelay_and_keepalive() {
    let expected = [
        (true, Keepalive::Off, false, None),
        (false, Keepalive::Host, true, None),
        (true, Keepalive::After(Duration::from_secs(77)), true, Some(Duration::from_secs(77))),
    ];
    for (nodelay, keepalive, alive, idle) in expected {
        let (_client, server) = connection(&Config { nodelay, keepalive, ..config(&[LOOPBACK]) });
        assert_eq!(server.tcp_nodelay().unwrap(), nodelay);
        assert_eq!(server.keepalive().unwrap(), alive, "{keepalive:?}");
        if let Some(idle) = idle {
            assert_eq!(server.tcp_keepalive_time().unwrap(), idle);
        }
    }
}

#[test]
fn accept_close_connections_are_reset_by_their_close() {
    let (mut client, server) = connection(&Config { mode: Mode::AcceptClose, ..config(&[LOOPBACK]) });
    assert_eq!(server.linger().unwrap(), Some(Duration::ZERO), "inherited");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (mut client, server) = connection(&config(&[LOOPBACK]));
    assert_eq!(server.linger().unwrap(), None);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn deferred_accepts_wait_for_the_first_bytes() {
    let config = Config { defer_accept: Some(Duration::from_secs(30)), ..config(&[LOOPBACK]) };
    let listeners = listening(&config, &[0]);
    let silent = TcpStream::connect(listeners.addresses()[0]).unwrap();
    let mut talks = TcpStream::connect(listeners.addresses()[0]).unwrap();
    talks.write_all(b"first bytes").unwrap();
    let first = accept(&listeners.descriptors().unwrap()[0][0]);
    let peer = first.peer_addr().unwrap().as_socket().unwrap();
    assert_eq!(peer, talks.local_addr().unwrap(), "not {:?}, which came first", silent.local_addr());
}

#[test]
fn connections_inherit_busy_polling() {
    let tcp = Config { busy_poll: Duration::from_micros(50), ..config(&[LOOPBACK]) };
    match Listeners::bind(&tcp, &[0]) {
        // Older kernels.
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("set SO_BUSY_POLL for 127.0.0.1:0: EPERM: "), "{message}");
            return skipped("needs CAP_NET_ADMIN on this kernel");
        }
        Ok(listeners) => drop(listeners),
    }
    assert_eq!(connection(&tcp).1.busy_poll().unwrap(), 50);
    let sockets = Listeners::bind(&Config { udp: true, ..tcp }, &[0]).unwrap().descriptors().unwrap();
    assert_eq!(SockRef::from(&sockets[0][0]).busy_poll().unwrap(), 50);
}

/// A network namespace for the calling thread, with its loopback up.
fn own_network() -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped("needs root for a network namespace");
        return false;
    }
    // SAFETY: the contract is about CLONE_FILES, which is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: all zeros is a valid ifreq: it is numbers, and a union of those.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2]
        .copy_from_slice(&[b'l', b'o'].map(|letter| libc::c_char::try_from(letter).unwrap()));
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap();
    // SAFETY: the request reads one ifreq, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    true
}

/// The SYN brings data, and the connection is accepted before it is established.
#[test]
fn with_fast_open_the_syn_brings_the_first_bytes() {
    const CLIENT_SERVER_NO_COOKIES: &str = "519"; // 1, 2, 4, 0x200 of Documentation/networking/ip-sysctl.rst
    const SYN_DATA: u8 = 32; // TCPI_OPT_SYN_DATA
    let in_namespace = || {
        if !own_network() {
            return;
        }
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", CLIENT_SERVER_NO_COOKIES).unwrap();
        for (fastopen, expected) in [(Some(16), SYN_DATA), (None, 0)] {
            let listeners = listening(&Config { fastopen, ..config(&[LOOPBACK]) }, &[0]);
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let address = listeners.addresses()[0].into();
            client.send_to_with_flags(b"early", &address, libc::MSG_FASTOPEN).unwrap();
            let server = accept(&listeners.descriptors().unwrap()[0][0]);
            assert_eq!(tcp_options(&server) & SYN_DATA, expected, "{fastopen:?}");
            let mut early = [0; 5];
            (&server).read_exact(&mut early).unwrap();
            assert_eq!(&early, b"early");
        }
    };
    std::thread::spawn(in_namespace).join().unwrap();
}

fn tcp_options(socket: &Socket) -> u8 {
    // SAFETY: all zeros is a valid tcp_info: it is numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of_val(&info)).unwrap();
    // SAFETY: the kernel writes at most `size` bytes to `info` and their number to `size`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut info).cast(),
            &raw mut size,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    info.tcpi_options
}
