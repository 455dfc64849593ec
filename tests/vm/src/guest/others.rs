//! Servers that we did not write, on the tuned NIC: what tuning the host alone gives them.
//!
//! For each connection the CPU that received its last segment (SO_INCOMING_CPU of the server's own socket,
//! taken with `pidfd_getfd(2)`) is compared with the CPU of the worker that serves it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use socket2::Socket;
use tune::cpu_set::Cpu;

use super::programs::{self, ADDRESS, Background};
use super::table::Table;
use super::{http, nic, wait};

const CONNECTIONS: usize = 1000;
const REQUESTS: usize = 8;

/// Where haproxy answers questions.
const HAPROXY: &str = "/tmp/haproxy.sock";

/// A server: how it is started, and how the CPU of each connection's worker is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// A process for each CPU, each with a listener (`reuseport`), bound to its CPU (`worker_cpu_affinity`).
    Nginx,
    /// A thread for each CPU, each with a listener (`shards by-thread`), bound to its CPU (`cpu-map`).
    Haproxy,
}

/// How the host is set up.
const HOSTS: [(&str, Option<&str>); 3] = [
    ("untuned", None),
    ("profiles/40g.toml", Some("")),
    // What somebody would add who cannot choose the listener by CPU: the flow follows the thread that reads
    // it.
    ("profiles/40g.toml with RFS", Some("rps_flow_cnt = 2048")),
];

pub(super) fn run(table: &mut Table) -> Result<()> {
    for (host, change) in HOSTS {
        if let Some(change) = change {
            apply(change)?;
        }
        for server in [Server::Nginx, Server::Haproxy] {
            let (local, all) = locality(server)?;
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = 100.0 * local as f64 / all as f64;
            table.check(
                &format!("{server:?}, {host}"),
                all == CONNECTIONS,
                format!("{share:.1} % of the connections local: {local} of {all}"),
            );
        }
        if change.is_some() {
            programs::tune(&["restore"])?.expect(0)?;
        }
    }
    Ok(())
}

/// Applies the shipped profile, with RFS if `flows` says so.
fn apply(flows: &str) -> Result<()> {
    if flows.is_empty() {
        programs::profile("apply")?.expect(0)?;
        return Ok(());
    }
    let profile = nic::read("40g.toml")?.replace("rps_flow_cnt = 0", flows);
    let profile = profile.replace("[sysctl]", "[sysctl]\n\"net.core.rps_sock_flow_entries\" = 32768");
    fs::write("/tmp/rfs.toml", profile).context("write /tmp/rfs.toml")?;
    programs::tune(&["apply", "/tmp/rfs.toml", "--cpus", &nic::online()?.to_string()])?.expect(0)?;
    Ok(())
}

/// How many of the connections are local, and how many there are.
fn locality(server: Server) -> Result<(usize, usize)> {
    let mut running = server.start()?;
    wait::until("the server listens", || {
        if let Some(code) = running.ended()? {
            anyhow::bail!("{server:?} ended with status {code}");
        }
        Ok(std::net::TcpStream::connect(ADDRESS).ok())
    })?;
    let client = Client::start()?;
    let sockets = server.sockets(running.pid())?;
    drop(client);
    // Killed, the first process of nginx would leave the others behind, with their listeners.
    running.signal(Signal::TERM)?;
    running.wait()?;
    let local = sockets.iter().filter(|(worker, incoming)| worker == incoming).count();
    Ok((local, sockets.len()))
}

impl Server {
    fn start(self) -> Result<Background> {
        let cpus = nic::online()?.len();
        let (file, text) = match self {
            Self::Nginx => ("/tmp/nginx.conf", nginx(cpus)),
            Self::Haproxy => ("/tmp/haproxy.cfg", haproxy(cpus)),
        };
        fs::create_dir_all("/var/log/nginx").context("make /var/log/nginx")?;
        fs::create_dir_all("/var/lib/nginx").context("make /var/lib/nginx")?;
        fs::write(file, text).with_context(|| format!("write {file}"))?;
        match self {
            Self::Nginx => Background::start(Command::new("nginx").args(["-c", file])),
            Self::Haproxy => Background::start(Command::new("haproxy").args(["-q", "-db", "-f", file])),
        }
    }

