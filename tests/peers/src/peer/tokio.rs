//! The peer `tokio`: a task per connection, as in tokio's tutorial (<https://tokio.rs/tokio/tutorial/io>).
//!
//! Either one `current_thread` runtime and one listener per core, or one multi-thread runtime whose threads
//! share a listener and steal each other's tasks, which is what `#[tokio::main]` makes.

use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;

use anyhow::Context;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::{Mode, RuntimeArgs, Settings, listener, per_core, say_listening};

/// The tokio peer's options.
#[derive(Debug, Args)]
pub(crate) struct TokioArgs {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// One runtime with as many threads as cores and one listener, instead of one of each per core.
    #[arg(long)]
    multi_thread: bool,
}

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &TokioArgs) -> anyhow::Result<()> {
    let settings = args.runtime.settings();
    if args.multi_thread {
        return run_multi_thread(&args.runtime);
    }
    per_core("tokio", &args.runtime.peer, move |listener| {
        let runtime = Builder::new_current_thread().enable_io().build().context("build a runtime")?;
        runtime.block_on(serve(listener, settings))
    })
}

/// Its threads run where the process may: `peers bench` pins it to the server's cores.
fn run_multi_thread(args: &RuntimeArgs) -> anyhow::Result<()> {
    load::open_files::raise_limit()?;
    let cores = args.peer.cores()?;
    let runtime = Builder::new_multi_thread().worker_threads(cores.len()).enable_io().build();
    let runtime = runtime.context("build a runtime")?;
    let listener = listener::listen(args.peer.listen, &args.peer)?;
    let mut address = args.peer.listen;
    address.set_port(listener::port(&listener)?);
    // Spawned, it runs on a worker, and what it accepts does not have to be handed over from this thread.
    let accepting = runtime.spawn(serve(listener, args.settings()));
    say_listening("tokio", address, cores);
    runtime.block_on(accepting).context("the accepting task")?
}

async fn serve(listener: OwnedFd, settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(StdListener::from(listener)).context("register the listener")?;
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        match settings.mode {
            // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
            Mode::AcceptClose | Mode::AcceptFin => drop(stream),
            Mode::Echo => drop(tokio::spawn(echo(stream, settings.buffer_size))),
        }
    }
}

async fn echo(mut stream: TcpStream, size: usize) {
    let mut buffer = Vec::with_capacity(size);
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        if stream.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
    }
}
