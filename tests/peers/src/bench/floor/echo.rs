//! Pairs of connected sockets of which one thread drives both ends by system calls.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};

/// Ends of connections, and the message that goes over each.
pub(crate) struct Pairs {
    /// Those that send next.
    pub(crate) from: Vec<OwnedFd>,
    /// Those that receive next.
    pub(crate) to: Vec<OwnedFd>,
    /// The message.
    pub(crate) buffer: Vec<u8>,
}

impl Pairs {
    /// TCP over loopback, with TCP_NODELAY as a server's connections.
    pub(crate) fn tcp(count: usize, size: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on 127.0.0.1")?;
        let address = listener.local_addr().context("the address of a listener")?;
        let pair = || -> std::io::Result<(OwnedFd, OwnedFd)> {
            let one = TcpStream::connect(address)?;
            let (other, _) = listener.accept()?;
            for end in [&one, &other] {
                end.set_nodelay(true)?;
                // Closed by reset: no port is left in TIME_WAIT.
                sockopt::set_socket_linger(end, Some(Duration::ZERO))?;
            }
            Ok((one.into(), other.into()))
        };
        Self::new(count, size, || pair().with_context(|| format!("connect to {address}")))
    }

    /// AF_UNIX stream sockets.
    pub(crate) fn unix(count: usize, size: usize) -> anyhow::Result<Self> {
        let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        Self::new(count, size, || pair().context("socketpair"))
    }

    fn new(
        count: usize,
        size: usize,
        pair: impl Fn() -> anyhow::Result<(OwnedFd, OwnedFd)>,
    ) -> anyhow::Result<Self> {
        let pairs: Vec<_> = (0..count).map(|_| pair()).collect::<anyhow::Result<_>>()?;
        let (from, to) = pairs.into_iter().unzip();
        Ok(Self { from, to, buffer: vec![0; size] })
    }

    /// Who has received sends next.
    pub(crate) fn turn(&mut self) {
        std::mem::swap(&mut self.from, &mut self.to);
    }

    /// A message over each, in the other direction than the last one.
    pub(crate) fn exchange(&mut self) -> anyhow::Result<()> {
        self.turn();
        for (from, to) in self.from.iter().zip(&self.to) {
            let sent = send(from, &self.buffer, SendFlags::empty()).context("send")?;
            let (received, _) = recv(to, &mut *self.buffer, RecvFlags::WAITALL).context("recv")?;
            ensure!(sent == self.buffer.len() && received == sent, "{sent} bytes sent, {received} received");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_and_fro() {
        for mut pairs in [Pairs::tcp(3, 16_384).unwrap(), Pairs::unix(3, 16_384).unwrap()] {
            for _ in 0..3 {
                pairs.exchange().unwrap();
            }
        }
    }
}
