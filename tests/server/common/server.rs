//! The server as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::report::Report;
use super::{DEADLINE, WATCH, comes_true, proc, sockets, wait_until};

/// How to start a server. The defaults: any port of 127.0.0.1, the report as JSON.
pub(crate) struct Launch {
    wrapper: Vec<String>,
    listen: String,
    json: bool,
    args: Vec<String>,
    user: Option<u32>,
}

/// A running server that accepts connections. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its first line on stderr.
    pub(crate) ready: String,
    stderr: Arc<Mutex<Vec<String>>>,
    readers: Option<(JoinHandle<()>, JoinHandle<String>)>,
}

/// What a server that ended has left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: Vec<String>,
    /// From the signal, or from the start, to the end.
    pub(crate) took: Duration,
}

impl Launch {
    /// A server with these options beside `--listen 127.0.0.1:0 --json`.
    pub(crate) fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { wrapper: Vec::new(), listen: "127.0.0.1:0".to_owned(), json: true, args, user: None }
    }

    /// Another `--listen`.
    pub(crate) fn listen(mut self, address: &(impl ToString + ?Sized)) -> Self {
        self.listen = address.to_string();
        self
    }

    /// Without `--json`: the report is a table on stderr.
    pub(crate) fn human(mut self) -> Self {
        self.json = false;
        self
    }

    /// With at most this many descriptors (RLIMIT_NOFILE, soft and hard).
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        self.wrapper = ["sh", "-c", &script].map(str::to_owned).to_vec();
        self
    }

    /// With at most this many KiB of locked memory (RLIMIT_MEMLOCK, soft and hard).
    pub(crate) fn locked_memory(mut self, kibibytes: u32) -> Self {
        let script = format!("ulimit -l {kibibytes}; exec \"$0\" \"$@\"");
        self.wrapper = ["sh", "-c", &script].map(str::to_owned).to_vec();
        self
    }

    /// With at most this many KiB of address space (RLIMIT_AS, soft and hard).
    pub(crate) fn address_space(mut self, kibibytes: u32) -> Self {
        let script = format!("ulimit -v {kibibytes}; exec \"$0\" \"$@\"");
        self.wrapper = ["sh", "-c", &script].map(str::to_owned).to_vec();
        self
    }

    /// With SIGINT and SIGTERM blocked by who starts it.
    pub(crate) fn signals_blocked(mut self) -> Self {
        self.wrapper = ["env", "--block-signal=INT,TERM"].map(str::to_owned).to_vec();
        self
    }

    /// With SIGHUP ignored, as nohup(1) starts a program.
    pub(crate) fn hangup_ignored(mut self) -> Self {
        self.wrapper = ["env", "--ignore-signal=HUP"].map(str::to_owned).to_vec();
        self
    }

    /// As this user (needs root).
    pub(crate) fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    fn command(&self) -> Command {
        let server = env!("CARGO_BIN_EXE_server");
        let mut command = match self.wrapper.split_first() {
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(server);
                command
            }
            None => Command::new(server),
        };
        command.args(["--listen", &self.listen]).args(self.json.then_some("--json")).args(&self.args);
        if let Ok(features) = std::env::var("SERVER_WITHOUT") {
            let used = features.split(',').filter(|feature| self.uses(feature));
            used.for_each(|feature| _ = command.args(["--without", feature]));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(uid) = self.user {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(uid);
        }
        command
    }

    /// False if the options leave this feature unused: the server refuses to do without it then.
    fn uses(&self, feature: &str) -> bool {
        let leave = match feature {
            "direct-descriptors" => &["--udp", "single"][..],
            "receive-credit" => &["--udp", "accept-close"],
            _ => &["--udp", "--mode", "--zerocopy-threshold"],
        };
        !self.args.iter().any(|arg| leave.contains(&arg.as_str()))
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Panics
    /// If it ends instead, or says nothing within [`DEADLINE`].
    pub(crate) fn start(self) -> Server {
        let (mut server, first_line) = self.spawn();
        let Ok(line) = first_line.recv_timeout(DEADLINE) else {
            panic!("the server does not say that it listens; on stderr: {:?}", server.stderr());
        };
        assert!(server.is_ready(&line), "not \"server: listening on ADDRESS:PORT, …\": {line}");
        server
    }

    /// Starts a server that may lack what it needs to run. `None` if its first line is not that it listens.
    ///
    /// # Panics
    /// If it says nothing within [`DEADLINE`].
    pub(crate) fn start_if_it_can(self) -> Option<Server> {
        let (mut server, first_line) = self.spawn();
        let line = first_line.recv_timeout(DEADLINE).expect("it listens, or says why not");
        server.is_ready(&line).then_some(server)
    }

    fn spawn(self) -> (Server, Receiver<String>) {
        let mut child = self.command().spawn().unwrap_or_else(|error| panic!("start the server: {error}"));
        let stderr = child.stderr.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (first_line, ready) = channel();
        let kept = Arc::clone(&lines);
        let stderr = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().expect("no reader panics").push(line.clone());
                // Nobody listens for the lines after the first.
                let _ = first_line.send(line);
            }
        });
        let stdout = std::thread::spawn(move || read_all(stdout));
        let server = Server {
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            ready: String::new(),
            stderr: lines,
            readers: Some((stderr, stdout)),
        };
        (server, ready)
    }

    /// Starts a server that must refuse to run, and waits for its end.
    ///
    /// # Panics
    /// If it still runs after [`DEADLINE`].
    pub(crate) fn refused(self) -> Ended {
        let start = Instant::now();
        let mut child = self.command().spawn().unwrap_or_else(|error| panic!("start the server: {error}"));
        let stderr = child.stderr.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let stderr = std::thread::spawn(move || read_all(stderr));
        let stdout = std::thread::spawn(move || read_all(stdout));
        let status = end_of(&mut child);
        Ended {
            status,
            stdout: stdout.join().expect("read stdout"),
            stderr: stderr.join().expect("read stderr").lines().map(str::to_owned).collect(),
            took: start.elapsed(),
        }
    }
}

