//! Every command but those for a shell and for man has `--json`, and each object of schema 1 has the fields
//! of `json.txt`, of these types, and no others: who changes one of them changes the schema.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use common::{Run, copy_of, host, profile, run, tune};
use serde_json::{Value, json};
use tune::host::ethtool::{CoalesceField, FlowType, NTUPLE};
use tune::report::{self, Format};
use tune::watch::Event;

/// By command, by path of a field, the types that it has.
type Shapes = BTreeMap<String, BTreeMap<String, BTreeSet<&'static str>>>;

fn note(shape: &mut BTreeMap<String, BTreeSet<&'static str>>, path: &str, value: &Value) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(values) => {
            shape.entry(format!("{path}[]")).or_default();
            return values.iter().for_each(|value| note(shape, &format!("{path}[]"), value));
        }
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            return fields.iter().for_each(|(name, value)| note(shape, &format!("{path}{dot}{name}"), value));
        }
    };
    shape.entry(path.to_owned()).or_default().insert(kind);
}

fn add(shapes: &mut Shapes, name: &str, command: &str, run: &Run) {
    add_object(shapes, name, command, &run.json());
}

fn add_object(shapes: &mut Shapes, name: &str, command: &str, object: &Value) {
    assert_eq!((&object["schema"], &object["command"]), (&1.into(), &command.into()), "{name}");
    note(shapes.entry(name.to_owned()).or_default(), "", object);
}

/// One of each event of `watch`.
fn events() -> Vec<Event> {
    let message = || "m".to_owned();
    let drift = |found: Option<&str>| Event::Drift {
        path: "/p".to_owned(),
        found: found.map(str::to_owned),
        wanted: "1".to_owned(),
        causes: vec!["c".to_owned()],
    };
    // A new one does not compile here, and goes into the list below.
    let _ = |event: Event| match event {
        Event::Started { .. } | Event::Drift { .. } | Event::Link { .. } | Event::Repaired { .. } => {}
        Event::RepairFailed { .. } | Event::Unknown { .. } => {}
        Event::AsWanted | Event::Restored | Event::Stopped => {}
    };
    vec![
        Event::Started { interfaces: vec!["eth0".to_owned()], settings: 7 },
        drift(None),
        drift(Some("3")),
        Event::Link { interface: "eth0".to_owned(), state: "up" },
        Event::Repaired { changes: 2 },
        Event::RepairFailed { message: message() },
        Event::Unknown { message: message() },
        Event::AsWanted,
        Event::Restored,
        Event::Stopped,
    ]
}

fn add_events(shapes: &mut Shapes) {
    for event in events() {
        let mut line = Vec::new();
        report::watch(&mut line, Format::Json, SystemTime::UNIX_EPOCH, &event).unwrap();
        let object: Value = serde_json::from_slice(&line).unwrap();
        add_object(shapes, &format!("watch {}", object["event"].as_str().unwrap()), "watch", &object);
    }
}

/// What ethtool says of a driver that has all of it.
fn with_every_knob(root: &Path) {
    let limited = json!({ "now": 1, "max": 2 });
    let of_each = |names: &[&'static str], value: &Value| -> Value {
        names.iter().map(|name| ((*name).to_owned(), value.clone())).collect()
    };
    let known = json!({
        "driver": "virtio_net",
        "channels": of_each(&["rx", "tx", "other", "combined"], &limited),
        "rings": of_each(&["rx", "tx"], &limited),
        "rss": { "table": [0], "key": "00", "function": 1, "input_xfrm": 1 },
        "hash": of_each(&FlowType::ALL.map(FlowType::name), &json!("sdfn")),
        "coalesce": of_each(&CoalesceField::ALL.map(CoalesceField::name), &json!(1)),
        "features": { NTUPLE: { "on": false, "fixed": true } },
    });
    fs::create_dir_all(root.join("corelocal/ethtool")).unwrap();
    fs::write(root.join("corelocal/ethtool/eth0.json"), known.to_string()).unwrap();
}

/// A driver that has threads and does not tell which queue each polls.
fn without_queues(root: &Path) {
    let file = root.join("corelocal/netdev.json");
    let mut netdev: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for interface in netdev["interfaces"].as_object_mut().unwrap().values_mut() {
        interface["queues"] = Value::Array(Vec::new());
    }
    fs::write(&file, netdev.to_string()).unwrap();
}

