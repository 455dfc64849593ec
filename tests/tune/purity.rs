//! The modules that decide are pure: outside their tests they open no file and no socket, make no system call
//! and read no clock. What they need comes in as arguments, so that every decision can be tested as data.
//! Which modules these are is listed here, and every file whose head says "Pure." is one of them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::repository;

const PURE: [(&str, &[&str]); 2] = [
    ("tune/src", &["cpu_set", "profile", "plan", "diff", "verify", "driver_names", "queue_map"]),
    ("server/src", &["token", "connection", "worker_plan"]),
];

/// Where every file says for itself in its head whether it is pure.
const SOURCES: [&str; 4] = ["tune/src", "server/src", "tests/load/src", "tests/lab/src"];

/// What does something. Addresses, error numbers and points in time are data. `KernelFiles` is how the files
/// of `/proc` and `/sys` are read.
const FORBIDDEN: [&str; 17] = [
    "std::env",
    "std::fs",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "std::thread",
    "netns",
    "Host::read",
    "libc",
    "rustix",
    "Instant::now",
    ".elapsed()",
    "SystemTime",
    "use std::{",
    "std::process",
    "KernelFiles",
];

#[test]
fn the_pure_modules_touch_neither_files_nor_sockets_nor_the_clock() {
    let mut impure = Vec::new();
    for (source, modules) in PURE {
        let files = rust_files(&repository().join(source));
        for module in modules {
            let of_module: Vec<&PathBuf> = files.iter().filter(|file| belongs_to(file, module)).collect();
            assert!(!of_module.is_empty(), "{source} has no module {module}");
            for file in of_module {
                impure.extend(offences(file));
            }
        }
    }
    assert!(impure.is_empty(), "{}", impure.join("\n"));
}

#[test]
fn a_file_that_says_it_is_pure_is() {
    let files = SOURCES.iter().flat_map(|source| rust_files(&repository().join(source)));
    let pure: Vec<PathBuf> = files.filter(|file| says_pure(&fs::read_to_string(file).unwrap())).collect();
    assert!(pure.len() >= 10, "{pure:?}");
    let impure: Vec<String> = pure.iter().flat_map(|file| offences(file)).collect();
    assert!(impure.is_empty(), "{}", impure.join("\n"));
}

#[test]
fn an_offence_is_seen_in_code_and_not_in_comments_or_tests() {
    let text = "//! std::fs is not used\nuse std::fs; // why\n#[cfg(test)]\nmod tests { use std::fs; }\n";
    assert_eq!(forbidden_lines(text), [(2, "std::fs")]);
    for (line, word) in [
        ("fn f(files: &KernelFiles) {}", "KernelFiles"),
        ("    netns::check_sysfs(name)", "netns"),
        ("use crate::netns;", "netns"),
        ("std::env::var_os(\"HOME\")", "std::env"),
        ("    std::thread::sleep(pause);", "std::thread"),
        ("let host = Host::read(root);", "Host::read"),
        ("let now = Instant::now();", "Instant::now"),
        ("use std::net::{SocketAddr, TcpStream};", "TcpStream"),
        ("use rustix::io::{Errno, read};", "rustix"),
    ] {
        assert_eq!(forbidden_lines(line), [(1, word)]);
    }
    for line in ["use std::net::SocketAddr;", "use std::time::Instant;", "use rustix::io::Errno;"] {
        assert_eq!(forbidden_lines(line), []);
    }
    assert!(says_pure("//! What. Pure.\n//!\n//! More.\nfn f() {}\n"));
    assert!(!says_pure("//! What.\nfn f() {} //! Pure.\n"));
}

/// What runs another program. `tune` and `server` ask the kernel, by files, netlink and sockets.
const SHELLING_OUT: [&str; 7] =
    ["process::Command", "Command::new", "CommandExt", "posix_spawn", "execv", "libc::system", "popen"];

#[test]
fn neither_program_runs_another_one() {
    let files = ["tune/src", "server/src"].map(|source| rust_files(&repository().join(source))).concat();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let found = lines_with(&SHELLING_OUT, &fs::read_to_string(file).unwrap());
        assert_eq!(found, [], "{} runs another program", file.display());
    }
    assert_eq!(lines_with(&SHELLING_OUT, "fn f() { std::process::Command::new(\"ip\"); }").len(), 2);
}

/// The documentation at the head of a file says "Pure.".
fn says_pure(text: &str) -> bool {
    text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("Pure."))
}

/// `plan.rs`, or any file below `plan/`.
fn belongs_to(file: &Path, module: &str) -> bool {
    file.file_stem().is_some_and(|stem| stem == module)
        || file.parent().is_some_and(|parent| parent.components().any(|part| part.as_os_str() == module))
}

fn offences(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let offence = |(line, word)| format!("{}:{line} mentions {word}", file.display());
    forbidden_lines(&text).into_iter().map(offence).collect()
}

/// The lines, counted from 1, that mention what is forbidden in pure code.
fn forbidden_lines(text: &str) -> Vec<(usize, &'static str)> {
    lines_with(&FORBIDDEN, &text.replace("use rustix::io::Errno;", ""))
}

/// The lines, counted from 1, that mention one of these words; comments and what follows `#[cfg(test)]` are
/// left out.
fn lines_with(words: &[&'static str], text: &str) -> Vec<(usize, &'static str)> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let mut found = Vec::new();
    for (number, line) in (1..).zip(code) {
        let line = line.split("//").next().unwrap_or_default();
        found.extend(words.iter().filter(|word| line.contains(**word)).map(|word| (number, *word)));
    }
    found
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