impl Server {
    /// A server with these options beside `--listen 127.0.0.1:0 --json`, ready to serve.
    pub(crate) fn start(args: &[&str]) -> Self {
        Launch::new(args).start()
    }

    /// True if the first line says that it listens.
    fn is_ready(&mut self, line: &str) -> bool {
        let address = line
            .strip_prefix("server: listening on ")
            .and_then(|rest| rest.split(',').next())
            .and_then(|address| address.parse().ok());
        self.ready = line.to_owned();
        self.address = address.unwrap_or(self.address);
        address.is_some()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process, for rustix.
    pub(crate) fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Lines on stderr so far.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.lock().expect("no reader panics").clone()
    }

    /// Connections that it has accepted and not closed.
    pub(crate) fn held(&self) -> usize {
        sockets::held(self.address.port())
    }

    /// Connections in its accept queues.
    pub(crate) fn waiting(&self) -> u32 {
        sockets::waiting(self.address.port())
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu_time(&self) -> Duration {
        proc::cpu_time(self.pid())
    }

    /// Waits until it uses less than a fifth of a CPU: it has done what it was to do, and sleeps.
    ///
    /// # Panics
    /// If it never does: something keeps it busy though nothing is to be done.
    pub(crate) fn wait_until_it_sleeps(&self) {
        let sleeps = || {
            let before = self.cpu_time();
            std::thread::sleep(WATCH);
            self.cpu_time() - before < WATCH / 5
        };
        assert!((0..30).any(|_| sleeps()), "it never sleeps, and nothing is to be done");
    }

    /// Waits until it holds no connection and none waits for it.
    pub(crate) fn wait_until_nothing_is_open(&self) {
        wait_until("every connection closed by the server", || sockets::all_closed(self.address.port()));
    }

    /// Sets its limit of open files (RLIMIT_NOFILE, soft). Raising it again needs no rights.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let pid = Some(self.process());
        // It has raised its soft limit to the hard one, which is that of this process.
        let limit = Rlimit { current: Some(limit), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(pid, Resource::Nofile, limit).expect("set the server's limit of open files");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("signal the server");
    }

    /// Takes the CPUs away from it until [`Server::thaw`]: what arrives meanwhile it meets all at once.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        // The main thread may stop before the others, who go on meanwhile.
        let stopped = || proc::states(self.pid()).iter().all(|&state| state == 'T');
        wait_until("the server stopped by SIGSTOP", stopped);
    }

    /// Undoes [`Server::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// True as long as it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for the server").is_none()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    /// Waits for the end of a server that was told to end.
    ///
    /// # Panics
    /// If it still runs after [`DEADLINE`].
    pub(crate) fn wait_for_end(mut self) -> Ended {
        let start = Instant::now();
        let status = end_of(&mut self.child);
        let took = start.elapsed();
        let (stderr, stdout) = self.readers.take().expect("taken here alone");
        stderr.join().expect("read stderr");
        Ended { status, stdout: stdout.join().expect("read stdout"), stderr: self.stderr(), took }
    }

    /// Sends SIGTERM, waits for the end, and returns its report.
    ///
    /// # Panics
    /// If it does not end with exit code 0 and one report.
    pub(crate) fn stop(self) -> Report {
        self.terminate().report()
    }

    /// As [`Server::stop`], after all connections, which the clients have closed, are closed here too.
    pub(crate) fn stop_when_nothing_is_open(self) -> Report {
        self.wait_until_nothing_is_open();
        self.stop()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said: {:?}", self.stderr());
        }
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The one line of a server that refused to run.
    ///
    /// # Panics
    /// If that is not what happened: exit code 1, nothing on stdout, one line `server: …` on stderr.
    pub(crate) fn error_line(&self) -> &str {
        assert_eq!(self.status.code(), Some(1), "exit code: {self:?}");
        assert_eq!(self.stdout, "", "stdout");
        match self.stderr.as_slice() {
            [line] if line.starts_with("server: ") => line,
            _ => panic!("not one line \"server: …\" on stderr: {:#?}", self.stderr),
        }
    }

    /// # Panics
    /// If the server has neither refused as in [`Ended::error_line`] nor, for a usage error, with exit code
    /// 2.
    pub(crate) fn assert_refused(&self) {
        if self.status.code() == Some(2) {
            assert_eq!(self.stdout, "", "stdout");
            assert!(self.stderr.iter().any(|line| line.starts_with("error: ")), "no usage error: {self:?}");
        } else {
            self.error_line();
        }
    }

    /// The report of a server that ended well.
    ///
    /// # Panics
    /// If the exit code is not 0 or stdout is not one report.
    pub(crate) fn report(&self) -> Report {
        assert_eq!(self.status.code(), Some(0), "exit code: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in the report: {self:?}"))
    }
}

/// # Panics
/// If it still runs after [`DEADLINE`]; then it is killed.
fn end_of(child: &mut Child) -> ExitStatus {
    let ended = comes_true(|| child.try_wait().expect("wait for the server").is_some());
    if !ended {
        child.kill().expect("kill the server");
    }
    let status = child.wait().expect("wait for the server");
    assert!(ended, "the server still runs after {DEADLINE:?}");
    status
}

fn read_all(mut pipe: impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).expect("the server writes UTF-8");
    text
}
