//! What each behaviour does.

use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use tune::cpu_set::Cpu;

use super::client::{Came, Client, Outcome};
use super::{Behaviour, Context};
use crate::connect::{self, ConnectOptions};
use crate::counts::add_errors;
use crate::socket::close_by_reset;
use crate::{Error, Limit};

/// Bytes of a small message.
const SMALL: u64 = 64;

/// Bytes of a large message.
const LARGE: u64 = 64 * 1024;

/// Bytes that a slow reader has under way at most.
const BACKLOG: u64 = 1 << 20;

/// Bytes that a slow reader reads at a time, and how often.
const SIPS: (usize, Duration) = (512, Duration::from_millis(10));

/// From one byte of a byte-at-a-time writer to the next.
const BYTE: Duration = Duration::from_millis(1);

pub(super) fn run(behaviour: Behaviour, context: &Context<'_>, cpu: Cpu) -> Result<Outcome, Error> {
    let mut outcome = Outcome::new(behaviour);
    match behaviour {
        Behaviour::SlowReader => slow_reader(context, &mut outcome),
        Behaviour::HalfClose => one_by_one(context, &mut outcome, half_close),
        Behaviour::ResetMidMessage => one_by_one(context, &mut outcome, reset_mid_message),
        Behaviour::IdleFlood => idle_flood(context, &mut outcome),
        Behaviour::ConnectFlood => connect_flood(context, cpu, &mut outcome)?,
        Behaviour::ByteAtATime => byte_at_a_time(context, &mut outcome),
    }
    Ok(outcome)
}

fn slow_reader(context: &Context<'_>, outcome: &mut Outcome) {
    let clients = Client::open_all(context, outcome);
    let (bytes, interval) = SIPS;
    let act = |client: &mut Client<'_>, outcome: &mut Outcome| {
        let room = BACKLOG - (client.sent - client.received);
        if room > 0 {
            client.send(room)?;
        }
        client.read(bytes, outcome)
    };
    let clients = together(context, clients, interval, outcome, act);
    finish(context, clients, outcome);
}

fn byte_at_a_time(context: &Context<'_>, outcome: &mut Outcome) {
    let clients = Client::open_all(context, outcome);
    let act = |client: &mut Client<'_>, outcome: &mut Outcome| {
        if client.sent - client.received < SMALL {
            client.send(1)?;
        }
        client.read(1, outcome)
    };
    let clients = together(context, clients, BYTE, outcome, act);
    finish(context, clients, outcome);
}

/// Opens connections, which are silent until the end.
fn idle_flood(context: &Context<'_>, outcome: &mut Outcome) {
    let clients = Client::open_all(context, outcome);
    thread::sleep(context.end.saturating_duration_since(Instant::now()));
    let mut talking = Vec::new();
    for mut client in clients {
        let sent = match client.read(1, outcome) {
            // Its right: nothing was under way.
            Ok(Came::End) => Err(io::Error::other("closed by the peer while idle")),
            Ok(_) => client.send(SMALL),
            Err(error) => Err(error),
        };
        talking.extend(outcome.count(sent).map(|_| client));
    }
    finish(context, talking, outcome);
}

fn connect_flood(context: &Context<'_>, cpu: Cpu, outcome: &mut Outcome) -> Result<(), Error> {
    let duration = context.end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let report = connect::run(&ConnectOptions {
        limit: Limit::Duration(duration),
        cores: vec![cpu],
        parallel: context.connections,
        timeout: context.timeout,
        ..ConnectOptions::new(context.address)
    })?;
    outcome.connections = report.counts.connections;
    add_errors(&mut outcome.errors, &report.counts.connect_errors);
    add_errors(&mut outcome.errors, &report.counts.io_errors);
    Ok(())
}

/// Has all clients act once in every interval until the end; gives those that have not failed.
fn together<'a>(
    context: &Context<'_>,
    mut clients: Vec<Client<'a>>,
    interval: Duration,
    outcome: &mut Outcome,
    act: impl Fn(&mut Client<'a>, &mut Outcome) -> io::Result<Came>,
) -> Vec<Client<'a>> {
    while Instant::now() < context.end {
        clients.retain_mut(|client| {
            let result = match act(client, outcome) {
                Ok(Came::End) => Err(io::Error::other("closed by the peer")),
                other => other,
            };
            let goes_on = outcome.count(result).is_some();
            if !goes_on {
                outcome.bytes_lost += client.sent - client.received;
            }
            goes_on
        });
        thread::sleep(interval);
    }
    clients
}

/// Waits for what is still to come back.
fn finish(context: &Context<'_>, clients: Vec<Client<'_>>, outcome: &mut Outcome) {
    let deadline = Instant::now() + context.timeout;
    for mut client in clients {
        let result = client.read_rest(false, deadline, outcome);
        outcome.count(result);
        outcome.bytes_lost += client.sent - client.received;
    }
}

/// One connection after the other until the end. One that cannot be opened is tried again after a rest.
fn one_by_one(
    context: &Context<'_>,
    outcome: &mut Outcome,
    act: fn(Client<'_>, &Context<'_>, &mut Outcome) -> io::Result<()>,
) {
    let mut id = 0;
    while Instant::now() < context.end {
        match Client::open(context, id, outcome) {
            Some(client) => {
                let result = act(client, context, outcome);
                outcome.count(result);
            }
            None => thread::sleep(SIPS.1),
        }
        id = id.wrapping_add(1);
    }
}

fn half_close(mut client: Client<'_>, context: &Context<'_>, outcome: &mut Outcome) -> io::Result<()> {
    let deadline = Instant::now() + context.timeout;
    let mut exchange = || {
        while client.sent < LARGE {
            client.send(LARGE - client.sent)?;
        }
        client.socket().shutdown(Shutdown::Write)?;
        client.read_rest(true, deadline, outcome)
    };
    let result = exchange();
    outcome.bytes_lost += client.sent - client.received;
    result
}

fn reset_mid_message(mut client: Client<'_>, _: &Context<'_>, outcome: &mut Outcome) -> io::Result<()> {
    client.send(LARGE / 2)?;
    client.read(512, outcome)?;
    close_by_reset(client.into_socket().into())
}
