//! `capture`, `--root FILE` and `diff`: a plan from a capture is the plan of the host, nothing secret is in
//! it, and what is no capture is refused.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::veth::{NIC, Veth, of_nic};
use common::{Run, contents, copy_of, host, names, profile, repository, run, tune};
use serde_json::json;

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

fn capture_of(root: &Path, file: &Path) -> Run {
    run(root, ["capture", file.to_str().unwrap()])
}

#[test]
fn a_plan_from_the_capture_of_a_tree_is_the_plan_of_the_tree() {
    let place = tempfile::tempdir().unwrap();
    let hosts = names(&repository().join("tests/hosts"), Path::is_dir);
    let profiles =
        names(&repository().join("profiles"), |path| path.extension().is_some_and(|e| e == "toml"));
    let mut plans = 0;
    for host_name in &hosts {
        let tree = host(host_name);
        for end in ["tar", "tar.gz"] {
            let file = place.path().join(format!("{host_name}.{end}"));
            capture_of(&tree, &file).expect(0);
            for profile_name in &profiles {
                let profile = profile(profile_name);
                let plan = |root: &Path| run(root, ["plan", "--json", profile.to_str().unwrap()]);
                let (there, here) = (plan(&tree), plan(&file));
                assert_eq!((here.code, here.stdout, here.stderr), (there.code, there.stdout, there.stderr));
                plans += 1;
            }
        }
        let show = |root: &Path| run(root, ["show"]).expect(0).stdout;
        assert_eq!(show(&place.path().join(format!("{host_name}.tar"))), show(&tree));
    }
    assert!(plans >= 24, "{plans}");
}

/// Only read on the machine itself; the capture goes to a directory of its own.
#[test]
fn a_plan_from_the_capture_of_this_host_is_the_plan_of_this_host_and_no_address_is_in_it() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("here.tar");
    let captured = Run::from(tune().arg("capture").arg(&file).output().unwrap());
    let interfaces = Run::from(tune().args(["show", "--json"]).output().unwrap()).expect(0).json();
    captured.expect(0);
    let bytes = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    for interface in names(Path::new("/sys/class/net"), Path::is_dir) {
        let Ok(address) = fs::read_to_string(format!("/sys/class/net/{interface}/address")) else { continue };
        let address = address.trim();
        if !address.is_empty() && address != "00:00:00:00:00:00" {
            assert!(!bytes.contains(address), "the address of {interface}");
        }
    }
    assert!(!bytes.contains("fastopen_key"));
    assert!(bytes.contains("corelocal/netdev.json"), "what the kernel says by netlink");
    for interface in interfaces["interfaces"].as_array().unwrap() {
        let name = interface["interface"].as_str().unwrap();
        let arguments = ["plan", "--json", "--interface", name, &auto()];
        let (here, there) = (Run::from(tune().args(arguments).output().unwrap()), run(&file, arguments));
        assert_eq!((there.code, there.stdout, there.stderr), (here.code, here.stdout, here.stderr), "{name}");
    }
}

#[test]
fn a_plan_from_the_capture_of_a_veth_is_the_plan_of_the_veth() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("veth.tgz");
    let lab = profile("lab.toml");
    let (file_text, lab) = (file.to_str().unwrap(), lab.to_str().unwrap());
    let here = veth.tune(&["plan", "--json", lab]).expect(2).stdout;
    veth.output(tune().args(["capture", file_text, NIC])).expect(0);
    assert_eq!(run(&file, ["plan", "--json", "--interface", NIC, lab]).expect(2).stdout, here);
    // What was applied is what differs.
    let after = place.path().join("after.tar");
    veth.tune(&["apply", lab]).expect(0);
    veth.output(tune().args(["capture", after.to_str().unwrap()])).expect(0);
    veth.output(&mut of_nic(&["restore"])).expect(0);
    let differences = Run::from(tune().arg("diff").args([&file, &after]).output().unwrap()).expect(2).stdout;
    let plan = run(&file, ["plan", "--interface", NIC, lab]).expect(2).stdout;
    assert_eq!(differences, plan);
}

