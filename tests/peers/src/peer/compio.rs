//! The peer `compio`: one runtime and one listener per core.
//!
//! Each connection has a buffer of its own, as in compio's examples; or, with `--multishot`, accept and
//! receive are asked for once each and go on by themselves, and what is received is in buffers that all
//! connections share.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::TcpListener as StdListener;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;

use anyhow::{Context, bail};
use clap::Args;
use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadMulti, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{RuntimeBuilder, spawn};
use futures_util::StreamExt;

use super::{Mode, RuntimeArgs, Settings, per_core};

/// Buffers that connections share with `--multishot`.
const SHARED_BUFFERS: NonZero<u16> = NonZero::new(1024).expect("not 0");

/// The compio peer's options.
#[derive(Debug, Args)]
pub(crate) struct CompioArgs {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Accept and receive by multishot, into 1024 shared buffers of --buffer-size.
    #[arg(long)]
    multishot: bool,
}

/// Runs the server until a signal ends the process.
pub(crate) fn run(args: &CompioArgs) -> anyhow::Result<()> {
    let (settings, multishot) = (args.runtime.settings(), args.multishot);
    per_core("compio", &args.runtime.peer, move |listener| {
        let mut driver = ProactorBuilder::new();
        // What suits a thread that alone uses its ring (io_uring_setup(2)).
        driver.single_issuer(true).defer_taskrun(true);
        driver.buffer_pool_size(SHARED_BUFFERS).buffer_pool_buffer_len(settings.buffer_size);
        let runtime = RuntimeBuilder::new().with_proactor(driver).build().context("build a runtime")?;
        runtime.block_on(serve(listener, settings, multishot))
    })
}

async fn serve(listener: OwnedFd, settings: Settings, multishot: bool) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(StdListener::from(listener)).context("register the listener")?;
    let handle = |stream: TcpStream| match (settings.mode, multishot) {
        // After AcceptClose this resets: the connection has inherited SO_LINGER of 0 seconds.
        (Mode::AcceptClose | Mode::AcceptFin, _) => drop(stream),
        (Mode::Echo, true) => spawn(echo_multishot(stream)).detach(),
        (Mode::Echo, false) => spawn(echo(stream, settings.buffer_size)).detach(),
    };
    if multishot {
        let mut incoming = listener.incoming();
        while let Some(stream) = incoming.next().await {
            handle(stream.context("accept")?);
        }
        bail!("accept: the listener has ended")
    }
    loop {
        handle(listener.accept().await.context("accept")?.0);
    }
}

async fn echo(mut stream: TcpStream, size: usize) {
    let mut buffer = Vec::with_capacity(size);
    loop {
        let BufResult(result, received) = stream.read(buffer).await;
        let Ok(1..) = result else { return };
        let BufResult(result, sent) = stream.write_all(received).await;
        if result.is_err() {
            return;
        }
        buffer = sent;
        buffer.clear();
    }
}

/// Receives until the peer has ended. Without a free buffer compio ends a multishot receive with
/// ResourceBusy, and the stream asks for another when it is polled again; nothing is lost, the bytes are in
/// the socket.
async fn echo_multishot(stream: TcpStream) {
    let (mut reader, mut writer) = stream.into_split();
    let mut received = pin!(reader.read_multi(0));
    while let Some(result) = received.next().await {
        match result {
            Ok(bytes) => {
                if writer.write_all(bytes).await.0.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::ResourceBusy => let_others_run().await,
            Err(_) => return,
        }
    }
}

/// Comes back when the other tasks have had their turn: they give buffers back.
async fn let_others_run() {
    let mut polled = false;
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
