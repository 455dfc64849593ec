//! `kill -9` of `tune apply` at random moments, and `restore` after each.

use std::hash::{BuildHasher, RandomState};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use super::files::Files;
use super::nic;
use super::programs::{self, Background};
use super::table::Table;

pub(super) fn run(kills: u32, table: &mut Table) -> Result<()> {
    nic::scatter()?;
    let before = Files::read()?;
    let start = Instant::now();
    apply()?.wait()?;
    let whole = start.elapsed();
    programs::tune(&["restore"])?.expect(0)?;

    let (mut wrong, mut early, mut midway, mut late) = (Vec::new(), 0, 0, 0);
    for kill in 1..=kills {
        let mut apply = apply()?;
        let moment = whole.mul_f64(random());
        thread::sleep(moment);
        apply.signal(Signal::KILL)?;
        let ended_before = apply.wait()? == 0;
        let changed = before.differences(&Files::read()?).len();
        *if ended_before {
            &mut late
        } else if changed == 0 {
            &mut early
        } else {
            &mut midway
        } += 1;
        let restored = programs::tune(&["restore"])?;
        let left = before.differences(&Files::read()?);
        if restored.code != 0 || !left.is_empty() {
            wrong.push(format!(
                "kill {kill}: restore exit status {}, {left:?} {}",
                restored.code, restored.stderr
            ));
        }
    }
    let found =
        format!("{kills} kills: {early} before the first write, {midway} between, {late} after the end");
    table.none("kill -9 of apply, then restore: every file as before", &wrong, found);
    Ok(())
}

fn apply() -> Result<Background> {
    let mut command = Command::new("./tune");
    Background::start(
        command.args(programs::with_profile("apply")?).stdout(Stdio::null()).stderr(Stdio::null()),
    )
}

/// 0 to 1.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(Duration::ZERO) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}