/// What ethtool says is in the capture: it is planned on as on the host, and `diff` names what changed.
#[test]
fn a_capture_of_a_veth_holds_its_channels_and_diff_shows_that_they_changed() {
    let Some(veth) = Veth::with_queues(4) else { return };
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let text =
        "[channels]\ncount = 2\n[rings]\nrx = 512\n[rss]\nudp4 = \"sdfn\"\n[queues]\nrps = \"queue-cpu\"\n";
    fs::write(path("two.toml"), text).unwrap();
    let two = path("two.toml").to_str().unwrap().to_owned();
    let capture = |name: &str| {
        veth.output(tune().args(["capture", path(name).to_str().unwrap(), NIC])).expect(0);
        path(name)
    };
    let before = capture("before.tar");
    let ethtool =
        |root: &Path| run(root, ["show", "--json", NIC]).expect(0).json()["interfaces"][0]["ethtool"].clone();
    let channels = |now: u32| json!({ "rx": { "now": now, "max": 4 }, "tx": { "now": now, "max": 4 } });
    assert_eq!(ethtool(&before)["channels"], channels(4));
    assert_eq!(ethtool(&before), veth.tune(&["show", "--json"]).expect(0).json()["interfaces"][0]["ethtool"]);
    let here = veth.tune(&["plan", "--json", &two]).expect(2).json();
    let there = run(&before, ["plan", "--json", "--interface", NIC, &two]).expect(2).json();
    assert_eq!((&there["changes"], &there["notes"]), (&here["changes"], &here["notes"]));
    let wishes = |plan: &serde_json::Value| {
        let skipped = plan["skipped"].as_array().unwrap().iter();
        skipped.map(|skipped| skipped["wish"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(wishes(&there), wishes(&here));

    veth.tune(&["apply", &two]).expect(0);
    let after = capture("after.tar");
    veth.tune(&["restore"]).expect(0);
    assert_eq!(ethtool(&after)["channels"], channels(2));
    let diff = Run::from(tune().arg("diff").args([&before, &after]).output().unwrap()).expect(2).stdout;
    let first = diff.lines().next();
    assert_eq!(first, Some("ethtool/nic0/channels: rx 4 tx 4 -> rx 2 tx 2"), "{diff}");
    assert!(diff.contains("/sys/class/net/nic0/queues/tx-3/xps_cpus: 0 -> absent\n"), "{diff}");
    let same = capture("again.tar");
    let diff = Run::from(tune().arg("diff").args([&before, &same]).output().unwrap()).expect(0).stdout;
    assert_eq!(diff, "", "restored");
}

#[test]
fn a_capture_is_only_read_and_nothing_of_it_stays_behind() {
    let place = tempfile::tempdir().unwrap();
    let (file, unpacked) = (place.path().join("host.tar"), place.path().join("unpacked"));
    capture_of(&host("virtio-2cpu"), &file).expect(0);
    fs::create_dir(&unpacked).unwrap();
    let before = fs::read(&file).unwrap();
    for arguments in [&["apply", &auto()][..], &["restore"], &["plan", &auto()], &["show"]] {
        let ran = tune().arg("--root").arg(&file).args(arguments).env("TMPDIR", &unpacked).output().unwrap();
        let ran = Run::from(ran);
        if arguments[0] == "apply" || arguments[0] == "restore" {
            assert!(ran.refusal().contains("is a capture, which is only read"), "{}", ran.stderr);
        }
        assert_eq!(contents(&unpacked).len(), 0, "{arguments:?}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn where_it_is_written_to_is_checked_and_what_is_read_as_well() {
    let place = tempfile::tempdir().unwrap();
    let tree = host("virtio-2cpu");
    let path = |name: &str| place.path().join(name);
    fs::write(path("there.tar"), "mine").unwrap();
    let exists = capture_of(&tree, &path("there.tar"));
    assert!(exists.refusal().contains("there.tar: it exists; name a new file"), "{}", exists.stderr);
    assert_eq!(fs::read(path("there.tar")).unwrap(), b"mine");
    let bad_name = capture_of(&tree, &path("host.zip"));
    assert!(bad_name.refusal().contains("ends in .tar.gz or .tar"), "{}", bad_name.stderr);
    let absent = run(&tree, ["capture", path("a.tar").to_str().unwrap(), "eth7"]).expect(1);
    assert!(absent.stderr.contains("interface eth7 does not exist"), "{}", absent.stderr);

    fs::write(path("garbage"), "not an archive, and longer than nothing").unwrap();
    let garbage = run(&path("garbage"), ["show"]);
    assert!(garbage.refusal().contains("--root: read capture"), "{}", garbage.stderr);
    fs::write(path("empty"), "").unwrap();
    let empty = run(&path("empty"), ["show"]);
    assert!(empty.refusal().contains("it is empty"), "{}", empty.stderr);
}

#[test]
fn to_stdout_it_is_a_plain_archive() {
    let place = tempfile::tempdir().unwrap();
    let tree = host("i40e-48cpu");
    let (there, piped) = (place.path().join("there.tar"), place.path().join("piped.tar"));
    capture_of(&tree, &there).expect(0);
    let output = tune().arg("--root").arg(&tree).args(["capture", "-"]).output().unwrap();
    assert!(output.status.success());
    fs::write(&piped, output.stdout).unwrap();
    assert_eq!(fs::read(piped).unwrap(), fs::read(there).unwrap());
}

#[test]
fn json_of_capture_and_diff() {
    let place = tempfile::tempdir().unwrap();
    let (a, b): (PathBuf, PathBuf) = (place.path().join("a.tar"), place.path().join("b.tar.gz"));
    let tree = copy_of("virtio-2cpu");
    let captured = run(tree.path(), ["capture", "--json", a.to_str().unwrap()]).expect(0).json();
    let entries = captured["entries"].as_u64().unwrap();
    assert!(entries > 10, "{captured}");
    assert_eq!(
        captured,
        json!({
            "schema": 1, "command": "capture", "file": a, "interfaces": ["eth0"], "entries": entries, "failed": [],
        })
    );
    fs::write(tree.path().join("proc/irq/38/smp_affinity_list"), "1\n").unwrap();
    fs::remove_file(tree.path().join("proc/sys/net/ipv4/tcp_migrate_req")).unwrap();
    capture_of(tree.path(), &b).expect(0);
    let diff = |options: &[&str]| -> Run {
        tune().args(options).arg("diff").args([&a, &b]).output().unwrap().into()
    };
    let expected = json!({
        "schema": 1,
        "command": "diff",
        "kind": "captures",
        "a": a,
        "b": b,
        "differences": [
            { "path": "/proc/irq/38/smp_affinity_list", "a": "0-1", "b": "1" },
            { "path": "/proc/sys/net/ipv4/tcp_migrate_req", "a": "0", "b": null },
        ],
    });
    assert_eq!(diff(&["--json"]).expect(2).json(), expected);
    assert_eq!(
        diff(&[]).expect(2).stdout,
        "/proc/irq/38/smp_affinity_list: 0-1 -> 1\n/proc/sys/net/ipv4/tcp_migrate_req: 0 -> absent\n"
    );
    let same = Run::from(tune().arg("diff").args([&b, tree.path()]).output().unwrap()).expect(0);
    assert_eq!(same.stdout, "", "a capture and the directory that it is of");
}

#[test]
fn two_profiles_are_compared_by_key_and_a_profile_and_a_capture_not_at_all() {
    let (forty, auto) = (profile("40g.toml"), profile("auto.toml"));
    let diff = |a: &Path, b: &Path| Run::from(tune().arg("diff").args([a, b]).output().unwrap());
    let found = diff(&forty, &auto).expect(2).stdout;
    assert!(found.contains("cpus: \"0-47\" -> \"online\"\n"), "{found}");
    assert!(found.contains("queues.rps_flow_cnt: 0 -> absent\n"), "{found}");
    assert_eq!(diff(&auto, &auto).expect(0).stdout, "");
    let mixed = diff(&auto, &host("virtio-2cpu"));
    assert!(mixed.refusal().contains("compare two of a kind"), "{}", mixed.stderr);
    let bad = repository().join("tests/tune/bad_profiles/unknown-key.toml");
    assert!(diff(&auto, &bad).refusal().contains("unknown-key.toml:"));
    assert!(diff(&auto, Path::new("/no/such/file")).refusal().contains("ENOENT"));
}

/// A kill leaves no time to clean up: the next run does it.
#[test]
fn what_a_killed_run_unpacked_goes_with_the_next_one() {
    let place = tempfile::tempdir().unwrap();
    let (file, tmp) = (place.path().join("a.tar"), place.path().join("tmp"));
    fs::create_dir(&tmp).unwrap();
    capture_of(&host("i40e-48cpu"), &file).expect(0);
    let of_capture = |arguments: &[&str]| {
        let mut command = tune();
        command.arg("--root").arg(&file).args(arguments).env("TMPDIR", &tmp);
        command
    };
    // It writes more than a pipe holds, and waits for its reader.
    let mut killed = of_capture(&["capture", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    killed.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1, "it is left");
    Run::from(of_capture(&["show"]).output().unwrap()).expect(0);
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "nothing is left");
}
