//! A program running in a namespace.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::interrupt::Interrupt;
use crate::namespace::Namespace;
use crate::role;

/// A child process in the role of a program. Dropping it kills it.
pub struct Child {
    program: String,
    process: KilledOnDrop,
    /// Refers to the process also while its number is being reused.
    pidfd: Arc<OwnedFd>,
    lines: Receiver<String>,
    /// Lines of standard error that were read from `lines`.
    seen: Vec<String>,
    stdout: Option<JoinHandle<String>>,
    interrupt: Interrupt,
}

/// A process that is killed and waited for when this is dropped.
struct KilledOnDrop(Process);

impl Child {
    /// Starts this executable as `program` (`server`, `tune` or `load`) in a namespace. It waits for
    /// [`Child::go`] before it runs the program's own code. To be called on a thread that lives as long as
    /// the lab: the kernel kills the child when the thread that started it ends.
    pub(crate) fn start(
        program: &'static str,
        args: &[String],
        namespace: &Namespace,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let (network, mount) = namespace.paths();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("lab")
            .args([role::COMMAND, &std::process::id().to_string(), &network, &mount, program])
            .args(args);
        Self::spawn(program, command, interrupt)
    }

    /// Starts a command, which is called `program` in errors. The caller's thread lives as long as the child
    /// should, if the command is a role: see [`role::die_with_parent`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(program: &str, mut command: Command, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let process = command
            .process_group(0) // Ctrl-C on a terminal is for the lab alone, which then ends its children.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let mut process = KilledOnDrop(process);
        let (sender, lines) = channel();
        let stderr = process.0.stderr.take().expect("piped above");
        thread::spawn(move || forward_lines(BufReader::new(stderr), &sender));
        let mut stdout = process.0.stdout.take().expect("piped above");
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            // What is not UTF-8 or breaks off is missed by whoever reads the text.
            let _ = stdout.read_to_string(&mut text);
            text
        });
        let pid = Pid::from_child(&process.0);
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?);
        interrupt.watch(&pidfd);
        let interrupt = interrupt.clone();
        Ok(Self {
            program: program.to_owned(),
            process,
            pidfd,
            lines,
            seen: Vec::new(),
            stdout: Some(stdout),
            interrupt,
        })
    }

    /// The process number.
    pub fn pid(&self) -> i32 {
        Pid::from_child(&self.process.0).as_raw_nonzero().get()
    }

    /// Lets the program run.
    pub fn go(&mut self) {
        drop(self.process.0.stdin.take());
    }

    /// Waits for a line of standard error that starts with `prefix` and gives the rest of it.
    pub fn wait_for_line(&mut self, prefix: &str, timeout: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(prefix) {
                    Some(rest) => return Ok(rest.to_owned()),
                    None => self.seen.push(line),
                },
                Err(RecvTimeoutError::Disconnected) => {
                    self.interrupt.check()?;
                    let status = self.wait(Duration::from_secs(1))?;
                    return Err(self.failure(status));
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} has not said \"{prefix}\" within {timeout:?}", self.program)
                }
            }
        }
    }

    /// True if the program has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.process.0.try_wait(), Ok(Some(_)))
    }

    /// Asks the program to end (SIGTERM).
    pub fn terminate(&self) -> anyhow::Result<()> {
        pidfd_send_signal(&*self.pidfd, Signal::TERM).with_context(|| format!("SIGTERM to {}", self.program))
    }

    /// Waits until the program has ended and gives what it wrote to standard output.
    pub fn finish(mut self, timeout: Duration) -> anyhow::Result<String> {
        let status = self.wait(timeout)?;
        self.interrupt.check()?;
        if !status.success() {
            return Err(self.failure(status));
        }
        let stdout = self.stdout.take().expect("taken only here");
        stdout.join().map_err(|_| anyhow!("the reader of {}'s output panicked", self.program))
    }

    fn wait(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) =
                self.process.0.try_wait().with_context(|| format!("wait for {}", self.program))?
            {
                return Ok(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.interrupt.check()?;
                bail!("{} has not ended within {timeout:?}", self.program);
            }
            let left = Timespec::try_from(left).context("a time to wait")?;
            match poll(&mut [PollFd::new(&*self.pidfd, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).context("poll of a pidfd"),
            }
        }
    }

    /// The cause of an error of somebody who uses this program: its own failure if it has ended, else
    /// `error`.
    pub fn cause_of(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.process.0.try_wait() {
            Ok(Some(status)) => self.failure(status),
            _ => error,
        }
    }

    /// The error of a program that ended with `status`: its own last words, or the status if it had none.
    fn failure(&mut self, status: ExitStatus) -> anyhow::Error {
        self.seen.extend(self.lines.iter());
        match self.seen.last() {
            Some(line) => anyhow!("{} failed ({status}): {line}", self.program),
            None => anyhow!("{} failed ({status})", self.program),
        }
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Both fail only if the process has been waited for, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forward_lines(reader: impl BufRead, lines: &Sender<String>) {
    // The receiver is gone when nobody wants the lines any more; then the rest is read for nothing, so that
    // the writer does not block.
    let texts = reader.split(b'\n').map_while(Result::ok);
    texts.for_each(|line| drop(lines.send(String::from_utf8_lossy(&line).into_owned())));
}
