//! Namespaces and the veth pair: what the lab says about them, checked against the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use lab::namespace::Namespace;
use lab::veth::{VethEnd, create_veth_pair, spread_flows_over_peer_queues};
use socket2::SockRef;
use tune::cpu_set::{Cpu, CpuSet};

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// The two namespaces, or why the test is skipped.
fn namespaces() -> Option<(Namespace, Namespace)> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return None;
    }
    Some((Namespace::create().expect("create"), Namespace::create().expect("create")))
}

fn ends<'a>(server: &'a Namespace, client: &'a Namespace, cpus: u32) -> (VethEnd<'a>, VethEnd<'a>) {
    let end = |namespace, name, address, tx_queues| VethEnd {
        namespace,
        name,
        address,
        tx_queues,
        rx_queues: cpus,
    };
    (end(server, "nic0", SERVER, cpus), end(client, "wire0", CLIENT, cpus + 1))
}

fn names(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).expect("list");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn cpus() -> Vec<Cpu> {
    tune::affinity::allowed().expect("sched_getaffinity").iter().collect()
}

/// Opens `count` connections and gives how many of them were accepted with which CPU as SO_INCOMING_CPU. One
/// more before them does not count: its packets may wait for the link and for the neighbour's address, and go
/// out from a timer, on the timer's CPU.
fn incoming_cpus(server: &Namespace, client: &Namespace, count: u32) -> BTreeMap<usize, u32> {
    let listener = server.run(|| TcpListener::bind((SERVER, 0)).expect("bind")).expect("enter");
    let address: SocketAddr = listener.local_addr().expect("address");
    let connect = || {
        let _kept = client.run(|| TcpStream::connect(address).expect("connect")).expect("enter");
        let (accepted, _) = listener.accept().expect("accept");
        SockRef::from(&accepted).cpu_affinity().expect("SO_INCOMING_CPU")
    };
    connect();
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(connect()).or_default() += 1;
    }
    seen
}

fn write(namespace: &Namespace, path: &str, text: &str) {
    namespace.run(|| fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"))).expect("enter");
}

fn mask(cpus: &[Cpu]) -> String {
    cpus.iter().copied().collect::<CpuSet>().to_mask()
}

#[test]
fn a_namespace_shows_its_own_interfaces_and_leaves_the_host_alone() {
    let Some((server, client)) = namespaces() else { return };
    let before = (names("/sys/class/net"), fs::read_to_string("/proc/self/mountinfo").unwrap());
    let (near, far) = ends(&server, &client, 4);
    create_veth_pair(&near, &far).unwrap();
    assert_eq!(server.run(|| names("/sys/class/net")).unwrap(), ["lo", "nic0"]);
    assert_eq!(client.run(|| names("/sys/class/net")).unwrap(), ["lo", "wire0"]);
    let queues = server.run(|| names("/sys/class/net/nic0/queues")).unwrap();
    assert_eq!(queues, ["rx-0", "rx-1", "rx-2", "rx-3", "tx-0", "tx-1", "tx-2", "tx-3"]);
    assert_eq!(client.run(|| names("/sys/class/net/wire0/queues")).unwrap().len(), 4 + 5);
    assert_eq!(server.run(|| names("/run")).unwrap(), [""; 0]);
    server.run(|| fs::write("/run/file", "kept").unwrap()).unwrap();
    assert_eq!(server.run(|| fs::read_to_string("/run/file").unwrap()).unwrap(), "kept");
    assert_eq!(before, (names("/sys/class/net"), fs::read_to_string("/proc/self/mountinfo").unwrap()));
    let (network, mount) = server.paths();
    let again = Namespace::open(&network, &mount).unwrap();
    assert_eq!(again.run(|| names("/sys/class/net")).unwrap(), ["lo", "nic0"]);
}

#[test]
fn the_pair_goes_with_its_namespaces() {
    let Some((server, client)) = namespaces() else { return };
    let (near, far) = ends(&server, &client, 2);
    create_veth_pair(&near, &far).unwrap();
    let error = create_veth_pair(&near, &far).unwrap_err().to_string();
    assert!(error.starts_with("create veth pair nic0 and wire0: ") && error.contains("exists"), "{error}");
    drop(server);
    // The kernel takes a namespace apart in a work queue; a device that is gone has no directory in sysfs.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while client.run(|| names("/sys/class/net")).unwrap() != ["lo"] {
        assert!(std::time::Instant::now() < deadline, "the pair is still there");
        std::thread::yield_now();
    }
}

#[test]
fn an_impossible_name_is_an_error_that_says_it() {
    let Some((server, client)) = namespaces() else { return };
    let (near, far) = ends(&server, &client, 2);
    let error =
        create_veth_pair(&VethEnd { name: "longer-than-15-bytes", ..near }, &far).unwrap_err().to_string();
    assert!(error.contains("longer-than-15-bytes"), "{error}");
}

/// What leaves on TX queue t arrives on RX queue max(t - 1, 0), and RPS of that queue says on which CPU.
#[test]
fn rps_sees_the_senders_queue_minus_one() {
    let Some((server, client)) = namespaces() else { return };
    let cpus = cpus();
    let count = u32::try_from(cpus.len()).unwrap();
    let (near, far) = ends(&server, &client, count);
    create_veth_pair(&near, &far).unwrap();
    for (queue, &cpu) in cpus.iter().enumerate() {
        write(&server, &format!("/sys/class/net/nic0/queues/rx-{queue}/rps_cpus"), &mask(&[cpu]));
    }
    for only in 0..=cpus.len() {
        for queue in 0..=cpus.len() {
            let chosen = if queue == only { mask(&cpus) } else { "0".to_owned() };
            write(&client, &format!("/sys/class/net/wire0/queues/tx-{queue}/xps_cpus"), &chosen);
        }
        let expected = cpus[only.saturating_sub(1)] as usize;
        assert_eq!(incoming_cpus(&server, &client, 10), BTreeMap::from([(expected, 10)]), "TX queue {only}");
    }
}

/// Without RPS a flow is received where it was sent; with one CPU per queue it is received where its hash
/// says, and all CPUs get their share.
#[test]
fn flows_are_spread_over_all_queues_by_hash() {
    let Some((server, client)) = namespaces() else { return };
    let cpus = cpus();
    if cpus.len() < 2 {
        println!("SKIPPED: needs 2 CPUs");
        return;
    }
    let count = u32::try_from(cpus.len()).unwrap();
    let (near, far) = ends(&server, &client, count);
    create_veth_pair(&near, &far).unwrap();
    spread_flows_over_peer_queues(&far, &cpus.iter().copied().collect()).unwrap();
    for &cpu in &cpus {
        let here = std::thread::scope(|scope| {
            let pinned = scope.spawn(|| {
                tune::affinity::pin(cpu).unwrap();
                incoming_cpus(&server, &client, 10)
            });
            pinned.join().unwrap()
        });
        assert_eq!(here, BTreeMap::from([(cpu as usize, 10)]), "as the kernel made it");
    }
    for (queue, &cpu) in cpus.iter().enumerate() {
        write(&server, &format!("/sys/class/net/nic0/queues/rx-{queue}/rps_cpus"), &mask(&[cpu]));
    }
    let connections = count * 100;
    let seen = incoming_cpus(&server, &client, connections);
    assert_eq!(seen.len(), cpus.len(), "{seen:?}");
    // 100 expected on each, standard deviation below 10.
    assert!(seen.values().all(|share| (50..=150).contains(share)), "{seen:?}");
}
