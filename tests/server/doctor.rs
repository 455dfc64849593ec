//! `server doctor`: what it says of this host, and its exit codes.

use std::net::{TcpListener, UdpSocket};

use lab::namespace::Namespace;
use lab::veth::{VethEnd, create_veth_pair};
use serde_json::Value;

use crate::common::server::Ended;
use crate::common::{Launch, Server, cpus, sandbox, skipped};

/// `nobody` on Linux.
const NOBODY: u32 = 65_534;

/// The JSON of a doctor with these options before the word.
struct Diagnosis {
    object: Value,
    exit_code: i32,
}

impl Diagnosis {
    /// # Panics
    /// If stdout is not one object of schema 1 that agrees with the exit code, or anything is on stderr.
    fn of(ended: &Ended) -> Self {
        let object: Value =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let exit_code = ended.status.code().expect("no signal");
        assert_eq!((&object["schema"], &object["exit_code"]), (&1.into(), &exit_code.into()));
        let verdict = ["ok", "problems", "warnings"][usize::try_from(exit_code).expect("not negative")];
        assert_eq!(object["verdict"], verdict);
        assert!(ended.stderr.is_empty(), "{:?}", ended.stderr);
        Self { object, exit_code }
    }

    fn with(options: &[&str]) -> Self {
        Self::of(&doctor(options).refused())
    }

    /// The findings of a check.
    fn all(&self, check: &str) -> Vec<&Value> {
        let findings = self.object["findings"].as_array().expect("a list").iter();
        findings.filter(|finding| finding["check"] == check).collect()
    }

    /// # Panics
    /// If there is not one finding of this check.
    fn one(&self, check: &str) -> &Value {
        let found = self.all(check);
        assert_eq!(found.len(), 1, "{check} in {:#}", self.object);
        found[0]
    }

    /// # Panics
    /// If there is not one finding of this check with this mark that contains these words.
    fn assert_one(&self, check: &str, mark: &str, words: &[&str]) {
        let finding = self.one(check);
        assert_eq!(finding["mark"], mark, "{finding:#}");
        let text = finding.to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "\"{word}\" in {finding:#}"));
    }
}

fn doctor(options: &[&str]) -> Launch {
    Launch::new(&[options, &["doctor"]].concat())
}

#[test]
fn where_servers_start_it_finds_no_problem() {
    Server::start(&[]).stop();
    let diagnosis = Diagnosis::with(&[]);
    assert_ne!(diagnosis.exit_code, 1, "{:#}", diagnosis.object);
    diagnosis.assert_one("io_uring.rings", "ok", &[]);
    diagnosis.assert_one("address.listen", "ok", &["127.0.0.1:0"]);
    diagnosis.assert_one("nic.none", "ok", &["loopback"]);
    for check in ["feature.defer_taskrun", "feature.multishot_accept", "feature.buffer_ring"] {
        assert_eq!(diagnosis.one(check)["feature"]["state"], "used", "{check}");
    }
}

#[test]
fn the_text_has_a_line_for_each_finding_and_says_at_the_end_what_will_be() {
    let json = Diagnosis::with(&[]);
    let text = doctor(&[]).human().refused();
    assert_eq!(text.status.code(), Some(json.exit_code));
    for finding in json.object["findings"].as_array().unwrap() {
        let subject = finding["subject"].as_str().unwrap();
        let lines = text.stdout.lines().filter(|line| line.contains(subject));
        assert!(lines.count() >= 1, "{subject} in {}", text.stdout);
    }
    assert!(text.stdout.lines().last().unwrap().contains("the server would start"), "{}", text.stdout);
    assert!(!text.stdout.contains('\x1b'), "colours in a pipe");
}

#[test]
fn a_port_that_is_taken_is_a_problem_and_the_holder_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let diagnosis = Diagnosis::of(&doctor(&[]).listen(&address).refused());
    let pid = format!("pid {}", std::process::id());
    diagnosis.assert_one("address.listen", "problem", &[&address.to_string(), "EADDRINUSE", &pid]);
    let text = doctor(&[]).listen(&address).human().refused();
    assert_eq!(text.status.code(), Some(1));
    let last = text.stdout.lines().last().unwrap();
    assert!(last.contains("would not start") && last.contains("EADDRINUSE"), "{last}");
}

/// It would share the port by SO_REUSEPORT with a server of the same user.
#[test]
fn a_server_that_runs_is_seen_and_keeps_its_port() {
    let server = Server::start(&[]);
    let diagnosis = Diagnosis::of(&doctor(&[]).listen(&server.address).refused());
    diagnosis.assert_one("address.listen", "problem", &["server (pid", &server.pid().to_string()]);
    crate::common::Client::connect(server.address).echo(100);
    server.stop();
}

