//! The `load` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    load::cli::run(std::env::args_os())
}
