//! Threaded NAPI on a veth pair: the kernel's own threads are found, pinned, and given back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::profile;
use common::veth::{NIC, Veth, tells_threads_of_queues};
use netlink_bindings::ethtool;
use netlink_socket2::NetlinkSocket;
use serde_json::{Value, json};

const QUEUES: u32 = 3;

fn lab_toml() -> String {
    profile("lab.toml").to_str().unwrap().to_owned()
}

/// A veth has NAPI instances while GRO is on.
fn set_gro(veth: &Veth, on: bool) {
    let nic = std::ffi::CString::new(NIC).unwrap();
    let mut request = ethtool::Request::new().op_features_set_do();
    // ETHTOOL_MSG_FEATURES_SET in include/uapi/linux/ethtool_netlink_generated.h; netlink-bindings 0.3.5 says
    // 16.
    request.header_mut().cmd = 12;
    let bit = request.encode().nested_header().push_dev_name(&nic).end_nested();
    let bit = bit.nested_wanted().nested_bits().nested_bit().push_name(c"rx-gro");
    let bit = if on { bit.push_value(()) } else { bit };
    bit.end_nested().end_nested().end_nested();
    veth.inside(|| {
        let mut socket = NetlinkSocket::new();
        let mut replies = socket.request(&request).unwrap();
        while let Some(reply) = replies.recv() {
            reply.unwrap();
        }
    });
}

fn threaded() -> Option<Veth> {
    let veth = Veth::with_queues(QUEUES).filter(|_| tells_threads_of_queues())?;
    set_gro(&veth, true);
    let file = format!("/sys/class/net/{NIC}/threaded");
    veth.inside(|| fs::write(file, "1")).unwrap();
    Some(veth)
}

/// The threads that `show` finds, and whether queues have them: number and CPUs by queue.
fn shown(veth: &Veth) -> BTreeMap<u64, (u64, String)> {
    let show = veth.tune(&["show", "--json"]).expect(0).json();
    let queues = show["interfaces"][0]["queues"].as_array().unwrap().iter();
    let thread = |queue: &Value| {
        let thread = &queue["thread"];
        Some((queue["rx"].as_u64()?, (thread["pid"].as_u64()?, thread["cpus"].as_str()?.to_owned())))
    };
    queues.filter_map(thread).collect()
}

/// Where the kernel lets a thread run, by another way than tune's.
fn allowed(pid: u64) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().to_owned()
}

#[test]
fn the_thread_of_each_queue_is_pinned_to_its_cpu_and_given_back() {
    let Some(veth) = threaded() else { return };
    let found = shown(&veth);
    assert_eq!(found.len(), QUEUES as usize, "{found:?}");
    for (pid, _) in found.values() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert!(name.starts_with(&format!("napi/{NIC}-")), "{name}");
    }
    let before: Vec<String> = found.values().map(|(pid, _)| allowed(*pid)).collect();

    veth.tune(&["apply", &lab_toml()]).expect(0);
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let cpus = tune::cpu_set::CpuSet::parse_list(&cpus).unwrap();
    for (queue, (pid, _)) in found.values().enumerate() {
        let cpu = cpus.iter().nth(queue % cpus.len()).unwrap();
        assert_eq!(allowed(*pid), cpu.to_string(), "queue {queue}");
    }
    let again = veth.tune(&["apply", &lab_toml()]).expect(0);
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);

    let restored = veth.tune(&["restore"]).expect(0);
    assert!(restored.stdout.contains(&format!("napi_thread/{NIC}/")), "{}", restored.stdout);
    let after: Vec<String> = found.values().map(|(pid, _)| allowed(*pid)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_profile_may_leave_the_threads_where_they_are() {
    let Some(veth) = threaded() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[queues]\nirq = \"keep\"\nnapi_threads = \"keep\"\n").unwrap();
    let plan = veth.tune(&["plan", file.path().to_str().unwrap()]).expect(2);
    assert!(!plan.stdout.contains("napi_thread"), "{}", plan.stdout);
}

#[test]
fn threads_that_ended_meanwhile_are_said_by_restore() {
    let Some(veth) = threaded() else { return };
    veth.tune(&["apply", &lab_toml()]).expect(0);
    set_gro(&veth, false);
    assert_eq!(shown(&veth), BTreeMap::new());
    let restored = veth.tune(&["restore", "--json"]).expect(0).json();
    let gone = restored["gone"].as_array().unwrap();
    assert_eq!(gone.len(), QUEUES as usize, "{restored}");
    assert!(gone[0].as_str().unwrap().contains(&format!("napi_thread/{NIC}/")), "{restored}");
    assert_eq!(restored["failed"], json!([]));
}

#[test]
fn explain_draws_the_thread_and_says_that_it_may_run_anywhere() {
    let Some(veth) = threaded() else { return };
    let explain = |arguments: &[&str]| {
        let mut command = common::tune();
        command.args(["explain", NIC]).args(arguments);
        veth.output(&mut command).expect(0)
    };
    let text = explain(&["1"]).stdout;
    let (pid, cpus) = &shown(&veth)[&1];
    assert!(text.contains(&format!("└─ thread {pid} on {cpus} (napi/{NIC}-")), "{text}");
    let several = format!("broken: its NAPI thread {pid} may run on each of the CPUs {cpus}");
    assert_eq!(text.contains(&several), cpus.len() > 1, "{text}");
    let json = explain(&["--json", "--profile", &lab_toml()]).json();
    assert_eq!(json["interfaces"][0]["chains"].as_array().unwrap().len(), QUEUES as usize);
    assert_eq!(json["interfaces"][0]["chains"][0]["irq"], json!(null));
    assert!(json["interfaces"][0]["notes"][0].as_str().unwrap().contains("virtual"), "{json}");
    assert!(json["interfaces"][0]["chains"][1]["thread"]["wanted"].is_string(), "{json}");
}
