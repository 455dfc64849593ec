//! `--stats-interval`: the table of cores while the server runs.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{Client, Launch, Server, cpus, wait_until};

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
        server.stderr().iter().filter(|line| line.starts_with("total") && line.contains("kB/s")).count() >= 2
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

#[test]
fn a_stderr_that_nobody_reads_does_not_stop_the_server() {
    // Nobody reads this pipe: with a table each 100 ms and a pipe of one page it is full soon.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let capacity = rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut child = spawn(writer.into(), &["--stats-interval", "100ms"]);
    wait_until("the pipe is full", || {
        rustix::io::ioctl_fionread(&reader).expect("FIONREAD") + 200 > capacity as u64
    });
    kill_process(Pid::from_child(&child), Signal::TERM).expect("signal the server");
    let mut ended = None;
    wait_until("the end of the server", || {
        ended = child.try_wait().expect("wait for the server");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

fn spawn(stderr: OwnedFd, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--listen", "127.0.0.1:0", "--json"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("start the server")
}

/// A server on a terminal of this size, and what it writes there.
struct OnTerminal {
    child: Child,
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
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal);
        let child = command.spawn().expect("start the server");
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
        Self { child, written }
    }

    fn written(&self) -> String {
        self.written.lock().expect("no panics").clone()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    kill_process(Pid::from_child(&server.child), Signal::TERM).expect("signal the server");
    assert!(server.child.wait().expect("wait for the server").success());
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
