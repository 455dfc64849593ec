//! The `tune` program; see [`tune::cli`].

fn main() -> std::process::ExitCode {
    tune::cli::run(std::env::args_os())
}
