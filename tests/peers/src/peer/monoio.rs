//! The peer `monoio`: the echo of monoio's README, one runtime and one listener per core.

use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;

use anyhow::Context;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use super::{Mode, RuntimeArgs, Settings, per_core};

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &RuntimeArgs) -> anyhow::Result<()> {
    let settings = args.settings();
    per_core("monoio", &args.peer, move |listener| {
        // What suits a thread that alone uses its ring (io_uring_setup(2)); monoio leaves the choice to its
        // user.
        let mut ring = monoio_io_uring::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun();
        let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring);
        builder.build().context("build a runtime")?.block_on(serve(listener, settings))
    })
}

async fn serve(listener: OwnedFd, settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(StdListener::from(listener)).context("register the listener")?;
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        match settings.mode {
            // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
            Mode::AcceptClose | Mode::AcceptFin => drop(stream),
            Mode::Echo => drop(monoio::spawn(echo(stream, settings.buffer_size))),
        }
    }
}

async fn echo(mut stream: TcpStream, size: usize) {
    let mut buffer = Vec::with_capacity(size);
    let mut result;
    loop {
        (result, buffer) = stream.read(buffer).await;
        let Ok(1..) = result else { return };
        (result, buffer) = stream.write_all(buffer).await;
        if result.is_err() {
            return;
        }
        buffer.clear();
    }
}
