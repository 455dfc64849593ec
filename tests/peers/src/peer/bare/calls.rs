//! What a backlog costs if it is worked off by three system calls for each connection, and hardly anything
//! else.
//!
//! It answers who has sent something before he is accepted, once, and learns of nothing
//! that happens to a connection later; it closes all of them when nobody has come for [`PAUSE`]. So it is
//! the floor of `backlog-CONNECTIONS`: who waits is served at once, one `poll(2)` and one accept that finds
//! nobody for all of them, and no connection is found again.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

/// When nobody has come for so long, whom it has answered is closed.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes of a connection that it echoes.
const MOST: usize = 64 * 1024;

/// Runs the server.
pub(super) fn serve(listener: &OwnedFd) -> anyhow::Result<()> {
    let pause = Timespec::try_from(PAUSE).context("a short time")?;
    let mut buffer = vec![0; MOST];
    let mut answered = Vec::new();
    loop {
        let timeout = if answered.is_empty() { None } else { Some(&pause) };
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], timeout) {
            Ok(0) => answered.clear(),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll the listener"),
        }
        loop {
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(connection) => {
                    if let Ok((_, received @ 1..)) = recv(&connection, &mut buffer[..], RecvFlags::empty()) {
                        // Its peer learns of a failure, or has caused it.
                        let _ = send(&connection, &buffer[..received], SendFlags::NOSIGNAL);
                    }
                    answered.push(connection);
                }
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::MFILE | Errno::NFILE) if !answered.is_empty() => answered.clear(),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno).context("accept"),
            }
        }
    }
}
