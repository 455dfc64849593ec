//! Every command but those for a shell and for man has `--json`, and each object of schema 1 has the fields
//! of `json.txt`, of these types, and no others: who changes one of them changes the schema. (What `watch`
//! prints is in its own tests.)

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use common::{Run, copy_of, host, profile, run, tune};
use serde_json::Value;

/// By command, by path of a field, the types that it has.
type Shapes = BTreeMap<String, BTreeMap<String, BTreeSet<&'static str>>>;

/// What ethtool says has tests of its own: a driver lacks most of it.
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
        Value::Object(_) if path.ends_with(".ethtool") => "object",
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            return fields.iter().for_each(|(name, value)| note(shape, &format!("{path}{dot}{name}"), value));
        }
    };
    shape.entry(path.to_owned()).or_default().insert(kind);
}

fn add(shapes: &mut Shapes, name: &str, command: &str, run: &Run) {
    let object = run.json();
    assert_eq!((&object["schema"], &object["command"]), (&1.into(), &command.into()), "{name}");
    note(shapes.entry(name.to_owned()).or_default(), "", &object);
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
    }
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
