//! What a child does: pin itself to its cores, and become a program.
//!
//! `peers role PARENT CORES PROGRAM ARGS…` is started by this executable only. PARENT is the process number
//! of who started it, with which the child dies; PROGRAM is one of [`built_in`], or the path of an
//! executable.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use lab::role::die_with_parent;
use rustix::thread::sched_setaffinity;
use tune::cpu_set::CpuSet;

/// First argument of a role.
pub const COMMAND: &str = "role";

/// The programs that this executable contains: `server` and the peers.
pub fn built_in() -> impl Iterator<Item = String> {
    ["server".to_owned()].into_iter().chain(crate::cli::peers())
}

/// Runs the role that the arguments (of the whole process) describe.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    match prepare(args) {
        Ok(args) if args[0] == "server" => server::cli::run(args),
        Ok(mut args) if crate::cli::peers().any(|peer| args[0] == *peer) => {
            args.insert(0, "peers".into());
            crate::cli::run(args)
        }
        Ok(args) => {
            // Gives an error or does not come back. The signal of die_with_parent outlives exec (prctl(2)).
            let error = Command::new(&args[0]).args(&args[1..]).exec();
            eprintln!("peers: run {}: {error}", args[0].display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("peers: role: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the program's arguments, its name first.
fn prepare(mut args: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    if args.len() < 5 {
        bail!("{COMMAND} is started by peers itself; run peers bench");
    }
    let program = args.split_off(4);
    let [parent, cores] = [2, 3].map(|index| args[index].to_string_lossy().into_owned());
    die_with_parent(parent.parse().with_context(|| format!("parent \"{parent}\""))?)?;
    let mut mask = rustix::thread::CpuSet::new();
    for cpu in CpuSet::parse_list(&cores).context("the cores")?.iter() {
        let cpu = cpu as usize;
        if cpu >= rustix::thread::CpuSet::MAX_CPU {
            bail!(
                "CPU {cpu} is beyond {}, the last that can be pinned to here",
                rustix::thread::CpuSet::MAX_CPU - 1
            );
        }
        mask.set(cpu);
    }
    sched_setaffinity(None, &mask).with_context(|| format!("pin to CPUs {cores}"))?;
    Ok(program)
}
