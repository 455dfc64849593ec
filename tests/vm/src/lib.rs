//! `cargo vm-test`: the users' commands, for real, on hosts that we do not have.
//!
//! A machine with 48 CPUs on two NUMA nodes and a NIC with 48 queues and real interrupts is emulated in
//! software by qemu. In it `tune apply profiles/40g.toml` and `server --cores 0-47` run as root, and what
//! they did is looked at from outside: in the kernel's own files and trace, not by asking `tune`. Which CPU
//! did what is the same as on hardware; how fast it was is not, so no time is printed.
//!
//! * [`cli`] reads the command line, on the host and in the guest;
//! * `machine` makes the payload (this program under the names of all, the profile), boots it with
//!   `machine.sh` and passes on what the guest says;
//! * `guest` is what runs in there: groups of checks, each of which leaves the guest as it found it.

pub mod cli;
mod guest;
mod machine;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Is the program that the first argument names: in the guest one file has the names of all.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let name = args.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
    match name {
        Some("server") => server::cli::run(args),
        Some("tune") => tune::cli::run(args),
        Some("load") => load::cli::run(args),
        _ => cli::run(args),
    }
}
