//! Options on the command line and in the file of `--config`: what wins, and how what is wrong is said.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{Client, Launch};

/// A file for `--config`, gone when dropped.
struct ConfigFile {
    _directory: TempDir,
    path: PathBuf,
}

impl ConfigFile {
    fn new(text: &str) -> Self {
        let directory = TempDir::new().expect("make a directory");
        let path = directory.path().join("server.toml");
        std::fs::write(&path, text).expect("write the file");
        Self { _directory: directory, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

/// Runs a server that ends by itself.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_server")).args(arguments).output().expect("start the server")
}

/// # Panics
/// If it has not ended as for wrong usage, with one line "error: …" that says `text`.
fn assert_usage_error(output: &Output, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(&errors[..], [error] if error.contains(text)), "not \"{text}\" in: {stderr}");
}

#[test]
fn a_value_out_of_range_names_the_option_and_the_range() {
    for (arguments, text) in [
        (["--backlog", "0"], "invalid value '0' for '--backlog <N>': must be a whole number from 1 to 65535"),
        (["--listen", "127.0.0.1"], "must be ADDRESS:PORT, such as 127.0.0.1:7000"),
        (["--cores", "5-2"], "'--cores <LIST>': range 5-2 in \"5-2\" runs backwards; write 2-5"),
        (["--idle-timeout", "5"], "must be a time from 1ms to 1day, such as 5s or 500ms, or off"),
    ] {
        assert_usage_error(&run(&arguments), text);
        // The doctor reads its options the same way.
        assert_usage_error(&run(&["doctor", arguments[0], arguments[1]]), text);
    }
}

#[test]
fn a_contradiction_names_both_options_and_what_to_do() {
    for (arguments, text) in [
        (
            &["--udp", "--backlog", "5"][..],
            "--backlog has no effect with --udp: datagrams have no connections",
        ),
        (&["--accept", "shared", "--steer", "cpu"], "leave --steer out, or give --accept per-core"),
        (&["--response-size", "5"], "--response-size has no effect without --mode sink-source"),
        (&["--v6only"], "--v6only has no effect without an IPv6 address"),
        (&["--listen", "127.0.0.1:9", "--listen", "127.0.0.1:9"], "--listen 127.0.0.1:9 is given twice"),
    ] {
        assert_usage_error(&run(arguments), text);
    }
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_line_and_key() {
    for (text, expected) in [
        ("mode = \"echo\"\nbacklog = 0\n", ":2:11: backlog: must be a whole number from 1 to 65535"),
        ("spin_us = 5", ":1:1: unknown field `spin_us`, expected one of "),
        (
            "udp = true\nlisten = [\n \"127.0.0.1:0\",\n \"::1\"]",
            ":4:2: listen: must be ADDRESS:PORT, such as",
        ),
        ("udp", ":1:4: "),
    ] {
        let file = ConfigFile::new(text);
        assert_usage_error(&run(&["--config", file.path()]), &format!("{}{expected}", file.path()));
    }
}

#[test]
fn a_contradiction_with_the_file_says_where_it_stands() {
    let file = ConfigFile::new("# ours\nidle-timeout = \"5s\"\n");
    let place = format!(
        "--idle-timeout has no effect with --udp: datagrams have no connections; leave one of the two out \
                         (idle-timeout is set in {}:2)",
        file.path()
    );
    assert_usage_error(&run(&["--udp", "--config", file.path()]), &place);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_errno() {
    let output = run(&["--config", "/nowhere/server.toml"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr,
        "server: read \"/nowhere/server.toml\", the file of --config: ENOENT: no such file or directory\n"
    );
}

/// Not read to its end, which this one has not.
#[test]
fn a_file_that_is_too_long_is_refused_before_it_fills_the_memory() {
    let output = run(&["--config", "/dev/zero"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr
            .starts_with("server: read \"/dev/zero\", the file of --config: it has more than 1048576 bytes"),
        "{stderr}"
    );
}

#[test]
fn the_file_is_obeyed_where_the_command_line_says_nothing() {
    // TEST-NET-1 (RFC 5737): nobody's.
    let file = ConfigFile::new("listen = [\"192.0.2.1:7000\"]\n");
    let output = run(&["--config", file.path()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("192.0.2.1:7000"), "{stderr}");
}

#[test]
fn the_command_line_wins_over_the_file() {
    let file = ConfigFile::new("listen = [\"192.0.2.1:7000\"]\njson = true\nsteer = \"hash\"\nbuffers = 8\n");
    let server = Launch::new(&["--config", file.path()]).human().start();
    assert!(server.ready.ends_with("steer hash"), "{}", server.ready);
    let mut client = Client::connect(server.address);
    client.echo(100);
    drop(client);
    // A report: JSON, as the file says.
    server.stop_when_nothing_is_open().assert_exactly(1, 100);

    let server = Launch::new(&["--config", file.path(), "--json=false", "--steer", "auto"]).human().start();
    assert!(server.ready.ends_with("steer auto"), "{}", server.ready);
    let ended = server.terminate();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), ""), "a table on stderr");
}

#[test]
fn the_help_has_every_group_and_fits_a_hundred_columns() {
    for arguments in [&["--help"][..], &["doctor", "--help"]] {
        let output = run(arguments);
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        for text in ["--config <FILE>", "Listening:", "Reports:", "--busy-poll <US|TIME>", "[default: 4096]"]
        {
            assert!(help.contains(text), "{text}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}