#[test]
fn each_command_has_these_fields() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = place.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let auto = profile("auto.toml").to_str().unwrap().to_owned();
    let more = file(
        "more.toml",
        "[channels]\ncount = 99\n[cpu]\ngovernor = \"performance\"\n[sysctl]\n\"net.core.somaxconn\" = 1\n",
    );
    let mut shapes = Shapes::new();
    for name in ["i40e-48cpu", "bnxt-threaded", "virtio-2cpu", "mlx5-multi-pf", "bond-8cpu"] {
        let tree = copy_of(name);
        let of_tree = |arguments: &[&str]| run(tree.path(), ["--json"].iter().chain(arguments).copied());
        add(&mut shapes, "show", "show", &of_tree(&["show"]));
        for profile in [&auto, &more] {
            add(&mut shapes, "plan", "plan", &of_tree(&["plan", profile]));
            add(&mut shapes, "plan --explain", "plan", &of_tree(&["plan", "--explain", profile]));
            add(&mut shapes, "check", "check", &of_tree(&["check", profile]));
            add(&mut shapes, "script", "script", &of_tree(&["script", profile]));
            add(&mut shapes, "explain", "explain", &of_tree(&["explain", "auto", "--profile", profile]));
        }
        // Of one of the other interface's threads nothing but its number is known.
        let interfaces = if name == "bnxt-threaded" { vec!["auto", "eth1"] } else { vec!["auto"] };
        for interface in interfaces {
            add(&mut shapes, "explain", "explain", &of_tree(&["explain", interface]));
        }
        add(&mut shapes, "profile init", "profile init", &of_tree(&["profile", "init", "auto"]));
        let capture = place.path().join(format!("{name}.tar"));
        add(&mut shapes, "capture", "capture", &of_tree(&["capture", capture.to_str().unwrap()]));
        add(&mut shapes, "apply", "apply", &of_tree(&["apply", &auto]));
        add(&mut shapes, "apply", "apply", &of_tree(&["apply", "--keep-going", &more]));
        if name == "virtio-2cpu" {
            fs::write(tree.path().join("proc/irq/38/effective_affinity_list"), "1\n").unwrap();
            fs::write(tree.path().join("proc/irq/39/smp_affinity_list"), "1\n").unwrap();
            add(&mut shapes, "check", "check", &of_tree(&["check", &auto]));
        }
        add(&mut shapes, "restore", "restore", &of_tree(&["restore"]));
        if name == "virtio-2cpu" {
            with_every_knob(tree.path());
            add(&mut shapes, "show", "show", &of_tree(&["show"]));
        }
        if name == "bond-8cpu" {
            add(&mut shapes, "show", "show", &of_tree(&["show", "bond0.7"]));
        }
        if name == "bnxt-threaded" {
            without_queues(tree.path());
            add(&mut shapes, "show", "show", &of_tree(&["show"]));
        }
    }
    add_events(&mut shapes);
    let diff = |a: &str, b: &str| Run::from(tune().args(["diff", "--json", a, b]).output().unwrap());
    add(&mut shapes, "diff", "diff", &diff(&auto, &more));
    let (a, b) = (host("virtio-2cpu"), host("i40e-48cpu"));
    add(&mut shapes, "diff", "diff", &diff(a.to_str().unwrap(), b.to_str().unwrap()));

    let known = expected();
    for (command, shape) in &shapes {
        for (path, kinds) in shape {
            let of_path = known.get(command).and_then(|shape| shape.get(path));
            let of_path =
                of_path.unwrap_or_else(|| panic!("{command}: {path} ({kinds:?}) is not in json.txt"));
            assert!(kinds.iter().all(|kind| of_path.contains(kind)), "{command}: {path}: {kinds:?}");
        }
    }
    for (command, shape) in &known {
        let found: BTreeSet<&String> =
            shapes.get(command).into_iter().flatten().map(|(path, _)| path).collect();
        let missing: Vec<&String> = shape.keys().filter(|path| !found.contains(path)).collect();
        assert!(missing.is_empty(), "{command}: only json.txt has {missing:?}");
    }
}

/// By command and path, the types that `json.txt` has.
fn expected() -> BTreeMap<String, BTreeMap<String, Vec<&'static str>>> {
    let mut shapes: BTreeMap<String, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    let mut command = "";
    for line in include_str!("json.txt").lines() {
        match line.trim_start().split_once(':') {
            Some((path, kinds)) => {
                let kinds = kinds.split(',').map(str::trim).collect();
                shapes.entry(command.to_owned()).or_default().insert(path.to_owned(), kinds);
            }
            None => command = line,
        }
    }
    shapes
}

#[test]
fn what_is_for_a_shell_or_for_man_takes_no_json() {
    for arguments in [&["completions", "bash", "--json"][..], &["man", "/tmp", "--json"]] {
        let refused = Run::from(tune().args(arguments).output().unwrap()).expect(2);
        assert!(refused.stderr.contains("does not take --json"), "{}", refused.stderr);
    }
}