#[test]
fn a_datagram_socket_does_not_take_a_port_of_tcp() {
    // An address where no other test connects from.
    let udp = UdpSocket::bind("127.53.0.1:0").unwrap();
    let diagnosis = Diagnosis::of(&doctor(&[]).listen(&udp.local_addr().unwrap()).refused());
    diagnosis.assert_one("address.listen", "ok", &["free"]);
}

#[test]
fn where_io_uring_is_forbidden_it_says_so_and_how_to_allow_it() {
    let ended = sandbox::without_io_uring(libc::EPERM, || doctor(&[]).refused());
    let diagnosis = Diagnosis::of(&ended);
    assert_eq!(diagnosis.exit_code, 1);
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let next = if disabled.trim() == "0" || disabled.is_empty() { "seccomp" } else { "sysctl -w" };
    diagnosis.assert_one("io_uring.allowed", "problem", &["EPERM", next]);
    assert!(diagnosis.all("feature.defer_taskrun").is_empty(), "nothing is said of what was not tried");
}

#[test]
fn what_the_server_refuses_is_a_problem() {
    let missing = Diagnosis::with(&["--cores", "4095"]);
    missing.assert_one("cores.workers", "problem", &["4095"]);
    let cores = cpus::first().to_string();
    let ended = doctor(&["--cores", &cores, "--max-connections", "4096"]).descriptors(256).refused();
    Diagnosis::of(&ended).assert_one("limits.open_files", "problem", &["LimitNOFILE=4"]);
    let cut = Diagnosis::of(&doctor(&["--cores", &cores]).descriptors(256).refused());
    cut.assert_one("limits.open_files", "note", &["256 allowed"]);
}

#[test]
fn a_feature_that_is_done_without_is_switched_off() {
    let all = Diagnosis::with(&[]);
    if all.one("feature.direct_descriptors")["feature"]["state"] == "absent" {
        return skipped("no direct descriptors here to do without");
    }
    let without = Diagnosis::with(&["--without", "direct-descriptors"]);
    assert_eq!(without.one("feature.direct_descriptors")["feature"]["state"], "switched_off");
    without.assert_one("feature.direct_descriptors", "note", &["--without"]);
}

#[test]
fn rings_that_locked_memory_does_not_allow_are_a_problem() {
    if !rustix::process::getuid().is_root() {
        return skipped("needs root to start a server as another user");
    }
    let ended = doctor(&[]).locked_memory(64).user(NOBODY).refused();
    let diagnosis = Diagnosis::of(&ended);
    if diagnosis.exit_code != 1 {
        return skipped("this kernel does not count rings as locked memory");
    }
    // What others of this user's tests have counts, too: even the first ring may be too many.
    let made = diagnosis.one("io_uring.allowed")["mark"] == "ok";
    let check = if made { "io_uring.rings" } else { "io_uring.allowed" };
    diagnosis.assert_one(check, "problem", &["ENOMEM", "LimitMEMLOCK"]);
}

#[test]
fn wrong_usage_prints_nothing_on_stdout() {
    let ended = doctor(&["--cores", "5-2"]).refused();
    ended.assert_refused();
}

/// A multi-queue veth whose RPS does the work of interrupts: first set for the cores, then not.
#[test]
fn an_interface_that_takes_packets_elsewhere_is_a_warning_with_the_command_that_mends_it() {
    if !rustix::process::getuid().is_root() {
        return skipped("needs root to make a network namespace");
    }
    let Some((first, second)) = cpus::two() else { return skipped("needs 2 CPUs") };
    let (near, far) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    let end = |namespace, name, address| VethEnd { namespace, name, address, tx_queues: 2, rx_queues: 2 };
    let (ours, theirs) = ([198, 18, 0, 1].into(), [198, 18, 0, 2].into());
    create_veth_pair(&end(&near, "nic0", ours), &end(&far, "wire0", theirs)).unwrap();
    let diagnose = |rps: [u32; 2], options: &[&str]| {
        near.run(|| {
            for (queue, cpu) in (0..).zip(rps) {
                let mask = tune::cpu_set::CpuSet::from_iter([cpu]).to_mask();
                std::fs::write(format!("/sys/class/net/nic0/queues/rx-{queue}/rps_cpus"), mask).unwrap();
            }
            let cores = format!("{first},{second}");
            Diagnosis::of(
                &doctor(&[&["--cores", &cores], options].concat()).listen("198.18.0.1:7000").refused(),
            )
        })
        .unwrap()
    };
    let good = diagnose([first, second], &[]);
    good.assert_one("nic.coverage", "ok", &["nic0", "2 receive queues for 2 cores"]);
    let bad = diagnose([first, first], &[]);
    assert_eq!(bad.exit_code, 2);
    let missed = format!("no packet is processed on CPU {second}");
    let command = "tune apply profiles/lab.toml --interface nic0 --cpus";
    bad.assert_one("nic.coverage", "warning", &[&missed, command]);
    bad.assert_one("nic.tune", "note", &["RPS map"]);
    diagnose([first, first], &["--steer", "hash"]).assert_one("nic.coverage", "note", &[&missed]);
}
