//! `kill -9` of `tune apply` at random moments, and `restore` after each; irqbalance runs.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::files::Files;
use super::irqbalance::Irqbalance;
use super::programs::{self, Background};
use super::table::Table;
use super::{nic, wait};

/// Of so many kills one at least must come between the first write and the end.
const ONE_MIDWAY_OF: u32 = 4;

/// Everything that apply may change, and irqbalance.
struct Host {
    files: Files,
    irqbalance: Irqbalance,
}

/// How many kills came when.
#[derive(Default)]
struct Moments {
    early: u32,
    /// irqbalance was told, and nothing else was done.
    told: u32,
    midway: u32,
    late: u32,
    /// irqbalance has ended: it answers whoever has asked, also one that is gone, and dies of SIGPIPE
    /// (`send()` in its `sock_handle()`). Its list ends with it.
    ended: u32,
}

pub(super) fn run(kills: u32, table: &mut Table) -> Result<()> {
    nic::scatter()?;
    let mut host = Host { irqbalance: Irqbalance::start_idle()?, files: Files::read()? };
    let mut writing = writes()?;
    programs::tune(&["restore"])?.expect(0)?;

    let (mut wrong, mut moments) = (Vec::new(), Moments::default());
    for kill in 1..=kills {
        let mut apply = apply()?;
        wait_for_journal(&mut apply)?;
        thread::sleep(writing.mul_f64(random()));
        apply.signal(Signal::KILL)?;
        let ended_before = apply.wait()? == 0;
        if host.irqbalance.has_ended()? {
            moments.ended += 1;
            host.irqbalance = Irqbalance::start_idle()?;
        }
        let (changed, told) = (host.changes()?.len(), !host.irqbalance.is_as_before()?);
        // The kills follow the machine, which is slower now and then faster.
        writing = writing.mul_f64(if ended_before { 0.8 } else { 1.05 });
        *match (ended_before, changed, told) {
            (true, ..) => &mut moments.late,
            (_, 0, false) => &mut moments.early,
            (_, 0, true) => &mut moments.told,
            _ => &mut moments.midway,
        } += 1;
        let restored = programs::tune(&["restore"])?;
        let left = host.changes()?;
        if restored.code != 0 || !left.is_empty() || !host.irqbalance.is_as_before()? {
            let banned = host.irqbalance.banned()?;
            wrong.push(format!(
                "kill {kill}: restore exit status {}, {left:?}, irqbalance {banned:?} {}",
                restored.code, restored.stderr
            ));
        }
    }
    let Moments { early, told, midway, late, ended } = moments;
    let found = format!(
        "{kills} kills: {early} before the first write, {told} when only irqbalance was told, {midway} \
         between writes, {late} after the end; irqbalance died of {ended}"
    );
    table.none("kill -9 of apply, then restore: every file as before", &wrong, &found);
    table.check("enough of the kills came between writes", midway >= kills / ONE_MIDWAY_OF, midway);
    host.irqbalance.check_list(table)
}

impl Host {
    /// What is not as before.
    fn changes(&self) -> Result<Vec<String>> {
        Ok(self.files.differences(&Files::read()?))
    }
}

fn apply() -> Result<Background> {
    let mut command = Command::new("./tune");
    Background::start(
        command.args(programs::with_profile("apply")?).stdout(Stdio::null()).stderr(Stdio::null()),
    )
}

/// How long an apply takes from its journal, which it writes before all else, to its end.
fn writes() -> Result<Duration> {
    let mut apply = apply()?;
    wait_for_journal(&mut apply)?;
    let start = Instant::now();
    apply.wait()?;
    Ok(start.elapsed())
}

/// Waits until an apply has written its journal, or has ended.
fn wait_for_journal(apply: &mut Background) -> Result<()> {
    wait::often("apply writes its journal", || Ok((has_journal()? || apply.ended()?.is_some()).then_some(())))
}

/// True if there is a journal; restore takes it away.
fn has_journal() -> Result<bool> {
    const DIRECTORY: &str = "/run/corelocal";
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Ok(false) };
    for entry in entries {
        let name = entry.with_context(|| format!("list {DIRECTORY}"))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("journal.") && name.ends_with(".json") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// 0 to 1.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(Duration::ZERO) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}
