//! What the server cannot do it says in one line, and exits.

use std::net::{Ipv4Addr, TcpListener};

use rustix::process::Signal;

use crate::common::server::Ended;
use crate::common::{Client, Launch, Server, cpus, sandbox, skipped};

/// An id that owns nothing: `nobody` on Linux.
const NOBODY: u32 = 65_534;

/// # Panics
/// If the server has not refused with exit code 1 and one line on stderr that contains `words`, case aside.
fn assert_says(ended: &Ended, words: &[&str]) {
    let line = ended.error_line().to_lowercase();
    for word in words {
        assert!(line.contains(&word.to_lowercase()), "\"{word}\" in \"{line}\"");
    }
}

#[test]
fn a_port_that_another_program_listens_on_is_refused_with_the_address() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    assert_says(&Launch::new(&[]).listen(&address).refused(), &[&address.to_string(), "in use"]);
}

/// The kernel lets sockets share a port by SO_REUSEPORT only if one user owns them all.
#[test]
fn a_port_that_another_users_server_listens_on_is_refused_with_the_address() {
    if !rustix::process::getuid().is_root() {
        return skipped("needs root to start a server as another user");
    }
    let theirs = Launch::new(&[]).user(NOBODY).start();
    assert_says(
        &Launch::new(&[]).listen(&theirs.address).refused(),
        &[&theirs.address.to_string(), "in use"],
    );
}

/// Two servers of one user would share the port unnoticed, each with half of the clients.
#[test]
fn a_port_that_ones_own_server_listens_on_is_refused_with_the_address() {
    let mine = Server::start(&[]);
    assert_says(&Launch::new(&[]).listen(&mine.address).refused(), &[&mine.address.to_string(), "in use"]);
}

/// The connections that a server has closed first linger in TIME_WAIT.
#[test]
fn the_port_of_a_server_that_has_just_ended_is_free() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address);
    client.echo(1);
    let address = server.address;
    server.stop();
    client.expect_end();
    drop(client);
    Launch::new(&[]).listen(&address).start();
}

/// Its rings outlive the process for some milliseconds, and with them its listening sockets.
#[test]
fn the_port_of_a_server_that_was_killed_is_free() {
    let mut server = Server::start(&[]);
    for _ in 0..20 {
        let address = server.address;
        server.signal(Signal::KILL);
        server.wait_for_end();
        server = Launch::new(&[]).listen(&address).start();
    }
}

#[test]
fn an_address_that_this_host_does_not_have_is_refused() {
    // TEST-NET-1 (RFC 5737): nobody's.
    assert_says(&Launch::new(&[]).listen("192.0.2.1:7000").refused(), &["192.0.2.1:7000"]);
}

#[test]
fn a_port_below_1024_without_the_right_to_it_is_refused() {
    if !rustix::process::getuid().is_root() {
        return skipped("needs root to start a server as another user");
    }
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim() == "0" {
        return skipped("every user may listen on every port here (ip_unprivileged_port_start is 0)");
    }
    assert_says(&Launch::new(&[]).listen("127.0.0.1:1").user(NOBODY).refused(), &["127.0.0.1:1", "permi"]);
}

#[test]
fn what_is_not_an_address_and_port_is_refused() {
    for listen in
        ["127.0.0.1", "256.0.0.1:80", "127.0.0.1:65536", ":", "", "127.0.0.1:http", "[::1:80", "a b:1"]
    {
        Launch::new(&[]).listen(listen).refused().assert_refused();
    }
}

#[test]
fn a_core_that_does_not_exist_is_refused_with_its_number() {
    assert_says(&Launch::new(&["--cores", "4095"]).refused(), &["4095"]);
}

#[test]
fn core_lists_that_are_none_are_refused() {
    for cores in ["5-2", "0-99999999", "", "one", "-1", "0,,1", "0x3"] {
        Launch::new(&["--cores", cores]).refused().assert_refused();
    }
}

