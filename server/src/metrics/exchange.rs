//! One client of the endpoint: its request, the response, the end. Never waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::PollFlags;

use super::request::{self, Parsed, Request};
use super::{LINGER, PATIENCE};

/// A connection with one request and one response.
#[derive(Debug)]
pub(super) struct Exchange {
    stream: TcpStream,
    state: State,
    /// It is cut off then.
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    /// What has come of the request.
    Request(Vec<u8>),
    /// What is still to be sent.
    Response { bytes: Vec<u8>, sent: usize },
    /// All is sent; the client has still to close.
    Linger,
}

/// Whether a client is still here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Wait until the socket is ready again.
    Waits,
    /// Nothing more is to be done.
    Over,
}

impl Exchange {
    /// For a connection just accepted.
    pub(super) fn new(stream: TcpStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, state: State::Request(Vec::new()), deadline: now + PATIENCE })
    }

    /// What to wait for on its socket.
    pub(super) fn interest(&self) -> PollFlags {
        match self.state {
            State::Response { .. } => PollFlags::OUT,
            State::Request(_) | State::Linger => PollFlags::IN,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Does what its socket is ready for. `answer` makes the response to a request.
    pub(super) fn progress(&mut self, now: Instant, answer: impl FnOnce(Request) -> Vec<u8>) -> Progress {
        match self.step(now, answer) {
            Ok(progress) => progress,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Progress::Waits
            }
            Err(_) => Progress::Over, // the client's own business
        }
    }

    fn step(&mut self, now: Instant, answer: impl FnOnce(Request) -> Vec<u8>) -> io::Result<Progress> {
        let mut chunk = [0; 4096];
        match &mut self.state {
            State::Request(received) => {
                let count = self.stream.read(&mut chunk)?;
                if count == 0 {
                    return Ok(Progress::Over);
                }
                received.extend_from_slice(&chunk[..count]);
                if let Parsed::Whole(request) = request::parse(received) {
                    self.state = State::Response { bytes: answer(request), sent: 0 };
                    self.deadline = now + PATIENCE;
                    self.send(now)?;
                }
                Ok(Progress::Waits)
            }
            State::Response { .. } => self.send(now).map(|()| Progress::Waits),
            State::Linger => {
                let count = self.stream.read(&mut chunk)?;
                Ok(if count == 0 { Progress::Over } else { Progress::Waits })
            }
        }
    }

    /// Sends as much of the response as the socket takes.
    fn send(&mut self, now: Instant) -> io::Result<()> {
        let State::Response { bytes, sent } = &mut self.state else { return Ok(()) };
        while *sent < bytes.len() {
            match self.stream.write(&bytes[*sent..])? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => *sent += count,
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.state = State::Linger;
        self.deadline = now + LINGER;
        Ok(())
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    fn pair() -> (TcpStream, Exchange) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let exchange = Exchange::new(listener.accept().unwrap().0, Instant::now()).unwrap();
        (client, exchange)
    }

    /// Goes on until the exchange is over or its socket is not ready any more within a second.
    fn run(exchange: &mut Exchange, body: &[u8]) -> Progress {
        let ready = |exchange: &Exchange| {
            let mut fds = [PollFd::new(exchange, exchange.interest())];
            poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap() > 0
        };
        while ready(exchange) {
            if exchange.progress(Instant::now(), |_| body.to_vec()) == Progress::Over {
                return Progress::Over;
            }
        }
        Progress::Waits
    }

    #[test]
    fn a_request_in_pieces_is_answered_when_it_is_whole() {
        let (mut client, mut exchange) = pair();
        client.write_all(b"GET /healthz HT").unwrap();
        assert_eq!(run(&mut exchange, b"answer"), Progress::Waits);
        assert_eq!(exchange.interest(), PollFlags::IN);
        client.write_all(b"TP/1.0\r\n\r\n").unwrap();
        assert_eq!(run(&mut exchange, b"answer"), Progress::Waits, "for the client to close");
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        drop(client);
        assert_eq!(run(&mut exchange, b""), Progress::Over);
    }

    /// Closing with bytes unread would reset the connection: a client that is still sending would never see
    /// the response.
    #[test]
    fn what_a_client_sends_after_its_request_is_read_until_it_closes() {
        let (mut client, mut exchange) = pair();
        client.write_all(b"\r\n:nonsense\r\n\r\n").unwrap();
        assert_eq!(run(&mut exchange, b"answer"), Progress::Waits);
        client.write_all(&[b'x'; 100_000]).unwrap();
        assert_eq!(run(&mut exchange, b"another"), Progress::Waits);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(run(&mut exchange, b"another"), Progress::Over);
        drop(exchange);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn a_response_that_does_not_fit_goes_on_when_the_client_reads() {
        let (mut client, mut exchange) = pair();
        client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let body = vec![b'x'; 32 << 20];
        let reader = std::thread::spawn(move || {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer.len()
        });
        assert_eq!(run(&mut exchange, &body), Progress::Over);
        assert_eq!(reader.join().unwrap(), body.len());
    }

    #[test]
    fn each_part_has_its_deadline() {
        let (mut client, mut exchange) = pair();
        let first = exchange.deadline();
        client.write_all(b"GET").unwrap();
        run(&mut exchange, b"");
        assert_eq!(exchange.deadline(), first, "bytes of a request win no time");
        client.write_all(b" /healthz HTTP/1.0\r\n\r\n").unwrap();
        let later = first + PATIENCE;
        let mut fds = [PollFd::new(&exchange, exchange.interest())];
        poll(&mut fds, None).unwrap();
        exchange.progress(later, |_| b"answer".to_vec());
        assert_eq!(exchange.deadline(), later + LINGER);
    }

    #[test]
    fn a_client_that_leaves_is_over() {
        let (client, mut exchange) = pair();
        drop(client);
        assert_eq!(run(&mut exchange, b""), Progress::Over);
    }
}
