//! What a child of the lab does: enter a namespace, wait for the word, be `server`, `tune` or `load`.
//!
//! `lab role PARENT NETWORK MOUNT PROGRAM ARGS…` is started by the lab only. PARENT is the lab's process
//! number, NETWORK and MOUNT are [`Namespace::paths`]. All that concerns the process as a whole is done here,
//! in a process that has one thread, before the program's own code starts threads; so none of it needs code
//! between fork and exec.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::namespace::Namespace;

/// First argument of a role.
pub const COMMAND: &str = "role";

/// Library entry of a program: arguments with the program's name first, to exit code.
type Program = fn(Vec<OsString>) -> ExitCode;

/// Runs the role that the arguments (of the whole process) describe.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    match prepare(args) {
        Ok((program, args)) => program(args),
        Err(error) => {
            eprintln!("lab: role: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(mut args: Vec<OsString>) -> anyhow::Result<(Program, Vec<OsString>)> {
    if args.len() < 6 {
        bail!("{COMMAND} is started by the lab itself; run lab without it");
    }
    let program_args = args.split_off(5);
    let [parent, network, mount] = [2, 3, 4].map(|index| args[index].to_string_lossy());
    let name = program_args[0].to_string_lossy();
    let program = match &*name {
        "server" => server::cli::run,
        "tune" => tune::cli::run,
        "load" => load::cli::run,
        other => bail!("no program \"{other}\""),
    };
    die_with_parent(parent.parse().with_context(|| format!("parent \"{parent}\""))?)?;
    Namespace::open(&network, &mount)?.enter()?;
    let thread_name = std::ffi::CString::new(format!("lab-{name}")).context("a name without NUL")?;
    rustix::thread::set_name(&thread_name).context("name the process")?;
    // The lab closes our standard input when its counters are attached.
    io::stdin().read_to_end(&mut Vec::new()).context("wait for the lab")?;
    Ok((program, program_args))
}

/// Has the kernel kill this process when the thread that started it, of the process `parent`, is gone.
///
/// # Errors
/// If it is gone already, or prctl fails.
pub fn die_with_parent(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("prctl PR_SET_PDEATHSIG")?;
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        bail!("the process that started this one is gone");
    }
    Ok(())
}
