//! Who is measured: a command, started on a port of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lab::child::Child;
use lab::interrupt::Interrupt;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tune::cpu_set::CpuSet;

use super::counters;
use super::scenario::Scenario;
use crate::role;

/// How long a server may take to start; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports of servers: below those from which clients connect (`ip_local_port_range`), so that no client's port
/// is in the way, and so that a connection to a port on which nobody listens yet is not one to itself.
const PORTS: std::ops::Range<u16> = 11_000..31_000;

/// A server that is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Contender {
    /// Its name in the tables.
    pub(crate) name: String,
    /// Program and arguments, in which `{port}` and `{cores}` stand for the port and the CPU list.
    pub(crate) command: Vec<String>,
    /// What it can be measured in.
    #[serde(skip)]
    pub(crate) serves: Serves,
}

/// In which scenarios a contender can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    All,
    /// It serves a connection to its end before it accepts the next.
    OneAtATime,
    /// It keeps nothing that a socket does not take at once: messages up to 4 KiB, one at a time.
    SmallMessages,
    /// It accepts and closes.
    ConnectReset,
}

impl Contender {
    /// Reads `NAME=PROGRAM ARGS…`, words separated by spaces. Without `{port}` in it, `--cores {cores}
    /// --listen 127.0.0.1:{port}` is added.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("give NAME=COMMAND")?;
        let mut command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if name.is_empty() || command.is_empty() {
            return Err("give NAME=COMMAND, neither of them empty".to_owned());
        }
        if !role::built_in().any(|program| program == command[0]) && !command[0].contains('/') {
            let programs: Vec<_> = role::built_in().collect();
            return Err(format!(
                "\"{}\" is neither one of {} nor a path with a /",
                command[0],
                programs.join(", ")
            ));
        }
        if !command.iter().any(|word| word.contains("{port}")) {
            command.extend(["--cores", "{cores}", "--listen", "127.0.0.1:{port}"].map(str::to_owned));
        }
        Ok(Self { name: name.to_owned(), command, serves: Serves::All })
    }

    /// Whether it can take part.
    pub(crate) fn takes_part(&self, scenario: Scenario) -> bool {
        match self.serves {
            Serves::All => true,
            Serves::OneAtATime => {
                matches!(scenario, Scenario::Echo { connections: 1, .. } | Scenario::Connect { .. })
            }
            Serves::SmallMessages => match scenario {
                Scenario::Echo { size, connections, depth, count } => {
                    size <= 4096 && connections <= 4000 && depth == 1 && count.is_none()
                }
                Scenario::Connect { .. } | Scenario::Backlog { .. } => true,
                Scenario::Open { .. } | Scenario::Memory => false,
            },
            Serves::ConnectReset => scenario == Scenario::Connect { echo: false },
        }
    }

    /// The same with more arguments.
    pub(crate) fn with(mut self, arguments: &str) -> Self {
        self.command.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    fn command(&self, port: u16, cores: &CpuSet) -> Vec<String> {
        let (port, cores) = (port.to_string(), cores.to_string());
        self.command.iter().map(|word| word.replace("{port}", &port).replace("{cores}", &cores)).collect()
    }
}

/// A contender that accepts connections. Dropping it kills it.
pub(crate) struct Running {
    pub(crate) name: String,
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts it on `cores` and waits until it accepts.
    pub(crate) fn start(
        contender: &Contender,
        cores: &CpuSet,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("peers")
            .args([role::COMMAND, &std::process::id().to_string(), &cores.to_string()])
            .args(contender.command(port, cores));
        let mut child = Child::spawn(&contender.name, command, interrupt)?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect_timeout(&address, PATIENCE) {
            interrupt.check()?;
            if child.has_ended() || Instant::now() >= deadline {
                let error =
                    anyhow::Error::new(error).context(format!("connect to {address} of {}", contender.name));
                return Err(child.cause_of(error));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Self { name: contender.name.clone(), child, address })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Stops it (SIGSTOP), all of its processes, until what this gives is dropped.
    pub(crate) fn hold(&self) -> anyhow::Result<Held> {
        let pids: Vec<_> = counters::family(self.pid()).into_iter().filter_map(Pid::from_raw).collect();
        let held = Held(pids);
        for &pid in &held.0 {
            kill_process(pid, Signal::STOP).with_context(|| format!("SIGSTOP to {}", self.name))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !held.0.iter().all(|pid| counters::is_stopped(pid.as_raw_pid())) {
            if Instant::now() >= deadline {
                bail!("{} has not stopped within {PATIENCE:?} of SIGSTOP", self.name);
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(held)
    }

    /// Has it end (SIGTERM); gives what it wrote to standard output.
    pub(crate) fn end(self) -> anyhow::Result<String> {
        self.child.terminate()?;
        self.child.finish(PATIENCE)
    }

    /// Fails if it has ended, with its own last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if self.child.has_ended() {
            return Err(self.child.cause_of(anyhow::anyhow!("{} has ended", self.name)));
        }
        Ok(())
    }
}

/// Processes that are stopped. Dropping it lets them go on.
pub(crate) struct Held(Vec<Pid>);

impl Drop for Held {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // ESRCH: it has been killed.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

/// A port on which nobody listens.
fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runners at the same time begin at different places.
    let count = PORTS.end - PORTS.start;
    let begin = u16::try_from(std::process::id() * 37 % u32::from(count)).context("below a u16")?;
    for _ in 0..count {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let port = PORTS.start + (begin % count + next) % count;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("bind 127.0.0.1: no free port in {} to {}", PORTS.start, PORTS.end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_cores_and_port_where_it_names_them_or_at_its_end() {
        let cores = CpuSet::parse_list("0,2").unwrap();
        let command = |text: &str| Contender::parse(text).unwrap().with("--x 1").command(7, &cores).join(" ");
        assert_eq!(
            command("a=server --buffers 64"),
            "server --buffers 64 --cores 0,2 --listen 127.0.0.1:7 --x 1"
        );
        assert_eq!(command("a=/bin/s  -p {port}/{cores}"), "/bin/s -p 7/0,2 --x 1");
        assert_eq!(Contender::parse("a=b/server --y=3").unwrap().name, "a");
        for bad in ["server", "=server", "a=", "a= ", "a=apache -x"] {
            assert!(Contender::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_is_held_is_stopped_until_it_is_let_go() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let child = Child::spawn("sleep", command, &Interrupt::default()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let running = Running { name: "sleep".to_owned(), child, address };
        let held = running.hold().unwrap();
        assert!(counters::is_stopped(running.pid()));
        drop(held);
        let deadline = Instant::now() + PATIENCE;
        while counters::is_stopped(running.pid()) {
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn free_ports_differ() {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        assert!(ports[0] != ports[1] && ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    }
}
