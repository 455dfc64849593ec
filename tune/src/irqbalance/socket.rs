//! irqbalance's socket: where it is, and one message and its answer.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, UCred, connect, sendmsg, socket_with,
};
use rustix::process::{getegid, geteuid, getpid};

use super::{IrqbalanceError, message};
use crate::errno::describe;
use crate::kernel_files::{KernelFileError, KernelFiles};

const DIRECTORY: &str = "/run/irqbalance";

/// How long irqbalance may take: it does not answer while it looks at all interrupts and moves some.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of an answer; one with every interrupt that a message can name has less.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Where an irqbalance may listen.
pub(super) struct Socket {
    /// For messages.
    pub(super) name: String,
    address: SocketAddrUnix,
    /// Its name does not say that it is irqbalance's.
    nameless: bool,
}

/// What answered.
pub(super) struct Answer {
    /// The process.
    pub(super) pid: u32,
    pub(super) text: String,
}

/// The sockets that may be irqbalance's.
pub(super) fn candidates(files: &KernelFiles) -> Result<Vec<Socket>, IrqbalanceError> {
    let mut sockets = Vec::new();
    for name in files.list_optional(DIRECTORY)?.unwrap_or_default() {
        if name.starts_with("irqbalance") && name.ends_with(".sock") {
            let name = format!("{DIRECTORY}/{name}");
            let address = SocketAddrUnix::new(files.root().join(&name[1..]));
            let address = address.map_err(|errno| IrqbalanceError::of(&name, &describe(&errno.into())))?;
            sockets.push(Socket { name, address, nameless: false });
        }
    }
    // Not /proc/net, which is that of the process: another thread may be in another network namespace.
    let unix = files.read_optional("/proc/thread-self/net/unix")?.unwrap_or_default();
    for bytes in message::abstract_addresses(&unix) {
        let nameless = bytes.iter().all(|byte| *byte == 0);
        let name = String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned();
        let name = if nameless { "an abstract socket of zeros".to_owned() } else { format!("@{name}") };
        if let Ok(address) = SocketAddrUnix::new_abstract_name(&bytes) {
            sockets.push(Socket { name, address, nameless });
        }
    }
    Ok(sockets)
}

impl Socket {
    /// Sends a message and reads until irqbalance closes the connection, which it does when it has done what
    /// was asked; `None` if nobody listens, as at a socket that a killed one left, or if it is not
    /// irqbalance.
    pub(super) fn ask(&self, files: &KernelFiles, message: &[u8]) -> Result<Option<Answer>, IrqbalanceError> {
        let fail = |error: io::Error| {
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock => format!("no answer within {} s", PATIENCE.as_secs()),
                _ => describe(&error),
            };
            IrqbalanceError::of(&self.name, &reason)
        };
        let stream = match self.connect() {
            Err(error) if is_absent(&error) => return Ok(None),
            stream => stream.map_err(fail)?,
        };
        let peer = sockopt::socket_peercred(&stream).map_err(|errno| fail(errno.into()))?;
        let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
        if self.nameless && !is_irqbalance(files, pid)? {
            return Ok(None);
        }
        if !peer.uid.is_root() {
            let reason = format!("it belongs to user {}, not to root", peer.uid.as_raw());
            return Err(IrqbalanceError::of(&self.name, &reason));
        }
        send(&stream, message).map_err(fail)?;
        let mut bytes = Vec::new();
        (&stream).take(LONGEST_ANSWER).read_to_end(&mut bytes).map_err(fail)?;
        Ok(Some(Answer { pid, text: String::from_utf8_lossy(&bytes).into_owned() }))
    }
}

impl Socket {
    /// Not by std, which has no timeout here: irqbalance lets two wait, so a third would wait for ever at one
    /// that hangs.
    fn connect(&self) -> io::Result<UnixStream> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for direction in [Timeout::Send, Timeout::Recv] {
            sockopt::set_socket_timeout(&socket, direction, Some(PATIENCE))?;
        }
        connect(&socket, &self.address)?;
        Ok(UnixStream::from(socket))
    }
}

/// With `SCM_CREDENTIALS`: irqbalance hears nobody but root.
fn send(stream: &UnixStream, message: &[u8]) -> io::Result<()> {
    let credentials = UCred { pid: getpid(), uid: geteuid(), gid: getegid() };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmCredentials(credentials)) {
        return Err(io::Error::other("no room for the credentials"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_irqbalance(files: &KernelFiles, pid: u32) -> Result<bool, KernelFileError> {
    Ok(files.read_optional(&format!("/proc/{pid}/comm"))?.is_some_and(|comm| comm == "irqbalance"))
}

/// A process called irqbalance that is not a zombie.
pub(crate) fn process(files: &KernelFiles) -> Result<Option<u32>, KernelFileError> {
    for name in files.list_optional("/proc")?.unwrap_or_default() {
        let Ok(pid) = name.parse() else { continue };
        // A process may end while it is looked at, which some kernels call ESRCH.
        let runs = is_irqbalance(files, pid).unwrap_or(false)
            && files.read(&format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        if runs {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}
