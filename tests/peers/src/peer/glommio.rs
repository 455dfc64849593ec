//! The peer `glommio`: one executor and one listener per core, as the documentation of glommio's
//! `TcpListener` advises.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};

use super::{Mode, RuntimeArgs, Settings, per_core};

/// How long it rests when it is short of descriptors.
const PAUSE: Duration = Duration::from_millis(1);

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &RuntimeArgs) -> anyhow::Result<()> {
    let settings = args.settings();
    per_core("glommio", &args.peer, move |listener| {
        // The thread is pinned already.
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make();
        let executor = executor.map_err(|error| anyhow!("make an executor: {error}"))?;
        executor.run(serve(listener, settings))
    })
}

async fn serve(listener: OwnedFd, settings: Settings) -> anyhow::Result<()> {
    // SAFETY: the descriptor is that of a listening socket, and handed over.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    loop {
        let stream = match listener.accept().await.map_err(io::Error::from) {
            Ok(stream) => stream,
            // The executor closes in its own time what was dropped.
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error).context("accept"),
        };
        match settings.mode {
            // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
            Mode::AcceptClose | Mode::AcceptFin => drop(stream),
            Mode::Echo => drop(spawn_local(echo(stream, settings.buffer_size)).detach()),
        }
    }
}

async fn echo(mut stream: TcpStream, size: usize) {
    let mut buffer = vec![0; size];
    while let Ok(received @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..received]).await.is_err() {
            return;
        }
    }
}
