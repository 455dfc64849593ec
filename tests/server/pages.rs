//! Where a worker's memory is: `--numa`; and what it is made of: `--huge-pages`.

use std::fs;

use crate::common::{Server, cpus, proc, skipped};

/// A server with one worker, for connections and for datagrams.
fn start(transport: &str, options: &[&str]) -> Server {
    let core = cpus::first().to_string();
    Server::start(&[&[transport, "--cores", &core], options].concat())
}

const TRANSPORTS: [&str; 2] = ["--udp=false", "--udp"];

#[test]
fn with_numa_a_workers_memory_is_on_the_node_of_its_core() {
    let core = cpus::first();
    let policies = |transport: &str, options: &[&str]| {
        let server = start(transport, options);
        let mut threads = proc::threads(server.pid()).into_iter();
        let worker = threads.find(|thread| thread.name == format!("worker-{core}")).expect("a worker");
        proc::memory_policies(server.pid(), worker.number)
    };
    let Some(node) = node_of(core) else { return skipped("this kernel knows no NUMA nodes") };
    let own = format!("bind:{node}");
    for transport in TRANSPORTS {
        let Some(bound) = policies(transport, &["--numa"]) else {
            return skipped("this kernel does not say where memory is to be (/proc/PID/task/TID/numa_maps)");
        };
        assert!(!bound.is_empty() && bound.iter().all(|policy| *policy == own), "{transport}: {bound:?}");
        let free = policies(transport, &[]).expect("as before");
        assert!(free.iter().all(|policy| *policy != own), "{transport}: {free:?}");
    }
}

/// As the kernel writes it: `nodeN` in the CPU's directory.
fn node_of(cpu: u32) -> Option<u32> {
    let names = fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    let mut names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find_map(|name| name.strip_prefix("node")?.parse().ok())
}

/// Huge pages that are set aside until this is dropped.
struct SetAside {
    before: u64,
}

const SETTING: &str = "/proc/sys/vm/nr_hugepages";

impl SetAside {
    /// `None` if this process may not, or the memory is not to be had.
    fn new(count: u64) -> Option<Self> {
        let read = || fs::read_to_string(SETTING).ok()?.trim().parse::<u64>().ok();
        let before = read()?;
        fs::write(SETTING, (before + count).to_string()).ok()?;
        let set_aside = Self { before };
        (read()? >= before + count).then_some(set_aside)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SETTING, self.before.to_string()) {
            eprintln!("give the huge pages back: write {:?} to {SETTING}: {error}", self.before);
        }
    }
}

#[test]
fn with_huge_pages_the_buffers_are_in_huge_pages() {
    let Some(_pages) = SetAside::new(2) else {
        return skipped("needs root and memory to set two huge pages aside (vm.nr_hugepages)");
    };
    for transport in TRANSPORTS {
        let huge = |options: &[&str]| {
            let server = start(transport, options);
            let sizes = proc::page_sizes_kib(server.pid());
            sizes.into_iter().filter(|&size| size > rustix::param::page_size() as u64 / 1024).count()
        };
        assert_eq!(huge(&["--huge-pages", "--buffers", "32", "--buffer-size", "65536"]), 1, "{transport}");
        assert_eq!(huge(&[]), 0, "{transport}");
    }
}
