//! The `lab` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == lab::role::COMMAND) {
        return lab::role::run(args);
    }
    lab::cli::run(args)
}
