//! Every shipped profile on every host tree: either the plan or the refusal that `tests/plans` holds.
//!
//! `tests/plans/PROFILE@HOST.plan` is what `tune plan --json` says, a line for each thing, with CPU masks as
//! lists, so that it can be read; `PROFILE@HOST.refused` is the line that says why there is no plan.
//! `UPDATE_PLANS=1 cargo test -p tune --test plans` writes them anew; what they must say whatever is written
//! there is asserted in `placement.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{generated, host, names, profile, repository, run};
use serde_json::Value;
use tune::cpu_set::CpuSet;

/// The profiles of the issue.
const PROFILES: [&str; 10] = [
    "100g.toml",
    "10g.toml",
    "25g.toml",
    "40g.toml",
    "auto.toml",
    "lab.toml",
    "latency.toml",
    "single-queue.toml",
    "throughput.toml",
    "virtio-cloud.toml",
];

/// Trees that are generated for the test.
const NOT_COMMITTED: [&str; 2] = ["large", "managed-4cpu"];

#[test]
fn every_profile_on_every_host_gives_the_expected_plan_or_refusal() {
    let update = std::env::var_os("UPDATE_PLANS").is_some();
    let plans = repository().join("tests/plans");
    let scratch = tempfile::tempdir().unwrap();
    let mut expected_files = BTreeSet::new();
    let mut wrong = Vec::new();
    for (host_name, tree) in hosts(scratch.path()) {
        for profile_file in PROFILES {
            let (extension, found) = planned(&tree, profile_file);
            let name = format!("{}@{host_name}.{extension}", profile_file.trim_end_matches(".toml"));
            if update {
                fs::write(plans.join(&name), &found).unwrap();
            } else if fs::read_to_string(plans.join(&name)).ok().as_ref() != Some(&found) {
                wrong.push(format!("{name} should be:\n{found}"));
            }
            expected_files.insert(name);
        }
    }
    let present: BTreeSet<String> = names(&plans, |_| true).into_iter().collect();
    for stale in present.difference(&expected_files) {
        if update {
            fs::remove_file(plans.join(stale)).unwrap();
        } else {
            wrong.push(format!("{stale} is the expectation of no case"));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_PLANS=1 writes them anew.\n{}", wrong.join("\n"));
}

#[test]
fn the_shipped_profiles_are_those_of_the_list_and_say_what_for_at_what_cost_and_what_they_leave_alone() {
    let directory = repository().join("profiles");
    assert_eq!(names(&directory, |path| path.extension().is_some_and(|e| e == "toml")), PROFILES);
    for file in PROFILES {
        let text = fs::read_to_string(directory.join(file)).unwrap();
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let says = |what: &str| head.iter().any(|line| line.starts_with(&format!("# {what}")));
        assert!(head[0].starts_with("# For: "), "{file}");
        assert!(says("Costs: ") && says("Leaves alone"), "{file}");
        let readme = fs::read_to_string(directory.join("README.md")).unwrap();
        assert!(readme.contains(&format!("| [`{file}`]({file}) |")), "{file} is not in README.md");
    }
}

fn hosts(scratch: &Path) -> Vec<(String, PathBuf)> {
    let committed = names(&repository().join("tests/hosts"), Path::is_dir);
    assert!(committed.len() >= 17, "{committed:?}");
    let committed = committed.into_iter().map(|name| (name.clone(), host(&name)));
    let generated = NOT_COMMITTED.map(|name| (name.to_owned(), generated(name, scratch)));
    committed.chain(generated).collect()
}

/// `plan` and what was planned, or `refused` and why.
fn planned(tree: &Path, profile_file: &str) -> (&'static str, String) {
    let result = run(tree, ["plan", "--json", profile(profile_file).to_str().unwrap()]);
    if !matches!(result.code, Some(0 | 2)) {
        return ("refused", without_machine_paths(result.refusal()));
    }
    let plan = result.json();
    let changes = plan["changes"].as_array().unwrap();
    assert_eq!(
        result.code,
        Some(if changes.is_empty() { 0 } else { 2 }),
        "{profile_file} on {}",
        tree.display()
    );
    let mut text = String::new();
    let all = |key: &str| plan[key].as_array().unwrap().iter();
    for interface in all("interfaces") {
        writeln!(text, "interface {}", word(interface)).unwrap();
    }
    for note in all("notes") {
        writeln!(text, "note: {}", word(note)).unwrap();
    }
    for skipped in all("skipped") {
        writeln!(text, "skipped {}: {}", word(&skipped["wish"]), word(&skipped["reason"])).unwrap();
    }
    for kept in all("kept") {
        writeln!(
            text,
            "kept {}: {}, asked {}",
            word(&kept["path"]),
            word(&kept["value"]),
            word(&kept["asked"])
        )
        .unwrap();
    }
    for change in changes {
        let path = word(&change["path"]);
        let value = |key: &str| readable(path, word(&change[key]));
        writeln!(text, "{path}: {} -> {}", value("before"), value("after")).unwrap();
    }
    ("plan", text)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A mask as a list; the empty one is `none`.
fn readable(path: &str, value: &str) -> String {
    let is_mask = ["xps_cpus", "xps_rxqs", "rps_cpus"].iter().any(|file| path.ends_with(file));
    match CpuSet::parse_mask(value) {
        Ok(set) if is_mask && set.is_empty() => "none".to_owned(),
        Ok(set) if is_mask => set.to_string(),
        _ => value.to_owned(),
    }
}

/// The message with the repository's own path taken out.
fn without_machine_paths(message: &str) -> String {
    format!("{}\n", message.replace(&format!("{}/", repository().display()), ""))
}