#[test]
fn a_core_outside_the_affinity_of_the_process_is_refused_with_its_number() {
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let cores = second.to_string();
    let ended = cpus::on_cpu(first, || Launch::new(&["--cores", &cores]).refused());
    assert_says(&ended, &[&cores]);
}

#[test]
fn all_cores_are_those_of_the_affinity_of_the_process() {
    let Some((first, _)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let server = cpus::on_cpu(first, || Launch::new(&["--cores", "all"]).start());
    assert!(server.ready.contains(&format!(", cores {first},")), "{}", server.ready);
}

/// A container's seccomp profile and `kernel.io_uring_disabled` both make io_uring_setup(2) fail with
/// EPERM; a kernel built without io_uring, and older profiles, with ENOSYS.
#[test]
fn where_io_uring_is_forbidden_or_missing_the_message_says_so() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let ended = sandbox::without_io_uring(errno, || Launch::new(&[]).refused());
        assert_says(&ended, &["io_uring"]);
    }
}

/// Kernels before 6.1 answer EINVAL to the flags that the rings are made with.
#[test]
fn a_kernel_that_is_too_old_is_named() {
    let ended = sandbox::without_io_uring(libc::EINVAL, || Launch::new(&[]).refused());
    assert_says(&ended, &["is too old", "6.1 or later"]);
}

#[test]
fn too_few_descriptors_to_start_with_are_reported() {
    Launch::new(&[]).descriptors(6).refused().error_line();
}

/// All that the workers need they have before the first client can come, the spill among it: clients make
/// them ask for no memory.
#[test]
fn a_server_with_too_little_memory_does_not_begin_to_listen() {
    let core = cpus::first().to_string();
    let mut listened = 0;
    for mebibytes in (40..300).step_by(2) {
        let launch = Launch::new(&["--cores", &core]).address_space(mebibytes << 10);
        let Some(server) = launch.start_if_it_can() else {
            continue;
        };
        Client::connect(server.address).echo(1_000);
        let ended = server.terminate();
        assert_eq!(ended.status.code(), Some(0), "with {mebibytes} MiB of address space: {ended:?}");
        listened += 1;
    }
    assert!(listened > 0, "300 MiB are enough");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [
        &["--buffers", "0"][..],
        &["--buffers", "3"],
        &["--buffers", "65536000"],
        &["--buffer-size", "0"],
        &["--spill", "1048575"],
        &["--spill", "17592186044417"],
        &["--max-connections", "0"],
        &["--max-connections", "4294967296"],
        &["--backlog", "0"],
        &["--backlog", "65536"],
        &["--backlog", "1", "--backlog", "2"],
        &["--spin-us", "1000001"],
        &["--busy-poll", "2s"],
        &["--stats-interval", "99ms"],
        &["--idle-timeout", "0s"],
        &["--keepalive", "500ms"],
        &["--defer-accept", "1500ms"],
        &["--fastopen", "0"],
        &["--zerocopy-threshold", "0"],
        &["--metrics", "99999"],
        &["--nodelay"],
        &["--v6only=maybe"],
        &["--mode", "reflect"],
        &["--accept", "all"],
        &["--overload", "panic"],
        &["--user", ""],
        &["--config", "/nowhere/server.toml"],
        &["--drain-timeout", "soon"],
        &["--drain-timeout", "-1s"],
        &["--drain-timeout", "25h"],
        &["--drain-timeout", "584542046090years"],
        &["--without", "hope"],
        &["--steer", "left"],
        &["--no-such-option"],
        &["stray"],
    ] {
        Launch::new(options).refused().assert_refused();
    }
}

/// Until the kernel has taken the rings of a server apart, a while after its end, they count as locked memory
/// of its user.
#[test]
fn a_server_starts_in_the_place_of_one_that_was_killed() {
    if !rustix::process::getuid().is_root() {
        return skipped("needs root to start a server as another user");
    }
    let core = cpus::first().to_string();
    for _ in 0..10 {
        // Enough for the rings of one, not of two, and no other test has rings of this user.
        drop(Launch::new(&["--cores", &core]).locked_memory(700).user(54_323).start());
    }
}
