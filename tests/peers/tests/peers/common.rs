//! A peer as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running peer, killed when dropped.
pub(crate) struct Peer {
    process: Child,
    errors: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// Its name, and more arguments.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::limited(None, args)
    }

    /// With at most so many open files.
    pub(crate) fn limited(files: Option<u32>, args: &[&str]) -> Self {
        let limit = files.map_or(String::new(), |files| format!("ulimit -n {files} && "));
        let mut process = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_peers")])
            .args(args)
            .args(["--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the peer");
        let mut line = String::new();
        let mut errors = BufReader::new(process.stderr.take().expect("piped above"));
        errors.read_line(&mut line).expect("its standard error");
        let address = line
            .strip_prefix(&*format!("{}: listening on ", args[0]))
            .and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("{line:?}")).parse().expect("an address");
        let peer = Self { process, errors, address };
        // The listener is there before the threads have what else they need, and the tests of epoll count
        // descriptors.
        wait_until("each thread has its epoll", || args[0] != "epoll" || peer.epolls() + 1 >= peer.threads());
        peer
    }

    /// Connects, with patience.
    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        socket
    }

    /// Sends on a new connection, half-closes it, and gives what comes until the end.
    pub(crate) fn half_close_after(&self, bytes: &[u8]) -> Vec<u8> {
        let (socket, mut received) = (self.connect(), Vec::new());
        let (mut reader, mut writer) = (&socket, &socket);
        thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(bytes).expect("send");
                writer.shutdown(Shutdown::Write).expect("half-close");
            });
            reader.read_to_end(&mut received).expect("receive");
        });
        received
    }

    /// What it says when it ends by itself.
    pub(crate) fn last_words(mut self) -> String {
        let mut words = String::new();
        self.errors.read_to_string(&mut words).expect("its standard error");
        words
    }

    /// Numbers of its open descriptors, those that it has inherited too.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs");
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
    }

    /// How many it has open.
    pub(crate) fn files(&self) -> usize {
        self.numbers().count()
    }

    /// How many of its descriptors are an epoll.
    fn epolls(&self) -> usize {
        let path = |number: u32| format!("/proc/{}/fd/{number}", self.process.id());
        let is_epoll = |number: &u32| {
            fs::read_link(path(*number)).is_ok_and(|link| link.ends_with("anon_inode:[eventpoll]"))
        };
        self.numbers().filter(is_epoll).count()
    }

    /// Stops it while `meanwhile` runs.
    pub(crate) fn hold<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::STOP).expect("it runs");
        wait_until("all of its threads are stopped", || {
            self.tasks().all(|task| {
                let state = fs::read_to_string(task.join("status")).expect("it is there");
                state.lines().any(|line| line.starts_with("State:\tT"))
            })
        });
        let result = meanwhile();
        kill_process(pid, Signal::CONT).expect("it is there");
        result
    }

    /// The directories of its threads.
    fn tasks(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("it runs");
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        self.tasks().count()
    }

    /// CPU time of its threads.
    pub(crate) fn cpu_time(&self) -> Duration {
        let time = |task: PathBuf| -> Option<Duration> {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().map(Duration::from_nanos).ok()
        };
        self.tasks().filter_map(time).sum()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes in which every place is different from its neighbours.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from((place * 31 + place / 251) % 256).expect("below 256")).collect()
}
