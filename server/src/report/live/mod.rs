//! The live table (`--stats-interval`): what each core did in the last interval, on stderr.
//!
//! On a terminal it is redrawn in place; elsewhere each is a block of lines with a timestamp. [`frame`] makes
//! the lines.

mod frame;

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::stats::{Counters, LiveCore};
use frame::{Row, Size};

/// How long the rest of the server waits for a table that is being written to a stderr that nobody reads.
const PATIENCE: Duration = Duration::from_secs(1);

/// The thread that writes the table. Ends when this is dropped.
pub(crate) struct LiveTable {
    /// Where to answer when the table has been left.
    leave: Option<Sender<SyncSender<()>>>,
    /// Nothing is ever sent; disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl LiveTable {
    /// Starts it: the first table comes after one interval.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(crate) fn start(interval: Duration, cores: Vec<LiveCore>) -> Result<Self> {
        let (leave, asked) = channel();
        let (end, ended) = sync_channel::<()>(0);
        thread::Builder::new()
            .name("live-table".to_owned())
            .spawn(move || {
                // A stderr that is gone ends the table, nothing else.
                let _ = draw_until_left(interval, &cores, &asked);
                drop(end);
            })
            .context("start the thread of the live table")?;
        Ok(Self { leave: Some(leave), ended })
    }

    /// Leaves the table that is on the terminal where it is: the next one is drawn below what is written to
    /// stderr after this call.
    pub(crate) fn leave(&self) {
        let (answer, left) = sync_channel(1);
        if self.leave.as_ref().is_some_and(|leave| leave.send(answer).is_ok()) {
            let _ = left.recv_timeout(PATIENCE);
        }
    }
}

impl Drop for LiveTable {
    /// Nothing is written after this.
    fn drop(&mut self) {
        self.leave = None;
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

fn draw_until_left(
    interval: Duration,
    cores: &[LiveCore],
    leave: &Receiver<SyncSender<()>>,
) -> io::Result<()> {
    let mut screen = Screen::of_stderr();
    let mut before: Vec<Counters> = read(cores);
    let mut last = Instant::now();
    let mut due = last + interval;
    loop {
        match leave.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(answer) => {
                screen.drawn = 0;
                let _ = answer.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                let (now, counters) = (Instant::now(), read(cores));
                let rows = cores.iter().zip(counters.iter().zip(&before));
                let rows: Vec<Row> =
                    rows.map(|(core, (now, before))| Row::new(core.cpu, now, before)).collect();
                screen.draw(&rows, now - last, &mut io::stderr().lock())?;
                (before, last) = (counters, now);
                due += interval;
                if due <= now {
                    due = now + interval; // what could not be drawn in time is left out
                }
            }
        }
    }
}

fn read(cores: &[LiveCore]) -> Vec<Counters> {
    cores.iter().map(|core| core.counters.read()).collect()
}

/// Where the table goes.
struct Screen {
    /// Redraw in place.
    terminal: bool,
    /// Titles in bold.
    bold: bool,
    /// Lines of the last table, above the cursor.
    drawn: usize,
}

impl Screen {
    fn of_stderr() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { terminal, bold: terminal && !is_set("NO_COLOR"), drawn: 0 }
    }

    fn draw(&mut self, rows: &[Row], time: Duration, out: &mut impl Write) -> io::Result<()> {
        let size = self.terminal.then(size_of_stderr);
        let title =
            format!("{}  {:.1} s", humantime::format_rfc3339_seconds(SystemTime::now()), time.as_secs_f64());
        let lines = frame::lines(&title, time, rows, size);
        out.write_all(self.paint(&lines).as_bytes())?;
        out.flush()
    }

    /// The bytes that put these lines in the place of the last ones.
    fn paint(&mut self, lines: &[String]) -> String {
        let mut text = String::new();
        if self.terminal {
            if self.drawn > 0 {
                text = format!("\x1b[{}A", self.drawn); // up
            }
            text.push_str("\r\x1b[J"); // clear from here to the end of the screen
            self.drawn = lines.len();
        }
        for (number, line) in lines.iter().enumerate() {
            let bold = self.bold && number == frame::TITLES;
            let line = if bold { format!("\x1b[1m{line}\x1b[0m\n") } else { format!("{line}\n") };
            text.push_str(&line);
        }
        text
    }
}

fn size_of_stderr() -> Size {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            Size { rows: size.ws_row.into(), columns: size.ws_col.into() }
        }
        _ => Size { rows: 24, columns: 80 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> [String; 3] {
        ["time", "titles", "row"].map(str::to_owned)
    }

    #[test]
    fn off_a_terminal_there_are_only_the_lines() {
        let mut screen = Screen { terminal: false, bold: false, drawn: 0 };
        assert_eq!([screen.paint(&lines()), screen.paint(&lines())], ["time\ntitles\nrow\n"; 2]);
    }

    #[test]
    fn on_a_terminal_the_second_table_takes_the_place_of_the_first() {
        let mut screen = Screen { terminal: true, bold: true, drawn: 0 };
        assert_eq!(screen.paint(&lines()), "\r\x1b[Jtime\n\x1b[1mtitles\x1b[0m\nrow\n");
        assert_eq!(screen.paint(&lines()[..1]), "\x1b[3A\r\x1b[Jtime\n");
        assert!(screen.paint(&[]).starts_with("\x1b[1A"));
    }
}
