//! `--stats-interval`: the table of cores while the server runs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{Client, Launch, Server, cpus, proc, skipped, wait_until};

/// Lines with the titles of the columns.
fn tables(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.trim_start().starts_with("core ") && line.contains("accept/s")).count()
}

#[test]
fn off_a_terminal_each_interval_appends_a_block_with_a_timestamp() {
    let server = Server::start(&["--stats-interval", "100ms", "--cores", &cpus::allowed().to_string()]);
    let mut client = Client::connect(server.address);
    wait_until("two tables with traffic", || {
        client.echo(10_000);
        server.stderr().iter().filter(|line| line.starts_with("total") && !line.contains(" 0 B/s")).count()
            >= 2
    });
    let lines = server.stderr();
    let title = lines.iter().position(|line| line.contains("accept/s")).expect("a table") - 1;
    // 2026-11-21T19:00:00Z  0.1 s
    assert_eq!(lines[title].find('T'), Some(10), "{lines:#?}");
    assert!(lines[title].get(19..22) == Some("Z  "), "{lines:#?}");
    for cpu in cpus::allowed().iter() {
        let has_row = lines.iter().any(|line| line.split_whitespace().next() == Some(&cpu.to_string()));
        assert!(has_row, "core {cpu} in {lines:#?}");
    }
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:#?}");
    drop(client);
    server.stop_when_nothing_is_open();
}

#[test]
fn the_last_table_comes_before_the_report() {
    let server = Launch::new(&["--stats-interval", "100ms"]).human().start();
    wait_until("a table", || tables(&server.stderr()) >= 1);
    let ended = server.terminate();
    assert_eq!(ended.status.code(), Some(0));
    let report = ended.stderr.iter().rposition(|line| line.contains("bytes in")).expect("a report");
    assert!(
        tables(&ended.stderr[..report]) >= 1 && tables(&ended.stderr[report..]) == 0,
        "{:#?}",
        ended.stderr
    );
}

/// The server is told to end while a table waits for somebody to read the last ones.
#[test]
fn a_stderr_that_nobody_reads_does_not_stop_the_server() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    // Opened anew, so that O_NONBLOCK is not the server's.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut filler = File::options().write(true).custom_flags(nonblocking).open(path).expect("open a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--listen", "127.0.0.1:0", "--json", "--stats-interval", "100ms"]);
    let mut server = Running::start(command, writer);
    let pid = server.child.id();
    wait_until("a first table", || rustix::io::ioctl_fionread(&reader).expect("FIONREAD") > 100);
    while filler.write(b"x").is_ok() {}
    // The signal thread sleeps all the time.
    if proc::threads(pid).iter().any(|thread| thread.name == "signals" && thread.waits_in == "0") {
        return skipped("this kernel does not say where a thread sleeps (/proc/PID/task/TID/wchan)");
    }
    wait_until("a table that waits", || {
        let thread = proc::threads(pid).into_iter().find(|thread| thread.name == "live-table");
        thread.is_some_and(|thread| thread.waits_in.contains("pipe_write"))
    });
    assert!(server.terminate().success());
}

/// A server that is killed when the test ends.
struct Running {
    child: Child,
}

impl Running {
    fn start(mut command: Command, stderr: impl Into<Stdio>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Self { child: command.spawn().expect("start the server") }
    }

    fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signal the server");
        let mut ended = None;
        wait_until("the end of the server", || {
            ended = self.child.try_wait().expect("wait for the server");
            ended.is_some()
        });
        ended.expect("waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server on a terminal of this size, and what it writes there.
struct OnTerminal {
    server: Running,
    written: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(rows: u16, columns: u16, no_color: bool) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudoterminal");
        grantpt(&controller).expect("grantpt");
        unlockpt(&controller).expect("unlockpt");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("set the size");
        let name = ptsname(&controller, Vec::new()).expect("its name").into_string().expect("ASCII");
        let terminal = File::options().read(true).write(true).open(name).expect("open the terminal");
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(["--listen", "127.0.0.1:0", "--json", "--stats-interval", "100ms"]);
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(no_color.then_some(("NO_COLOR", "1")));
        let server = Running::start(command, terminal);
        let written = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut controller = File::from(controller);
            let mut chunk = [0; 4096];
            // EIO once the server has ended.
            while let Ok(count @ 1..) = controller.read(&mut chunk) {
                kept.lock().expect("no panics").push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        });
        Self { server, written }
    }

    fn written(&self) -> String {
        self.written.lock().expect("no panics").clone()
    }
}

#[test]
fn on_a_terminal_the_table_is_redrawn_in_place_and_fits() {
    let mut server = OnTerminal::start(10, 60, false);
    // Up as many lines as the table has, to the first column, clear.
    wait_until("a third table", || server.written().matches("A\r\x1b[J").count() >= 2);
    let written = server.written();
    assert!(written.contains("\x1b[1m core  open  accept/s"), "titles in bold: {written:?}");
    for frame in written.split("\r\x1b[J").skip(1) {
        let lines: Vec<&str> = frame.split("\r\n").collect();
        assert!(lines.len() <= 10, "{frame:?}");
        let plain = |line: &str| line.replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert!(lines.iter().all(|line| plain(line).chars().count() <= 60), "{frame:?}");
    }
    assert!(server.server.terminate().success());
    assert!(
        server.written().ends_with("\r\n"),
        "the cursor is at the start of a line: {:?}",
        server.written()
    );
}

#[test]
fn no_color_is_respected() {
    let server = OnTerminal::start(24, 80, true);
    wait_until("a second table", || server.written().contains("A\r\x1b[J"));
    assert!(!server.written().contains("\x1b[1m"), "{:?}", server.written());
}
