//! What the server may do is given up before it accepts: `--user`, `--group`, and no_new_privs always.

use std::fs;

use crate::common::{Client, Launch, Server, skipped};

/// The values of a line of the status file of every thread of the server.
fn of_all_threads(server: &Server, name: &str) -> Vec<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("list the threads of the server");
    let statuses = tasks.map(|task| {
        let status = task.expect("read /proc/PID/task").path().join("status");
        fs::read_to_string(status).expect("read the status of a thread that lives as long as the server")
    });
    let line = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().map(str::to_owned).collect()
    };
    statuses.map(line).collect()
}

/// # Panics
/// If a thread has another value than `expected`.
fn assert_all(server: &Server, name: &str, expected: &[&str]) {
    for values in of_all_threads(server, name) {
        assert_eq!(values, expected, "{name}");
    }
}

fn can_change_users(test_needs: &str) -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        skipped(test_needs);
    }
    root
}

#[test]
fn no_thread_can_gain_privileges() {
    let server = Server::start(&[]);
    assert!(of_all_threads(&server, "NoNewPrivs").len() >= 3, "main, signals, workers");
    assert_all(&server, "NoNewPrivs", &["1"]);
}

#[test]
fn with_user_every_thread_is_that_user_and_serves() {
    if !can_change_users("needs root to become another user") {
        return;
    }
    let server = Server::start(&["--user", "65534", "--group", "65534", "--steer", "auto"]);
    let mut client = Client::connect(server.address);
    client.echo(10_000);
    assert_all(&server, "Uid", &["65534"; 4]);
    assert_all(&server, "Gid", &["65534"; 4]);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_all(&server, set, &["0000000000000000"]);
    }
    assert_all(&server, "NoNewPrivs", &["1"]);
    for groups in of_all_threads(&server, "Groups") {
        assert!(!groups.contains(&"0".to_owned()), "{groups:?}");
    }
    drop(client);
    server.stop_when_nothing_is_open().assert_exactly(1, 10_000);
}

/// A free port below `net.ipv4.ip_unprivileged_port_start`, which the new user could not bind.
#[test]
fn a_port_for_root_alone_is_bound_before_root_is_gone() {
    if !can_change_users("needs root to bind a port below 1024") {
        return;
    }
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let first_free: u16 = first_free.trim().parse().unwrap();
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let Some(port) = (700..first_free).find(free) else {
        return skipped("no port is root's here (ip_unprivileged_port_start)");
    };
    let server = Launch::new(&["--user", "nobody"]).listen(&format!("127.0.0.1:{port}")).start();
    Client::connect(server.address).echo(1_000);
    server.stop_when_nothing_is_open().assert_exactly(1, 1_000);
}

#[test]
fn an_unknown_user_is_refused() {
    if !can_change_users("needs root to get as far") {
        return;
    }
    let ended = Launch::new(&["--user", "no-such-user"]).refused();
    assert!(ended.error_line().contains("--user no-such-user: no such user here"), "{ended:?}");
}

#[test]
fn who_is_not_root_is_told_that_it_takes_root() {
    if !can_change_users("needs root to start a server as another user") {
        return;
    }
    let ended = Launch::new(&["--user", "root"]).user(65_534).refused();
    assert!(
        ended.error_line().contains("EPERM") && ended.error_line().contains("start as root"),
        "{ended:?}"
    );
}
