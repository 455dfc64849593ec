//! The client of [`super::others`], in its own process in the client's namespace: connections on which
//! requests are answered, one after the other, and which then stay open.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};

/// What every answer ends with.
pub(super) const BODY: &str = "corelocal";

/// What it says when all requests have been answered.
pub(super) const READY: &str = "ready";

/// Opens the connections, and holds them until standard input ends.
pub(crate) fn run(server: SocketAddr, connections: usize, requests: usize) -> Result<()> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
        for _ in 0..requests {
            ask(&mut connection)?;
        }
        open.push(connection);
    }
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).context("wait for the end")?;
    Ok(())
}

fn ask(connection: &mut TcpStream) -> Result<()> {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n").context("send a request")?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(BODY.as_bytes()) {
        let length = connection.read(&mut part).context("receive an answer")?;
        if length == 0 {
            bail!("the server closed the connection: {}", String::from_utf8_lossy(&answer));
        }
        answer.extend_from_slice(&part[..length]);
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("the answer is {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
