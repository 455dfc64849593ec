//! One pinned thread per core does all the work, and how it waits for more.

use std::fs;

use tune::affinity;

use crate::common::{Client, Launch, Server, cpus, proc, skipped, wait_until};

#[test]
fn each_core_has_exactly_one_thread_pinned_to_it() {
    let server = Server::start(&["--cores", &cpus::allowed().to_string()]);
    if cpus::allowed().len() == 1 {
        return skipped("with one CPU every thread is pinned to it");
    }
    let mut pinned: Vec<_> = proc::threads(server.pid())
        .iter()
        .filter(|thread| thread.allowed.len() == 1)
        .filter_map(|thread| thread.allowed.first())
        .collect();
    pinned.sort_unstable();
    assert_eq!(pinned, cpus::allowed().iter().collect::<Vec<_>>());
}

/// As the kernel does with the threads of a CPU that goes offline, and leaves it when the CPU comes back.
#[test]
fn a_worker_that_was_taken_off_its_cpu_is_bound_to_it_again() {
    let Some((cpu, _)) = cpus::two() else { return skipped("needs two CPUs") };
    let server = Server::start(&["--cores", &cpu.to_string()]);
    let worker = || {
        let threads = proc::threads(server.pid());
        threads.into_iter().find(|thread| thread.name == format!("worker-{cpu}")).unwrap()
    };
    let own = worker().allowed;
    affinity::set_of(worker().number, &cpus::allowed()).unwrap();
    wait_until("the worker is on its CPU again", || worker().allowed == own);
    wait_until("it is said", || server.stderr().len() == 2);
    let line = &server.stderr()[1];
    let said = format!("server: core {cpu}: its worker had left its CPU and is bound to it again");
    assert_eq!(*line, said);
}

/// The kernel starts an `iou-wrk-…` thread for what a ring cannot do at once; it lives on for seconds.
#[test]
fn the_kernel_starts_no_worker_threads_for_echoes_closes_and_half_closes() {
    let server = Server::start(&[]);
    for round in 0..200 {
        let mut client = Client::connect(server.address);
        client.echo(20_000);
        match round % 3 {
            0 => client.reset(),
            1 => {
                client.finish();
                client.expect_end();
            }
            _ => drop(client),
        }
    }
    let mut stalled = Client::connect(server.address);
    stalled.fill(crate::echo::MORE_THAN_FITS);
    stalled.receive_all();
    let names: Vec<String> = proc::threads(server.pid()).into_iter().map(|thread| thread.name).collect();
    assert!(!names.iter().any(|name| name.starts_with("iou-wrk")), "{names:?}");
}

#[test]
fn idle_connections_cost_no_cpu_time() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(server.address)).collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    server.wait_until_it_sleeps();
    clients.iter_mut().for_each(|client| client.echo(100));
    assert_eq!(server.stderr().len(), 1, "nothing is said");
}

/// Before it sleeps it looks for completions, and then it does sleep.
#[test]
fn a_worker_that_spins_serves_and_sleeps() {
    let server = Server::start(&["--spin-us", "50"]);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address)).collect();
    for size in [1, 1_000, 100_000] {
        clients.iter_mut().for_each(|client| client.echo(size));
    }
    server.wait_until_it_sleeps();
    clients.iter_mut().for_each(|client| client.echo(10));
    drop(clients);
    server.stop_when_nothing_is_open().assert_exactly(10, 10 * 101_011);
}

/// The ring polls the NIC's queues (`napi_busy_poll_dt` of the ring's fdinfo, in nanoseconds), for datagrams
/// too.
#[test]
fn busy_polling_is_the_rings() {
    let rings = |options: &[&str]| -> Option<Vec<String>> {
        let server =
            Launch::new(&[&["--cores", &cpus::first().to_string()], options].concat()).start_if_it_can()?;
        let files =
            fs::read_dir(format!("/proc/{}/fdinfo", server.pid())).expect("list the server's descriptors");
        let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
        Some(texts.filter(|text| text.contains("NAPI:")).collect())
    };
    if rings(&[]).is_none_or(|rings| rings.is_empty()) {
        return skipped("this kernel does not say how a ring polls (before 6.9)");
    }
    for transport in ["--udp=false", "--udp"] {
        let Some(rings) = rings(&[transport, "--busy-poll", "50us"]) else {
            return skipped("this kernel has no busy polling");
        };
        let polls =
            |text: &String| text.lines().any(|line| line.ends_with("50000") && line.contains("busy_poll"));
        assert!(rings.iter().any(polls), "{transport}: {rings:?}");
    }
}
