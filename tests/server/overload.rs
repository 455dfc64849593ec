//! `--overload reset`: at the connection limit new clients are reset, those that are there notice nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::common::{Client, DEADLINE, Server, cpus, wait_until};

/// The reset may come before `connect` has returned.
fn connect(server: &Server) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server.address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Sends a message: true if it comes back, false if the connection is reset.
fn is_served(stream: &mut std::io::Result<TcpStream>) -> bool {
    let mut answer = [0; 10];
    let exchanged = match stream {
        Ok(stream) => stream.write_all(&[5; 10]).and_then(|()| stream.read_exact(&mut answer)),
        Err(error) => Err(error.kind().into()),
    };
    match exchanged {
        Ok(()) => answer == [5; 10],
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => false,
        Err(error) => panic!("neither served nor reset: {error}"),
    }
}

#[test]
fn beyond_the_limit_clients_are_reset_and_the_others_served() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--overload", "reset", "--max-connections", "3", "--cores", &core]);
    let mut served: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
    served.iter_mut().for_each(|client| client.echo(100));
    for _ in 0..300 {
        assert!(!is_served(&mut connect(&server)), "a client beyond the limit");
    }
    served.iter_mut().for_each(|client| client.echo(100));
    served.pop();
    wait_until("one has left", || server.held() == 2);
    let mut next = Client::connect(server.address);
    next.echo(100);
    drop((served, next));
    let total = server.stop_when_nothing_is_open().total;
    assert_eq!((total.accepted, total.refused, total.reset), (4, 300, 0), "{total:?}");
}

/// A crowd that comes at once: as many as fit are served, each other one is reset, none hangs.
#[test]
fn a_crowd_beyond_the_limit_is_reset_at_once() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--overload", "reset", "--max-connections", "10", "--cores", &core]);
    server.freeze();
    let mut crowd: Vec<_> = (0..500).map(|_| connect(&server)).collect();
    server.thaw();
    let served: Vec<bool> = crowd.iter_mut().map(is_served).collect();
    assert_eq!(served.iter().filter(|&&served| served).count(), 10);
    drop(crowd);
    let total = server.stop_when_nothing_is_open().total;
    assert_eq!((total.accepted, total.refused), (10, 490), "{total:?}");
}

#[test]
fn the_limit_that_makes_clients_wait_is_counted() {
    let core = cpus::first().to_string();
    let server = Server::start(&["--max-connections", "1", "--cores", &core]);
    let mut first = Client::connect(server.address);
    first.echo(10);
    let mut second = Client::connect(server.address);
    second.send(10);
    drop(first);
    second.receive_all();
    drop(second);
    let total = server.stop_when_nothing_is_open().total;
    assert!(total.queue_waits >= 1, "{total:?}");
    assert_eq!(total.refused, 0);
}
