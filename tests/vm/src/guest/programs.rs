//! Running programs: `tune` to its end, `server` until it is stopped, `load` from the client's namespace.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait;

/// The address of eth0.
pub(super) const ADDRESS: &str = "10.0.0.1:7000";

/// What a program left behind.
#[derive(Debug)]
pub(super) struct Output {
    /// Its exit status; -1 if a signal ended it.
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Output {
    /// Standard output if the program ended with this status.
    pub(super) fn expect(self, code: i32) -> Result<String> {
        if self.code != code {
            bail!("exit status {} instead of {code}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs a program to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `tune`.
pub(super) fn tune(arguments: &[&str]) -> Result<Output> {
    run("./tune", arguments)
}

/// The arguments of a command of `tune` with the shipped profile: on another host than its own with the CPUs
/// that are there.
pub(super) fn with_profile(command: &str) -> Result<Vec<String>> {
    let mut arguments = vec![command.to_owned(), "40g.toml".to_owned()];
    let cpus = super::nic::online()?.to_string();
    if cpus != "0-47" {
        arguments.extend(["--cpus".to_owned(), cpus]);
    }
    Ok(arguments)
}

/// Runs a command of `tune` with the shipped profile.
pub(super) fn profile(command: &str) -> Result<Output> {
    let arguments = with_profile(command)?;
    tune(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A program in the background. It is killed when this is dropped.
pub(super) struct Background(Child);

impl Background {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("start {}", command.get_program().display()))?))
    }

    /// Its process.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid(), signal).context("send a signal")
    }

    /// Its exit status if it has ended; -1 if a signal ended it.
    pub(super) fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.0.try_wait().context("wait for a program")?.map(|status| status.code().unwrap_or(-1)))
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> Result<i32> {
        wait::until("a program ends", || self.ended())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `tune watch --repair`.
pub(super) struct Watch {
    program: Background,
    said: File,
}

impl Watch {
    /// Starts it and waits until it watches.
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new("./tune");
        command.args(with_profile("watch")?).args(["--repair", "--interval", "500ms"]);
        let said = tempfile::tempfile().context("make a file for what watch says")?;
        command.stdout(said.try_clone().context("what watch says")?);
        let watch = Self { program: Background::start(&mut command)?, said };
        watch.wait_for("watching ")?;
        Ok(watch)
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> Result<String> {
        let mut text = vec![0; usize::try_from(self.said.metadata().context("what watch says")?.len())?];
        // At an offset, since it writes where a read would go on.
        self.said.read_exact_at(&mut text, 0).context("read what watch says")?;
        String::from_utf8(text).context("what watch says")
    }

    /// Waits until it has said this.
    pub(super) fn wait_for(&self, text: &str) -> Result<()> {
        wait::until(&format!("watch says \"{text}\""), || Ok(self.said()?.contains(text).then_some(())))
    }

    /// Stops it and gives its exit status.
    pub(super) fn stop(mut self) -> Result<i32> {
        self.program.signal(Signal::TERM)?;
        self.program.wait()
    }
}

/// A running `server`.
pub(super) struct Server {
    program: Background,
    lines: Receiver<String>,
    stdout: Option<thread::JoinHandle<String>>,
}

impl Server {
    /// Starts it on all CPUs and waits until it accepts connections.
    pub(super) fn start(steer: &str) -> Result<Self> {
        let cores = super::nic::online()?.to_string();
        let mut command = Command::new("./server");
        command.args(["--cores", &cores, "--listen", ADDRESS, "--steer", steer, "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = Background::start(&mut command)?;
        let stderr = program.0.stderr.take().context("piped above")?;
        let stdout = program.0.stdout.take().context("piped above")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let stdout = thread::spawn(move || std::io::read_to_string(stdout).unwrap_or_default());
        let server = Self { program, lines, stdout: Some(stdout) };
        server.wait_for("listening on ")?;
        Ok(server)
    }

    /// Waits until it says this, and gives the line.
    pub(super) fn wait_for(&self, text: &str) -> Result<String> {
        loop {
            let line = self.lines.recv_timeout(wait::LIMIT);
            let line = line.with_context(|| format!("the server has not said \"{text}\""))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.program.pid()
    }

    /// Stops it and gives its report.
    pub(super) fn stop(mut self) -> Result<Value> {
        self.program.signal(Signal::TERM)?;
        let code = self.program.wait()?;
        let stdout = self.stdout.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if code != 0 {
            let said: Vec<String> = self.lines.try_iter().collect();
            bail!("server: exit status {code}: {}", said.join("; "));
        }
        serde_json::from_str(&stdout).context("the server's report")
    }
}

/// `load echo` from the client's namespace, in the background.
pub(super) struct Load {
    program: Background,
    report: File,
}

impl Load {
    /// Connections, and messages on each; every byte that comes back is checked.
    pub(super) fn start(connections: u32, messages: u32) -> Result<Self> {
        let report = tempfile::tempfile().context("make a file for the report of load")?;
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            "client",
            "./load",
            "echo",
            "--connect",
            ADDRESS,
            "--json",
            "--timeout",
            &format!("{}s", wait::LIMIT.as_secs()),
        ]);
        command.args(["--connections", &connections.to_string(), "--count", &messages.to_string()]);
        command.stdout(report.try_clone().context("the report of load")?);
        Ok(Self { program: Background::start(&mut command)?, report })
    }

    /// True if it has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.program.ended()?.is_some())
    }

    /// Waits for the end and gives the report; an error if a connection failed or a byte was wrong, which
    /// `load` says on stderr.
    pub(super) fn finish(mut self) -> Result<Value> {
        let code = self.program.wait()?;
        if code != 0 {
            bail!("load: exit status {code}");
        }
        self.report.rewind().context("read the report of load")?;
        serde_json::from_reader(&self.report).context("the report of load")
    }
}

/// A number of a report.
pub(super) fn number(report: &Value, path: &str) -> Result<u64> {
    report.pointer(path).and_then(Value::as_u64).with_context(|| format!("no number {path} in a report"))
}