    /// Of each connection the CPU of its worker, and the CPU that received its last segment.
    fn sockets(self, main: Pid) -> Result<Vec<(Cpu, Cpu)>> {
        match self {
            Self::Nginx => {
                let mut all = Vec::new();
                for process in children(main)? {
                    let status = nic::read(format!("/proc/{}/status", process.as_raw_nonzero()))?;
                    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                    let cpu =
                        list.context("Cpus_allowed_list")?.trim().parse().context("a worker's one CPU")?;
                    all.extend(connections(process)?.into_values().map(|incoming| (cpu, incoming)));
                }
                Ok(all)
            }
            Self::Haproxy => {
                let threads = haproxy_threads()?;
                let sockets = connections(main)?.into_iter();
                Ok(sockets
                    .filter_map(|(number, incoming)| Some((*threads.get(&number)?, incoming)))
                    .collect())
            }
        }
    }
}

fn nginx(cpus: usize) -> String {
    format!(
        "daemon off; user root; pid /tmp/nginx.pid; worker_processes {cpus}; worker_cpu_affinity auto;
         error_log /tmp/nginx.log; worker_rlimit_nofile 4096; events {{ worker_connections 2048; }}
         http {{ access_log off; keepalive_timeout 1h; server {{ listen {ADDRESS} reuseport backlog=4096;
         location / {{ return 200 \"{}\"; }} }} }}\n",
        http::BODY
    )
}

fn haproxy(cpus: usize) -> String {
    format!(
        "global\n nbthread {cpus}\n cpu-map auto:1/1-{cpus} 0-{}\n maxconn 8192\n stats socket {HAPROXY} \
         level admin\n\
         defaults\n mode http\n timeout client 1h\n timeout http-keep-alive 1h\n timeout http-request 1h\n\
         frontend f\n bind {ADDRESS} shards by-thread\n\
         http-request return status 200 content-type text/plain string {}\n",
        cpus - 1,
        http::BODY
    )
}

/// The processes that a process has started.
fn children(process: Pid) -> Result<Vec<Pid>> {
    let number = process.as_raw_nonzero();
    let list = nic::read(format!("/proc/{number}/task/{number}/children"))?;
    let child = |text: &str| Pid::from_raw(text.parse().ok()?);
    Ok(list.split_whitespace().filter_map(child).collect())
}

/// The connections of a process by descriptor, with the CPU that received the last segment.
fn connections(process: Pid) -> Result<BTreeMap<RawFd, Cpu>> {
    let pidfd = pidfd_open(process, PidfdFlags::empty()).context("pidfd_open")?;
    let directory = format!("/proc/{}/fd", process.as_raw_nonzero());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
        let name = entry.with_context(|| format!("list {directory}"))?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        let Ok(socket) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) else { continue };
        if let Some(cpu) = incoming_cpu(socket) {
            found.insert(number, cpu);
        }
    }
    Ok(found)
}

/// SO_INCOMING_CPU if this is a connection of the client.
fn incoming_cpu(socket: OwnedFd) -> Option<Cpu> {
    let socket = Socket::from(socket);
    let peer = socket.peer_addr().ok()?.as_socket()?;
    if peer.ip().to_string() != "10.0.0.2" {
        return None;
    }
    socket.cpu_affinity().ok()?.try_into().ok()
}

/// The CPU of the thread that serves each descriptor: thread t is bound to CPU t. `show fd` has the mask of
/// threads as `tmask=0x…`.
fn haproxy_threads() -> Result<BTreeMap<RawFd, Cpu>> {
    let mut socket = UnixStream::connect(HAPROXY).with_context(|| format!("connect to {HAPROXY}"))?;
    socket.write_all(b"show fd\n").context("ask haproxy")?;
    let mut text = String::new();
    socket.read_to_string(&mut text).context("haproxy's answer")?;
    let thread = |line: &str| {
        let (number, rest) = line.trim().split_once(" : ")?;
        let mask = rest.split_once("tmask=0x")?.1.split_whitespace().next()?;
        let mask = u64::from_str_radix(mask, 16).ok()?;
        (mask.count_ones() == 1).then_some((number.trim().parse().ok()?, mask.trailing_zeros()))
    };
    Ok(text.lines().filter_map(thread).collect())
}

/// The client, whose connections are open as long as this lives.
struct Client(Child);

impl Client {
    fn start() -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "client", "./vm", "http-client", ADDRESS]);
        command.args([CONNECTIONS.to_string(), REQUESTS.to_string()]);
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the client")?;
        let mut client = Self(child);
        let stdout = client.0.stdout.take().context("piped above")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the client")?;
        anyhow::ensure!(line.trim_end() == http::READY, "the client has failed");
        Ok(client)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
