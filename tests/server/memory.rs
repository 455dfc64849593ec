//! What a connection costs in memory of the process.

use crate::common::{Client, Server, cpus, proc, sandbox, skipped};

const CONNECTIONS: u64 = 5_000;

/// At most 1 KiB for each connection that is idle, after an echo, beyond the pool of 4 MiB and what the
/// server is without connections.
#[test]
fn an_idle_connection_costs_less_than_a_kibibyte() {
    if !sandbox::allow_descriptors(CONNECTIONS + 200) {
        return skipped("needs more open files than this process may have");
    }
    let core = cpus::first().to_string();
    let server = Server::start(&["--cores", &core, "--max-connections", "8000"]);
    let mut first = Client::connect(server.address);
    // Every buffer of the pool is touched: the pool is what it is, however many connections there are.
    (0..1000).for_each(|_| first.echo(100_000));
    let before = proc::resident_kib(server.pid());
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    let grown = proc::resident_kib(server.pid()).saturating_sub(before);
    assert!(grown <= CONNECTIONS, "{CONNECTIONS} idle connections cost {grown} KiB");
    drop((first, clients));
    server.stop_when_nothing_is_open();
}
