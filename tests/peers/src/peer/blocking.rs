//! The peer `blocking`: one process per core, blocking calls, one connection at a time, as the textbooks
//! begin.
//!
//! In the two classic models: the processes share the listener that their parent has made (`shared`), or each
//! has its own, of one SO_REUSEPORT group (`reuseport`); and in a third, `cpu`, in which each has its own and
//! gets what its own CPU receives (SO_INCOMING_CPU). Who has accepted a connection serves it to its end
//! before it accepts the next, so that `--mode echo` serves as many connections at a time as there are cores,
//! and the others wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use clap::{Args, ValueEnum, value_parser};
use rustix::net::{Shutdown, shutdown, sockopt};

use super::processes::Processes;
use super::{Mode, PeerArgs, listener, say_listening};
use crate::accepts::{Accepts, CoreAccepts};

/// Of so many connections one is asked on which CPU it was received: asking costs a system call.
const SAMPLE: u64 = 16;

/// The blocking peer's options.
#[derive(Debug, Args)]
pub(crate) struct BlockingArgs {
    #[command(flatten)]
    peer: PeerArgs,
    /// Who has a listener.
    #[arg(long, value_enum, default_value = "reuseport")]
    model: Model,
    /// Bytes of each process's buffer, 64 to 16777216.
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = value_parser!(u32).range(64..=1 << 24))]
    buffer_size: u32,
    /// Be one of the processes: the listener is standard input.
    #[arg(long, hide = true)]
    child: bool,
}

/// Who has a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// The parent, and its children inherit it.
    Shared,
    /// Each process, with SO_REUSEPORT.
    Reuseport,
    /// Each process, with SO_REUSEPORT, for what its own CPU receives: SO_INCOMING_CPU. Before Linux 6.2 as
    /// reuseport.
    Cpu,
}

/// Runs the server until SIGTERM or SIGINT; then each process says what it has accepted.
pub(crate) fn run(args: &BlockingArgs) -> anyhow::Result<()> {
    if args.child {
        return serve(args);
    }
    let cores = args.peer.cores()?;
    let first = listener::listen(args.peer.listen, &args.peer)?;
    let mut address = args.peer.listen;
    address.set_port(listener::port(&first)?);
    let mut listeners = vec![first];
    for _ in cores.iter().skip(1) {
        listeners.push(match args.model {
            Model::Shared => duplicate(&listeners[0])?,
            Model::Reuseport | Model::Cpu => listener::listen(address, &args.peer)?,
        });
    }
    if args.model == Model::Cpu {
        for (listener, &cpu) in listeners.iter().zip(&cores) {
            sockopt::set_socket_incoming_cpu(listener, cpu).context("set SO_INCOMING_CPU of a listener")?;
        }
    }
    let mode = args.peer.mode.to_possible_value().context("no mode is hidden")?;
    let mut processes = Processes::default();
    for (cpu, listener) in cores.iter().zip(&listeners) {
        let words = ["blocking", "--child", "--mode", mode.get_name(), "--cores", &cpu.to_string()];
        let size = ["--buffer-size", &args.buffer_size.to_string()].map(Into::into);
        let words = words.map(Into::into).into_iter().chain(size).collect();
        processes.start(*cpu, words, duplicate(listener)?.into())?;
    }
    // A listener that is shut down accepts nothing more: accept(2) gives EINVAL to all who wait in it.
    processes.on_signal(move || {
        for listener in &listeners {
            // ENOTCONN for the second descriptor of one that is shared.
            let _ = shutdown(listener, Shutdown::Read);
        }
    })?;
    say_listening("blocking", address, cores);
    processes.wait_for_all()
}

fn duplicate(listener: &OwnedFd) -> anyhow::Result<OwnedFd> {
    listener.try_clone().context("duplicate the listener")
}

fn serve(args: &BlockingArgs) -> anyhow::Result<()> {
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("duplicate standard input")?;
    rustix::io::ioctl_fionbio(&listener, false).context("make the listener blocking")?;
    let listener = TcpListener::from(listener);
    let core = *args.peer.cores()?.first().context("no core")?;
    let mut accepts = CoreAccepts::of(core);
    let mut buffer = vec![0; args.buffer_size as usize];
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::InvalidInput => break, // EINVAL: it was shut down
            Err(error) => return Err(error).context("accept: standard input is not a listener"),
        };
        if accepts.accepted.is_multiple_of(SAMPLE) {
            accepts.sample(sockopt::socket_incoming_cpu(&stream).context("get SO_INCOMING_CPU")?);
        }
        accepts.accepted += 1;
        match args.peer.mode {
            // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
            Mode::AcceptClose | Mode::AcceptFin => drop(stream),
            Mode::Echo => echo(stream, &mut buffer),
        }
    }
    Accepts { cores: vec![accepts] }.print(&mut std::io::stdout())
}

fn echo(mut stream: TcpStream, buffer: &mut [u8]) {
    while let Ok(received @ 1..) = stream.read(buffer) {
        if stream.write_all(&buffer[..received]).is_err() {
            return;
        }
    }
}
