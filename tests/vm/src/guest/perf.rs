//! The real `perf stat` beside `tune`'s own counters of the same process over the same time.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal};
use tune::measure::perf_events::{PerfEvents, PerfReading};

use super::programs::Background;

const OUTPUT: &str = "/tmp/perf-stat";
const FIFOS: [&str; 2] = ["/tmp/perf-control", "/tmp/perf-answer"];
const EVENTS: &str = "task-clock,context-switches,cpu-migrations,page-faults";

/// Both counters of a process.
pub(super) struct Both {
    ours: Vec<PerfEvents>,
    before: PerfReading,
    perf: Background,
    control: File,
    answers: BufReader<File>,
}

/// What both have counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) ours: PerfReading,
    pub(super) perf: PerfReading,
}

impl Both {
    /// Attaches both to every thread of the process, and starts counting.
    pub(super) fn start(pid: Pid) -> Result<Self> {
        let number = pid.as_raw_nonzero().get();
        for fifo in FIFOS {
            let _ = fs::remove_file(fifo);
            mknodat(CWD, fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .with_context(|| format!("make {fifo}"))?;
        }
        let open = |fifo| {
            OpenOptions::new().read(true).write(true).open(fifo).with_context(|| format!("open {fifo}"))
        };
        let (control, answers) = (open(FIFOS[0])?, BufReader::new(open(FIFOS[1])?));
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-o", OUTPUT, "-e", EVENTS, "-D", "-1", "-p", &number.to_string()]);
        command.arg("--control").arg(format!("fifo:{},{}", FIFOS[0], FIFOS[1]));
        let perf = Background::start(command.stderr(Stdio::null()))?;
        let threads =
            fs::read_dir(format!("/proc/{number}/task")).context("list the threads of the server")?;
        let mut ours = Vec::new();
        for thread in threads {
            let thread = thread.context("list the threads of the server")?.file_name();
            ours.push(PerfEvents::attach(thread.to_string_lossy().parse().context("a thread's number")?));
        }
        let mut both = Self { ours, before: PerfReading::default(), perf, control, answers };
        both.tell("enable")?;
        both.before = both.read_ours()?;
        Ok(both)
    }

    /// Stops counting.
    pub(super) fn stop(mut self) -> Result<Counted> {
        let ours = self.read_ours()?.since(&self.before);
        self.tell("disable")?;
        self.perf.signal(Signal::INT)?;
        self.perf.wait()?;
        let text = fs::read_to_string(OUTPUT).with_context(|| format!("read {OUTPUT}"))?;
        Ok(Counted { ours, perf: parse(&text) })
    }

    /// Gives perf a command and waits until it has done it.
    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.control, "{command}").context("tell perf")?;
        self.answers.read_line(&mut String::new()).context("perf's answer")?;
        Ok(())
    }

    fn read_ours(&mut self) -> Result<PerfReading> {
        let mut sum = PerfReading::default();
        for thread in &mut self.ours {
            let more = thread.read().context("read a counter")?;
            let add = |sum: &mut Option<u64>, more: Option<u64>| {
                if let Some(more) = more {
                    *sum = Some(sum.unwrap_or(0) + more);
                }
            };
            add(&mut sum.task_clock_ns, more.task_clock_ns);
            add(&mut sum.context_switches, more.context_switches);
            add(&mut sum.cpu_migrations, more.cpu_migrations);
            add(&mut sum.page_faults, more.page_faults);
        }
        Ok(sum)
    }
}

/// The lines of `perf stat -x,`: value, unit, event, …; task-clock is in milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number of nanoseconds of this run"
)]
fn parse(text: &str) -> PerfReading {
    let value = |event: &str| {
        let line =
            text.lines().find(|line| line.split(',').nth(2).is_some_and(|name| name.starts_with(event)))?;
        line.split(',').next()?.parse::<f64>().ok()
    };
    PerfReading {
        task_clock_ns: value("task-clock").map(|ms| (ms * 1e6) as u64),
        context_switches: value("context-switches").map(|count| count as u64),
        cpu_migrations: value("cpu-migrations").map(|count| count as u64),
        page_faults: value("page-faults").map(|count| count as u64),
        ..PerfReading::default()
    }
}

impl Counted {
    /// True if they say the same: the time within 5 %, the rest within 1 % or 10 events, since they do not
    /// start and stop in the same instant.
    pub(super) fn agree(&self) -> bool {
        let near = |share: u64, least: u64, ours: Option<u64>, perf: Option<u64>| match (ours, perf) {
            (Some(ours), Some(perf)) => ours.abs_diff(perf) <= least.max(perf / share),
            _ => false,
        };
        let (ours, perf) = (&self.ours, &self.perf);
        near(20, 0, ours.task_clock_ns, perf.task_clock_ns)
            && near(100, 10, ours.context_switches, perf.context_switches)
            && near(100, 10, ours.cpu_migrations, perf.cpu_migrations)
            && near(100, 10, ours.page_faults, perf.page_faults)
    }
}

impl std::fmt::Display for Counted {
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pair = |name, perf: Option<u64>, ours: Option<u64>| match (perf, ours) {
            (Some(perf), Some(ours)) => format!("{name} {perf}, ours {ours}"),
            _ => format!("{name} missing"),
        };
        let (perf, ours) = (&self.perf, &self.ours);
        let clock =
            ours.task_clock_ns.zip(perf.task_clock_ns).map_or(0.0, |(ours, perf)| ours as f64 / perf as f64);
        write!(
            f,
            "{}; {}; {}; task-clock ours/perf {clock:.3}",
            pair("context-switches", perf.context_switches, ours.context_switches),
            pair("cpu-migrations", perf.cpu_migrations, ours.cpu_migrations),
            pair("page-faults", perf.page_faults, ours.page_faults),
        )
    }
}
