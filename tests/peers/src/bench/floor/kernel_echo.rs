//! Connections whose other ends are echoed in the kernel.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;
use rustix::net::sockopt;

use super::bpf::KernelEcho;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The clients' ends.
pub(crate) struct Clients {
    clients: Vec<TcpStream>,
    message: Vec<u8>,
    /// Open as long as the clients are.
    _servers: Vec<TcpStream>,
    _echo: KernelEcho,
}

impl Clients {
    pub(crate) fn new(count: u32, size: usize) -> anyhow::Result<Self> {
        let echo = KernelEcho::new(count)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on 127.0.0.1")?;
        let address = listener.local_addr().context("the address of a listener")?;
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let client = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
            let (server, _) = listener.accept().context("accept")?;
            for end in [&client, &server] {
                end.set_nodelay(true).context("set TCP_NODELAY")?;
                // Closed by reset: no port is left in TIME_WAIT.
                sockopt::set_socket_linger(end, Some(Duration::ZERO)).context("set SO_LINGER")?;
            }
            client.set_read_timeout(Some(PATIENCE)).context("set SO_RCVTIMEO")?;
            echo.add(&server)?;
            clients.push(client);
            servers.push(server);
        }
        Ok(Self { clients, message: vec![0; size], _servers: servers, _echo: echo })
    }

    /// A message to each, and back.
    pub(crate) fn exchange(&mut self) -> anyhow::Result<()> {
        for client in &mut self.clients {
            client.write_all(&self.message).context("send to the kernel's echo")?;
        }
        for client in &mut self.clients {
            client.read_exact(&mut self.message).context("receive from the kernel's echo")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back_though_nobody_reads() {
        let mut clients = match Clients::new(3, 5000) {
            Err(error) if super::super::may_not(&error) => return eprintln!("SKIPPED: {error:#}"),
            clients => clients.unwrap(),
        };
        clients.message = (0..5000u32).map(|place| (place % 251).to_le_bytes()[0]).collect();
        let sent = clients.message.clone();
        clients.exchange().unwrap();
        assert!(clients.message == sent);
    }
}
