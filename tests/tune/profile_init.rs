//! `profile init`: on every host tree, for every interface, it writes a profile that `plan` accepts there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::Path;

use common::veth::{NIC, Veth};
use common::{host, names, repository, run, tune};

#[test]
fn plan_accepts_what_it_writes_for_every_interface_of_every_tree() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("profile.toml");
    let mut tried = 0;
    for tree in names(&repository().join("tests/hosts"), Path::is_dir) {
        let tree = host(&tree);
        let show = run(&tree, ["show", "--json"]).expect(0).json();
        for interface in show["interfaces"].as_array().unwrap() {
            let name = interface["interface"].as_str().unwrap();
            let text = run(&tree, ["profile", "init", name]).expect(0).stdout;
            fs::write(&file, &text).unwrap();
            let plan = run(&tree, ["plan", file.to_str().unwrap()]);
            assert!(matches!(plan.code, Some(0 | 2)), "{}: {name}: {}\n{text}", tree.display(), plan.stderr);
            tried += 1;
        }
    }
    assert!(tried >= 4, "{tried}");
}

#[test]
fn it_is_of_this_host_and_says_so() {
    let tree = host("i40e-48cpu");
    let text = run(&tree, ["profile", "init", "auto"]).expect(0).stdout;
    for expected in [
        "# eth0 on this host: i40e, NUMA node 1, 48 RX and 48 TX queues; CPUs 0-47.",
        "interface = \"eth0\"",
        "cpus = \"0-47\"",
        "irq = \"queue-cpu\"",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let doubtful = run(&host("ambiguous-4cpu"), ["profile", "init", "eth0"]).expect(0).stdout;
    assert!(doubtful.contains("left alone: ") && doubtful.contains("irq = \"keep\""), "{doubtful}");
    let json = run(&tree, ["profile", "init", "eth0", "--json"]).expect(0).json();
    assert_eq!((&json["schema"], &json["command"]), (&1.into(), &"profile init".into()));
    assert_eq!(json["interfaces"], serde_json::json!(["eth0"]));
    assert_eq!(json["profile"], text);
    assert!(run(&tree, ["profile", "init", "eth9"]).refusal().contains("does not exist"));
}

#[test]
fn a_veth_takes_it_as_well() {
    let Some(veth) = Veth::with_queues(3) else { return };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("profile.toml");
    let text = veth.output(tune().args(["profile", "init", NIC])).expect(0).stdout;
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    veth.output(tune().args(["apply", file])).expect(0);
    veth.output(tune().args(["check", file])).expect(0);
    veth.output(tune().arg("restore")).expect(0);
}
