//! The `vm` program, and by their names also `server`, `tune` and `load`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vm::run(std::env::args_os().collect())
}
