//! The real `perf stat` beside `tune`'s own counters of the same process over the same time.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::ops::RangeInclusive;
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
    /// Ours before perf was told to start, and after it had done so.
    start: [PerfReading; 2],
    perf: Background,
    control: File,
    answers: BufReader<File>,
}

/// What both have counted. They do not start and stop in the same instant; but what ours counted while perf
/// did, it must have counted, too, and it cannot have counted more than ours did from before its start until
/// after its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Ours while perf counted.
    within: PerfReading,
    /// Ours from before its start until after its end.
    around: PerfReading,
    perf: PerfReading,
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
        let mut both = Self { ours, start: <[PerfReading; 2]>::default(), perf, control, answers };
        both.start[0] = both.read_ours()?;
        both.tell("enable")?;
        both.start[1] = both.read_ours()?;
        Ok(both)
    }

    /// Stops counting.
    pub(super) fn stop(mut self) -> Result<Counted> {
        let within = self.read_ours()?.since(&self.start[1]);
        self.tell("disable")?;
        let around = self.read_ours()?.since(&self.start[0]);
        self.perf.signal(Signal::INT)?;
        self.perf.wait()?;
        let text = fs::read_to_string(OUTPUT).with_context(|| format!("read {OUTPUT}"))?;
        Ok(Counted { within, around, perf: parse(&text) })
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

/// How often an event was counted.
struct Count {
    perf: u64,
    /// Between what ours must have it.
    ours: RangeInclusive<u64>,
}

impl Counted {
    /// True if they say the same, and something: the events exactly, the time within 5 %, since each counter
    /// of a thread begins and ends its turn for itself.
    pub(super) fn agree(&self) -> bool {
        let time = |reading: &PerfReading| reading.task_clock_ns;
        let [perf, within, around] = [&self.perf, &self.within, &self.around].map(time);
        let times_agree = perf.zip(within.zip(around)).is_some_and(|(perf, (within, around))| {
            (within - within / 20..=around + around / 20).contains(&perf)
        });
        let is_right =
            |(_, count): (_, Option<Count>)| count.is_some_and(|Count { perf, ours }| ours.contains(&perf));
        times_agree && self.events().into_iter().all(is_right) && self.perf.context_switches > Some(0)
    }

    /// Each event by its name.
    fn events(&self) -> [(&'static str, Option<Count>); 3] {
        let all = |of: fn(&PerfReading) -> Option<u64>| {
            Some(Count { perf: of(&self.perf)?, ours: of(&self.within)?..=of(&self.around)? })
        };
        [
            ("context-switches", all(|reading| reading.context_switches)),
            ("cpu-migrations", all(|reading| reading.cpu_migrations)),
            ("page-faults", all(|reading| reading.page_faults)),
        ]
    }
}

impl std::fmt::Display for Counted {
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, count) in self.events() {
            match count {
                Some(Count { perf, ours }) => {
                    write!(f, "{name} {perf}, ours {} to {}; ", ours.start(), ours.end())?;
                }
                None => write!(f, "{name} missing; ")?,
            }
        }
        let clock = |reading: &PerfReading| reading.task_clock_ns.unwrap_or(0) as f64;
        let [perf, within, around] = [&self.perf, &self.within, &self.around].map(clock);
        write!(f, "task-clock ours/perf {:.3} to {:.3}", within / perf, around / perf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Context switches, migrations, page faults.
    fn reading([switches, migrations, faults]: [u64; 3]) -> PerfReading {
        PerfReading {
            task_clock_ns: Some(1000),
            context_switches: Some(switches),
            cpu_migrations: Some(migrations),
            page_faults: Some(faults),
            ..PerfReading::default()
        }
    }

    #[test]
    fn perf_agrees_if_it_is_between_ours_and_has_counted() {
        let agree = |perf: PerfReading, within, around| {
            Counted { perf, within: reading(within), around: reading(around) }.agree()
        };
        assert!(agree(reading([9, 0, 7]), [9, 0, 7], [9, 0, 7]));
        assert!(agree(reading([9, 0, 7]), [8, 0, 7], [11, 1, 7]));
        assert!(!agree(reading([7, 0, 7]), [8, 0, 7], [11, 1, 7]));
        assert!(!agree(reading([9, 0, 0]), [9, 0, 7], [9, 0, 7]));
        assert!(!agree(reading([0, 0, 0]), [0, 0, 0], [0, 0, 0]), "nothing was counted");
        let slower = PerfReading { task_clock_ns: Some(1060), ..reading([9, 0, 7]) };
        assert!(!agree(slower, [9, 0, 7], [9, 0, 7]));
        assert!(!agree(PerfReading { page_faults: None, ..reading([9, 0, 7]) }, [9, 0, 7], [9, 0, 7]));
    }

    #[test]
    fn perf_stat_is_read() {
        let text = "# started\n\n12.50,msec,task-clock,12500000,100.00,0.1,CPUs utilized\n\
                    9,,context-switches,1,100.00,,\n0,,cpu-migrations,1,100.00,,\n\
                    7,,page-faults,1,100.00,,\n";
        assert_eq!(parse(text), PerfReading { task_clock_ns: Some(12_500_000), ..reading([9, 0, 7]) });
    }
}
