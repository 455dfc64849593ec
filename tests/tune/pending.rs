//! Interrupts that go on firing where they did after they were set elsewhere: said by `check`, and drift, for
//! `watch` too, if they do fire there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::{copy_of, profile, run};
use serde_json::{Value, json};
use tune::check::check_watching;
use tune::kernel_files::KernelFiles;
use tune::profile::Profile;
use tune::report::{self, Format};
use tune::watch::{self, Event, Options};

/// Where IRQ 38 fires, below the root.
const EFFECTIVE: &str = "proc/irq/38/effective_affinity_list";

fn auto() -> String {
    profile("auto.toml").to_str().unwrap().to_owned()
}

/// A host to which `auto.toml` was applied: IRQ 38 is set to CPU 0, and still fires on CPU 1.
fn applied() -> (tempfile::TempDir, KernelFiles, Profile) {
    let tree = copy_of("virtio-2cpu");
    run(tree.path(), ["apply", &auto()]).expect(0);
    assert_eq!(fs::read_to_string(tree.path().join(EFFECTIVE)).unwrap(), "1\n");
    let files = KernelFiles::open(tree.path()).unwrap();
    let profile = Profile::parse(&fs::read_to_string(auto()).unwrap(), "auto.toml").unwrap();
    (tree, files, profile)
}

/// IRQ 38 has fired so often on CPU 0 and CPU 1.
fn has_fired(root: &Path, counts: [u64; 2]) {
    let interrupts = root.join("proc/interrupts");
    let fired = |line: &str| {
        let Some(row) = line.trim_start().strip_prefix("38:") else { return line.to_owned() };
        let rest: Vec<&str> = row.split_whitespace().skip(2).collect();
        format!(" 38: {} {} {}", counts[0], counts[1], rest.join(" "))
    };
    let text = fs::read_to_string(&interrupts).unwrap();
    fs::write(&interrupts, text.lines().map(fired).collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn one_that_does_not_fire_is_a_note() {
    let (tree, ..) = applied();
    let quiet = run(tree.path(), ["check", &auto()]).expect(0);
    let said = "tune: note: IRQ 38 is set to 0 and still fires on 1; it moves when it fires next\n";
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", said));
}

#[test]
fn one_that_fires_where_it_shall_not_is_drift() {
    let (tree, files, profile) = applied();
    let check = |counts: [u64; 2], moved: bool| {
        has_fired(tree.path(), [5, 5]);
        let pause = || {
            has_fired(tree.path(), counts);
            if moved {
                fs::write(tree.path().join(EFFECTIVE), "0\n").unwrap();
            }
        };
        let checked = check_watching(&files, &profile, pause).unwrap();
        let mut json = Vec::new();
        report::check(&mut json, Format::Json, &checked).unwrap();
        (checked.is_as_wanted(), serde_json::from_slice::<Value>(&json).unwrap()["drift"].clone())
    };
    let drift = json!([{ "path": format!("/{EFFECTIVE}"), "found": "1", "wanted": "0" }]);
    assert_eq!(check([5, 5], false), (true, json!([])));
    assert_eq!(check([6, 5], false), (true, json!([])), "on the CPU where it shall");
    assert_eq!(check([5, 6], false), (false, drift));
    assert_eq!(check([5, 6], true), (true, json!([])), "the interrupt that moved it");
}

#[test]
fn watch_says_it_once_and_when_it_has_moved() {
    let (tree, files, profile) = applied();
    let (stop, mut end) = UnixStream::pair().unwrap();
    let options = Options { interval: Duration::from_millis(1), repair: None };
    let mut count = 100;
    // Between two looks it fires, until it has been said, and two looks more.
    let mut looks_after = 0;
    let said = std::cell::RefCell::new(Vec::new());
    let is_said = || said.borrow().iter().any(|event| matches!(event, Event::Drift { .. }));
    let mut alive = || {
        count += 1;
        has_fired(tree.path(), [5, count]);
        looks_after += u32::from(is_said());
        if looks_after == 3 {
            fs::write(tree.path().join(EFFECTIVE), "0\n").unwrap();
        }
    };
    let mut say = |event: Event| {
        if event == Event::AsWanted && is_said() {
            end.write_all(b".").unwrap();
        }
        said.borrow_mut().push(event);
        Ok(())
    };
    watch::watch(&files, &profile, &options, &stop, &mut alive, &mut say).unwrap();
    let said = said.into_inner();
    let [Event::Started { .. }, Event::AsWanted, drift, Event::AsWanted, Event::Stopped] = &said[..] else {
        panic!("{said:?}")
    };
    let expected = Event::Drift {
        path: format!("/{EFFECTIVE}"),
        found: Some("1".into()),
        wanted: "0".into(),
        causes: vec![
            "IRQ 38 is set to 0 and still fires on 1: it has fired there since, and did not move".into(),
        ],
    };
    assert_eq!(*drift, expected);
}
