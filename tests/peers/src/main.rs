//! The `peers` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == peers::role::COMMAND) {
        return peers::role::run(args);
    }
    peers::cli::run(args)
}
