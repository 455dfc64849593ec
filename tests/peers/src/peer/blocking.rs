//! The peer `blocking`: one process per core, blocking calls, one connection at a time, as the textbooks
//! begin.
//!
//! In the two classic models: the processes share the listener that their parent has made (`shared`), or each
//! has its own, of one SO_REUSEPORT group (`reuseport`). Who has accepted a connection serves it to its end
//! before it accepts the next, so that `--mode echo` serves as many connections at a time as there are cores,
//! and the others wait.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Stdio;

use anyhow::Context;
use clap::{Args, ValueEnum, value_parser};

use super::{Mode, PeerArgs, listener, processes, say_listening};

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
}

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &BlockingArgs) -> anyhow::Result<()> {
    if args.child {
        return serve(args);
    }
    let cores = args.peer.cores()?;
    let first = listener::listen(args.peer.listen, &args.peer)?;
    let mut address = args.peer.listen;
    address.set_port(listener::port(&first)?);
    say_listening("blocking", address, cores.clone());
    let mode = args.peer.mode.to_possible_value().context("no mode is hidden")?;
    let words =
        ["blocking", "--child", "--mode", mode.get_name(), "--buffer-size", &args.buffer_size.to_string()]
            .map(Into::into);
    let own = std::cell::Cell::new(Some(first.try_clone().context("duplicate the listener")?));
    processes::per_core(&cores, || {
        let listener = match (args.model, own.take()) {
            (Model::Shared, _) => first.try_clone().context("duplicate the listener")?,
            (Model::Reuseport, Some(first)) => first,
            (Model::Reuseport, None) => listener::listen(address, &args.peer)?,
        };
        Ok((words.to_vec(), Stdio::from(listener)))
    })
}

fn serve(args: &BlockingArgs) -> anyhow::Result<()> {
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("duplicate standard input")?;
    rustix::io::ioctl_fionbio(&listener, false).context("make the listener blocking")?;
    let listener = TcpListener::from(listener);
    let mut buffer = vec![0; args.buffer_size as usize];
    loop {
        let (stream, _) = listener.accept().context("accept: standard input is not a listener")?;
        match args.peer.mode {
            // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
            Mode::AcceptClose | Mode::AcceptFin => drop(stream),
            Mode::Echo => echo(stream, &mut buffer),
        }
    }
}

fn echo(mut stream: TcpStream, buffer: &mut [u8]) {
    while let Ok(received @ 1..) = stream.read(buffer) {
        if stream.write_all(&buffer[..received]).is_err() {
            return;
        }
    }
}
