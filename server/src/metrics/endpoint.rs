//! The endpoint's socket and its thread.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tune::errno::describe;

use super::MOST_CLIENTS;
use super::exchange::{Exchange, Progress};
use super::exposition::Exposition;
use super::request::{Request, Resource};
use super::response::{OPENMETRICS, PLAIN, Status, refusal, response};
use crate::control::{self, Control, Phase};
use crate::stats::LiveCore;

/// How long no client is accepted after accepting failed, mostly for want of descriptors or memory.
const BACKOFF: Duration = Duration::from_secs(1);

/// Why the metrics can't be served.
#[derive(Debug, thiserror::Error)]
#[error("serve metrics on {address}: {errno}{hint}", errno = describe(error))]
pub struct EndpointError {
    /// Where.
    address: SocketAddr,
    /// What the kernel said.
    error: io::Error,
    /// What to do next.
    hint: String,
}

/// The endpoint, listening, not yet serving.
#[derive(Debug)]
pub(crate) struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl Endpoint {
    /// Listens on `address`; port 0 lets the kernel choose. Clients wait until [`Endpoint::serve`].
    ///
    /// # Errors
    /// If somebody listens there, the address is not of this host, or the port is privileged.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, EndpointError> {
        let fail = |source| error(address, source);
        let listener = TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was chosen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on a thread of its own until what is returned is dropped. The server is healthy as long as
    /// `control` is in the first phase.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(crate) fn serve(self, cores: Vec<LiveCore>, control: Arc<Control>) -> Result<Served> {
        let wake = control::wake().context("create an eventfd for the metrics")?;
        let until = wake.try_clone().context("duplicate an eventfd for the metrics")?;
        let exposition = Exposition::new(cores, Arc::clone(&control));
        let service = Service { listener: self.listener, until, exposition, control };
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || service.run())
            .context("start the thread of the metrics")?;
        Ok(Served { wake, thread: Some(thread) })
    }
}

fn error(address: SocketAddr, source: io::Error) -> EndpointError {
    let hint = match Errno::from_io_error(&source) {
        Some(Errno::ADDRINUSE) => {
            format!("; see who does: ss -ltnp 'sport = :{}', or choose another port", address.port())
        }
        Some(Errno::ACCESS) => "; ports below 1024 need CAP_NET_BIND_SERVICE or root".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "; no interface here has this address: see `ip address`".to_owned(),
        _ => String::new(),
    };
    EndpointError { address, error: source, hint }
}

/// The running endpoint. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Served {
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        // The counter can't overflow: it is written once.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        // The thread never waits but for this. If it panicked, std has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the thread has.
struct Service {
    listener: TcpListener,
    /// Readable when it is to end.
    until: OwnedFd,
    exposition: Exposition,
    control: Arc<Control>,
}

impl Service {
    fn run(&self) {
        let mut clients: Vec<Exchange> = Vec::new(); // in the order in which they came
        let mut rest_until: Option<Instant> = None;
        loop {
            let Some((accepts, ready)) = self.wait(&clients, rest_until) else { return };
            let now = Instant::now();
            rest_until = rest_until.filter(|&until| until > now);
            let mut ready = ready.into_iter();
            clients.retain_mut(|client| {
                let is_ready = ready.next().unwrap_or(false);
                let over = is_ready && client.progress(now, |request| self.answer(request)) == Progress::Over;
                !over && client.deadline() > now
            });
            if accepts && self.accept(&mut clients, now).is_err() {
                rest_until = Some(now + BACKOFF);
            }
        }
    }

    /// Waits for something to do: whether there is somebody to accept, and which clients' sockets are ready.
    /// `None`: end.
    fn wait(&self, clients: &[Exchange], rest_until: Option<Instant>) -> Option<(bool, Vec<bool>)> {
        let accept = if rest_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&self.until, PollFlags::IN), PollFd::new(&self.listener, accept)];
        fds.extend(clients.iter().map(|client| PollFd::new(client, client.interest())));
        let next = clients.iter().map(Exchange::deadline).chain(rest_until).min();
        let timeout =
            next.and_then(|next| Timespec::try_from(next.saturating_duration_since(Instant::now())).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some((false, Vec::new())),
            Err(_) => {
                thread::sleep(BACKOFF / 10); // out of memory: that may pass
                return Some((false, Vec::new()));
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        (!ready[0]).then(|| (ready[1], ready[2..].to_vec()))
    }

    /// Accepts who waits. The oldest client makes room: one that sends its request at once is served however
    /// many there are that do not.
    fn accept(&self, clients: &mut Vec<Exchange>, now: Instant) -> io::Result<()> {
        for _ in 0..MOST_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if clients.len() >= MOST_CLIENTS {
                        clients.remove(0);
                    }
                    clients.push(Exchange::new(stream, now)?);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The client has gone again: accept(2), "Error handling".
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn answer(&self, request: Request) -> Vec<u8> {
        let (status, content_type, body) = match request.resource {
            Err(status) => return refusal(status, request.head_only),
            Ok(Resource::Metrics) => (Status::Ok, OPENMETRICS, self.exposition.text()),
            Ok(Resource::Health) if self.control.phase() == Phase::Run => {
                (Status::Ok, PLAIN, "ok\n".to_owned())
            }
            Ok(Resource::Health) => (Status::Unavailable, PLAIN, "draining\n".to_owned()),
        };
        response(status, content_type, &body, request.head_only)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn serve() -> (Arc<Control>, SocketAddr, Served) {
        let control = Arc::new(Control::new());
        let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = endpoint.address();
        (Arc::clone(&control), address, endpoint.serve(Vec::new(), control).unwrap())
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn it_is_healthy_until_the_server_drains() {
        let (control, address, _served) = serve();
        let healthy = get(address, "/healthz");
        assert!(healthy.starts_with("HTTP/1.1 200 ") && healthy.ends_with("\r\n\r\nok\n"), "{healthy}");
        control.set(Phase::Drain, &[]);
        let draining = get(address, "/healthz");
        assert!(
            draining.starts_with("HTTP/1.1 503 ") && draining.ends_with("\r\n\r\ndraining\n"),
            "{draining}"
        );
        assert!(get(address, "/metrics").ends_with("# EOF\n"), "metrics are served to the end");
    }

    #[test]
    fn clients_that_send_nothing_stop_nobody_and_the_oldest_are_cut_off() {
        let (_control, address, _served) = serve();
        let mut idle: Vec<TcpStream> =
            (0..3 * MOST_CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in 0..3 {
            assert!(get(address, "/healthz").contains(" 200 "));
        }
        let cut_off = idle[0].read(&mut [0]);
        assert!(matches!(cut_off, Ok(0) | Err(_)), "{cut_off:?}");
    }

    #[test]
    fn it_ends_at_once_with_clients_connected() {
        let (_control, address, served) = serve();
        let mut idle = TcpStream::connect(address).unwrap();
        get(address, "/healthz");
        drop(served);
        assert!(matches!(idle.read(&mut [0]), Ok(0) | Err(_)));
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_port_in_use_and_an_address_of_nobody_are_refused_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _keeper = TcpListener::bind(taken).unwrap();
        let error = Endpoint::bind(taken).unwrap_err().to_string();
        let expected =
            format!("serve metrics on {taken}: EADDRINUSE: address already in use; see who does: ss ");
        assert!(error.starts_with(&expected), "{error}");
        let error = Endpoint::bind(([192, 0, 2, 1], 0).into()).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:0: EADDRNOTAVAIL") && error.contains("ip address"), "{error}");
    }
}
